"""Every documented route, called about another workspace's things, without a key, and with too small a key.

The routes are those of the app; one that `everything` knows no example of fails here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import text
from starlette.testclient import TestClient

from api_shim.app import BASES
from api_shim.auth import SCOPES
from api_shim.services import Services
from models.base import Base
from tests.api_shim.conftest import as_caller, new_tenant
from tests.api_shim.everything import LINKS, Operation, World, operations

PUBLIC = {
    "GET /livez", "GET /readyz", "GET /metrics", "GET /openapi.json", "HEAD /openapi.json",
    "GET /docs", "GET /docs/errors", "GET /docs/style.css",
    "GET /t/o/{token}", "HEAD /t/o/{token}", "GET /t/c/{token}", "HEAD /t/c/{token}",
    "GET /t/u/{token}", "HEAD /t/u/{token}", "POST /t/u/{token}",
    "GET /v1/mailers/oauth/callback", "GET /functions/v1/api/v1/mailers/oauth/callback",
    "GET /v1/hooks/{provider}/{token}", "POST /v1/hooks/{provider}/{token}",
    "GET /functions/v1/api/v1/hooks/{provider}/{token}", "POST /functions/v1/api/v1/hooks/{provider}/{token}",
    "POST /v1/hooks/{provider}/{token}/mime", "POST /functions/v1/api/v1/hooks/{provider}/{token}/mime",
}  # fmt: skip
"""What needs no key: probes, pages, and what recipients and providers reach with a token in the path."""

DASHBOARD = "/ops/"
"""Has a login of its own."""

OPEN_IN_DASHBOARD = {"/ops/login", "/ops/static/{name}"}

OF_ALL = "/v1/ops/queues/{queue}"
"""The queues are of the whole system, not of a workspace."""

READS_BY_POST = {"POST /v1/templates/{id}/preview"}
"""What takes a body to say what is to be read."""


@pytest.fixture(scope="module")
def walked(api: TestClient) -> list[Operation]:
    return operations(api.app.openapi())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def ours(api: TestClient, app_services: Services) -> World:
    return World(api, app_services)


@pytest.fixture(scope="module")
def theirs(api: TestClient, app_services: Services) -> World:
    return World(api, app_services)


def rows(services: Services, world: World) -> dict[str, list[str]]:
    """Everything that is stored for a workspace, table by table."""
    found = {}
    with services.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if "workspace_id" in table.c:
                # When a key was last used is no content of the workspace.
                query = text(f"select to_jsonb(t) - 'last_used_at' from {table.name} t where workspace_id = :id")
                stored = connection.execute(query, {"id": world.tenant.workspace_id})
                found[table.name] = sorted(str(row[0]) for row in stored)
    return found


def attempts(operation: Operation, ours: World, theirs: World) -> Iterator[tuple[str, World, Any, dict[str, str]]]:
    """Whose id stands in the path, and which bodies and queries name something of theirs."""
    bodies = theirs.bodies(operation)
    if "{" in operation.path and not operation.path.startswith(OF_ALL):
        yield from (("path", theirs, body, {}) for body in bodies)
    for name in sorted({name for form in operation.forms() for name in operation.linking(form)}):
        if name not in LINKS:
            pytest.fail(f"{operation.name}: add {name} to LINKS in everything.py")
        foreign: Any = [theirs[LINKS[name]]] if name.endswith("_ids") else theirs[LINKS[name]]
        for body in ours.bodies(operation):
            if isinstance(body, dict) and any(_fits(form, body, name) for form in operation.forms()):
                yield name, ours, {**_without_twins(body, name), name: foreign}, {}
    for name in operation.queried():
        if name not in LINKS:
            pytest.fail(f"{operation.name}: add {name} to LINKS in everything.py")
        yield name, ours, None, {name: theirs[LINKS[name]]}


def _fits(form: Mapping[str, Any], body: dict[str, Any], name: str) -> bool:
    return set(form.get("properties", ())) >= {*body, name}


def _without_twins(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Without what the body may not hold beside the field."""
    alone = {"delivery_id": {"since"}, "opportunity_id": {"deal_id"}, "company_id": {"customer_id"}}.get(name, set())
    return {key: value for key, value in body.items() if key not in alone}


