"""Requests made up from the document, good and bad: nothing answers 5xx, and all answers are documented ones."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from api_shim.services import Services
from tests.api_shim.everything import Operation, World, operations

CHECKS: Any = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

EXAMPLES = {GenerationMode.POSITIVE: 5, GenerationMode.NEGATIVE: 4}
"""Requests per operation: such as the document allows, and such as it does not."""

UNHURRIED = {"Prefer": "respond-async"}
"""No worker runs: nothing would be gained by waiting for one."""


class Prober:
    """Sends what schemathesis makes up, about things that exist, and keeps what went wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        document = world.client.get("/openapi.json").json()
        self._schema: Any = schemathesis.openapi.from_dict(document)
        self.operations = sorted(operations(document), key=lambda one: (one.method == "delete", one.path))

    def faults(self, operation: Operation, mode: GenerationMode) -> list[str]:
        found: list[str] = []
        probed = self._schema[operation.path][operation.method.upper()]
        about = self._world.parameters(operation) if mode is GenerationMode.POSITIVE else None

        @seed(20260101)
        @hypothesis_settings(
            max_examples=EXAMPLES[mode],
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=probed.as_strategy(generation_mode=mode, path_parameters=about or None))
        def probe(case: Case[Any]) -> None:
            found.extend(self._send(operation, case))

        probe()
        return found

    def _send(self, operation: Operation, case: Case[Any]) -> list[str]:
        request = case.as_transport_kwargs(base_url="http://testserver")
        own = {**UNHURRIED, "Authorization": f"Bearer {self._world.tenant.key}"}
        request["headers"] = {**request["headers"], **own}
        if "data" in request and isinstance(request["data"], bytes | str):
            request["content"] = request.pop("data")
        request.pop("cookies", None)
        answer = self._world.client.request(**request)
        try:
            case.validate_response(answer, checks=CHECKS)
        except (Failure, FailureGroup) as failure:
            reasons = getattr(failure, "exceptions", [failure])
            return [f"{operation.name}: {reason}\n{str(request)[:600]}\n{answer.text[:300]}" for reason in reasons]
        return []


@pytest.fixture(scope="module")
def prober(api: TestClient, app_services: Services) -> Prober:
    return Prober(World(api, app_services))


@pytest.mark.parametrize("mode", list(EXAMPLES), ids=lambda mode: mode.value)
def test_no_request_answers_5xx_or_anything_undocumented(prober: Prober, mode: GenerationMode) -> None:
    faults = [fault for operation in prober.operations for fault in prober.faults(operation, mode)]
    assert faults == [], "\n\n".join(faults)
