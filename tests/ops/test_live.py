"""The live figures: one computation for all who look, none when nobody does."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator

import orjson
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api_shim.ops import figures, live
from api_shim.ops.live import Hub
from api_shim.services import Services
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_mailer
from tests.ops.conftest import Browser


@pytest.fixture
def counted(app_services: Services) -> Iterator[list[str]]:
    """The statements that count what waits, one for each computation."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "count(*) filter (where state = 'uncertain') as uncertain" in statement:
            seen.append(statement)

    event.listen(app_services.engine, "before_cursor_execute", note)
    yield seen
    event.remove(app_services.engine, "before_cursor_execute", note)


async def _look(hub: Hub, tenant: Tenant, events: int) -> list[bytes]:
    """What one viewer is sent: so many rounds of it."""
    stream = hub.stream(tenant.workspace_id)
    sent = [await anext(stream) for _ in range(events + 1)]
    await stream.aclose()
    return sent[1:]


def _run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def _fields(sent: bytes) -> dict[str, dict[str, str]]:
    """The events of one round by name."""
    lines = [line for line in sent.decode().splitlines() if line]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return {name.removeprefix("event: "): orjson.loads(data.removeprefix("data: ")) for name, data in pairs}


def test_fifty_viewers_cost_what_one_does(app_services: Services, tenant: Tenant, counted: list[str]) -> None:
    async def look() -> None:
        hub = Hub(app_services)
        sent = await asyncio.gather(*(_look(hub, tenant, 3) for _ in range(50)))
        assert all(each == sent[0] for each in sent)

    _run(look)
    assert 3 <= len(counted) <= 4


def test_nothing_is_computed_when_nobody_looks(app_services: Services, tenant: Tenant, counted: list[str]) -> None:
    async def look() -> None:
        hub = Hub(app_services)
        await _look(hub, tenant, 1)
        await asyncio.sleep(1.2)
        before = len(counted)
        await asyncio.sleep(1.2)
        assert len(counted) == before
        await _look(hub, tenant, 1)
        assert len(counted) > before

    _run(look)


def test_a_viewer_is_sent_what_has_changed(app_services: Services, tenant: Tenant) -> None:
    async def look() -> None:
        first, second = await _look(Hub(app_services), tenant, 2)
        assert set(_fields(first)) == {"figures", "parts"}
        assert set(_fields(first)["parts"]) == {"charts", "banner", "attention"}
        assert _fields(first)["figures"]["send.high/ready"] == "0"
        assert set(_fields(second)) == {"figures"}

    _run(look)


def test_each_viewer_sees_the_matters_of_its_own_workspace(
    app_services: Services, tenant: Tenant, other_tenant: Tenant
) -> None:
    with app_services.sessions() as opened:
        add_mailer(opened, other_tenant, name="Their box", status="reconnect_required")

    async def look() -> None:
        hub = Hub(app_services)
        (mine,), (theirs,) = await asyncio.gather(_look(hub, tenant, 1), _look(hub, other_tenant, 1))
        assert b"Their box" not in mine
        assert b"Their box" in theirs

    _run(look)


def test_a_stream_ends_in_time_so_that_the_key_is_looked_at_again(
    operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STREAM_SECONDS", 0.5)
    started = time.monotonic()
    answer = operator.get("/ops/live")
    assert time.monotonic() - started < 30
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("retry: 1000\n\nevent: figures\n")


def test_a_database_that_is_away_stops_no_stream(
    app_services: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly, failing = figures.current, [True, False]

    def current(session: Session) -> dict[str, str]:
        if failing and failing.pop(0):
            raise OperationalError("select", {}, Exception("away"))
        return truly(session)

    monkeypatch.setattr(figures, "current", current)

    async def look() -> None:
        first, second = await _look(Hub(app_services), tenant, 2)
        assert _fields(first)["figures"] == {}
        assert "send.high/ready" in _fields(second)["figures"]

    _run(look)