def refused(answer: httpx2.Response) -> bool:
    """Whether nothing was found, in one of the ways in which a route says so."""
    if answer.status_code == 400:
        return "missing_entities" in answer.text
    if answer.status_code == 200:
        found = answer.json()
        return bool(found.get("data") == [] or found.get("updated") == 0)
    return answer.status_code == 404


def test_another_workspaces_things_are_not_there_and_stay_as_they_are(
    app_services: Services, walked: list[Operation], ours: World, theirs: World
) -> None:
    before = rows(app_services, theirs)
    let_in = []
    for operation in walked:
        for what, place, body, query in attempts(operation, ours, theirs):
            answer = place.call(operation, client=ours.client, body=body, query=query)
            if not refused(answer):
                let_in.append(f"{operation.name} with their {what}: {answer.status_code} {answer.text[:200]}")
    assert let_in == [], "\n".join(let_in)
    assert rows(app_services, theirs) == before


def test_what_is_listed_is_the_callers_own(walked: list[Operation], ours: World, theirs: World) -> None:
    shown = []
    for operation in walked:
        if operation.method == "get" and "{" not in operation.path:
            text = ours.call(operation).text
            shown += [f"{operation.name} shows {known}" for known in theirs.ids() if known in text]
    assert shown == []


def test_without_a_key_every_route_answers_401(api: TestClient, walked: list[Operation], ours: World) -> None:
    statuses = {
        operation.name: ours.call(operation, client=api, body=ours.bodies(operation)[0]).status_code
        for operation in walked
    }
    assert {name: status for name, status in statuses.items() if status != 401} == {}


def test_a_key_without_the_scope_gets_403_that_names_it(
    api: TestClient, app_services: Services, walked: list[Operation], ours: World
) -> None:
    wrong = []
    for scope in SCOPES:
        needing = [operation for operation in walked if operation.scope == scope]
        lacking = as_caller(api, new_tenant(app_services, tuple(set(SCOPES) - {scope})).key)
        for operation in needing:
            answer = ours.call(operation, client=lacking, body=ours.bodies(operation)[0])
            if answer.status_code != 403 or scope not in answer.text:
                wrong.append(f"{operation.name}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []


def test_the_one_scope_a_route_names_is_enough(
    api: TestClient, app_services: Services, walked: list[Operation], ours: World
) -> None:
    wrong = []
    for scope in {operation.scope for operation in walked}:
        assert scope in SCOPES
        holding = as_caller(api, new_tenant(app_services, (scope,)).key)
        for operation in walked:
            if operation.scope == scope:
                answer = ours.call(operation, client=holding, body=ours.bodies(operation)[0])
                if answer.status_code in (401, 403) and "required_scope" in answer.text:
                    wrong.append(operation.name)
    assert wrong == []


def paths(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of everything the application answers to."""
    for context in iter_route_contexts(app.routes):
        for method in context.methods or ():
            yield method, re.sub(r":\w+\}", "}", context.path or "")


def test_what_is_neither_documented_nor_public_does_not_exist(api: TestClient, walked: list[Operation]) -> None:
    app: Any = api.app
    documented = {f"{operation.method.upper()} {operation.path}" for operation in walked}
    documented |= {name.replace(BASES[0], BASES[1], 1) for name in documented}
    answered = {f"{method} {path}" for method, path in paths(app) if not (path + "/").startswith(DASHBOARD)}
    assert answered - documented == PUBLIC
    assert documented - answered == set()


def test_the_dashboard_shows_nothing_before_the_login(api: TestClient) -> None:
    answers = {}
    for method, path in paths(api.app):  # type: ignore[arg-type]
        if (path + "/").startswith(DASHBOARD) and "rest" not in path and path not in OPEN_IN_DASHBOARD:
            answer = api.request(method, re.sub(r"\{\w+\}", str(uuid4()), path), follow_redirects=False)
            turned_away = answer.status_code == 303 and answer.headers["location"].startswith("/ops/login")
            answers[f"{method} {path}"] = turned_away or answer.status_code in (204, 401, 403)
    assert [name for name, ok in answers.items() if not ok] == []


def test_what_reads_has_a_reading_scope_and_what_writes_another(walked: list[Operation]) -> None:
    odd = {
        operation.name
        for operation in walked
        if (operation.method == "get") != (operation.scope or "").endswith(":read")
    }
    assert odd == READS_BY_POST
