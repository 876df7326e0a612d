"""CONTRIBUTING's new provider keeps the contract and sends for a workspace, with the four files on the page."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

import providers
from api_shim.app import create_app
from tests.api_shim.conftest import new_tenant
from tests.providers import benches, test_contract
from tests.worker.house import settings_for
from worker.delivery import deliver
from worker.record import record
from worker.runtime import Runtime

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCKS = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
"""File -> its code on the page."""
ADAPTER, EMULATOR, REGISTRY, BENCH = (
    "providers/courier.py",
    "providers/emulators/courier.py",
    "providers/__init__.py",
    "tests/providers/benches.py",
)

Case = tuple[Callable[..., None], dict[str, Any]]


def _cases() -> Iterator[Case]:
    """Every test of the contract that is asked of a bench, with each of its parameters."""
    for name, function in vars(test_contract).items():
        code = getattr(function, "__code__", None)
        if name.startswith("test_") and code is not None and "bench" in code.co_varnames[0]:
            marks = [mark.args for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
            choices = [[_named(names, values) for values in several] for names, several in marks]
            for chosen in itertools.product(*choices):
                yield function, {key: value for one in chosen for key, value in one.items()}


def _named(names: str | tuple[str, ...], values: Any) -> dict[str, Any]:
    return {names: values} if isinstance(names, str) else dict(zip(names, values, strict=True))


def _loaded(path: str, into: dict[str, Any]) -> dict[str, Any]:
    exec(compile(BLOCKS[path], path, "exec"), into)
    return into


@pytest.fixture
def courier(monkeypatch: pytest.MonkeyPatch) -> type[benches.Bench]:
    """The bench of the page, with everything where the page says it is. Undone when the test ends."""
    for path in (ADAPTER, EMULATOR):
        module = ModuleType(path.removesuffix(".py").replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        _loaded(path, module.__dict__)
    registry = {**providers.ADAPTERS}
    _loaded(REGISTRY, {"ADAPTERS": registry})
    monkeypatch.setattr(providers, "ADAPTERS", registry)
    monkeypatch.setattr("api_shim.resources.mailers.ADAPTERS", registry)
    emulator = vars(sys.modules["providers.emulators.courier"])["CourierEmulator"]
    bench: type[benches.Bench] = _loaded(BENCH, {**vars(benches), "CourierEmulator": emulator})["CourierBench"]
    return bench


def test_the_page_shows_four_files_and_names_no_other_that_must_be_touched() -> None:
    assert sorted(BLOCKS) == sorted((ADAPTER, EMULATOR, REGISTRY, BENCH))
    assert "\nFour files: " in PAGE.read_text()


def test_the_contract_is_kept_by_the_provider_of_the_page(courier: type[benches.Bench]) -> None:
    asked = list(_cases())
    assert len(asked) > 40
    for function, arguments in asked:
        with courier() as bench:
            function(bench, **arguments)


def test_the_contract_finds_a_provider_that_drops_a_header(
    courier: type[benches.Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = courier.arrival

    def without(bench: benches.Bench) -> Any:
        found = arrival(bench)
        found.headers.pop("x-campaign", None)  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(courier, "arrival", without)
    with courier() as bench, pytest.raises(AssertionError):
        test_contract.test_what_a_mail_need_not_have_is_carried_or_refused_and_never_dropped(bench, "own header")


def test_a_mailer_of_the_pages_provider_is_made_sends_and_hears_of_a_bounce(
    courier: type[benches.HttpBench], database_url: str, redis_url: str
) -> None:
    settings = settings_for(database_url, redis_url)
    with courier() as bench, TestClient(create_app(settings)) as api:
        tenant = new_tenant(api.app.state.services)  # type: ignore[attr-defined]
        api.headers["Authorization"] = f"Bearer {tenant.key}"
        body = {
            "provider": "courier",
            "from": ["ann@demo.test"],
            "default": True,
            "base_url": bench.emulator.url,
            "credentials": dict(bench.provider.account.credentials),
        }
        refused = api.post("/v1/mailers", json=body | {"credentials": {"token": "t"}})
        assert [fault["field"] for fault in refused.json()["details"]["fields"]] == ["credentials.hook_secret"]
        mailer = api.post("/v1/mailers", json=body).json()
        mail = {
            "from": {"email": "ann@demo.test"},
            "to": [{"email": "bob@client.test"}],
            "subject": "Offer",
            "content": [{"type": "text/html", "value": "<p>Hello</p>"}],
            "settings": {},
            "mailer_id": mailer["id"],
        }
        accepted = api.post("/v1/email/send", json=mail)
        assert accepted.status_code == 202, accepted.text
        runtime = Runtime(settings, application="test worker")
        try:
            deliver(runtime, UUID(mailer["id"]), 0)
            record(runtime)
        finally:
            runtime.close()
        assert bench.emulator.ledger.total() == 1
        [message] = api.get("/v1/messages").json()["data"]
        assert message["state"] == "sent"
        bounce = bench.report("bounced")
        heard = api.post(mailer["hook_url"], content=bounce.body, headers=dict(bounce.headers))
        assert heard.status_code == 200
        assert api.post(mailer["hook_url"], content=bounce.body).status_code == 401
