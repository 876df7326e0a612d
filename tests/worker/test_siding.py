"""One endpoint that hangs never delays another: twenty endpoints on one worker, five of which never answer."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from models.database import connect
from tests.conftest import wait_until
from tests.worker.receiver import Receiver, raw, receiving
from tests.worker.webhook_rows import World, settings_for
from worker.bell import Lane, endpoint_lane
from worker.siding import Siding

LANE, OTHER = Lane("notify", "webhooks", "one"), Lane("notify", "webhooks", "other")


@pytest.fixture
def rung() -> list[Lane]:
    return []


@pytest.fixture
def siding(rung: list[Lane]) -> Iterator[Siding]:
    opened = Siding(rung.append, patience=0.05)
    yield opened
    opened.close()


def test_quick_work_is_waited_for_and_says_whether_there_is_more(siding: Siding, rung: list[Lane]) -> None:
    assert siding.run(LANE, lambda: True) is True
    assert siding.run(LANE, lambda: False) is False
    with pytest.raises(TimeoutError, match="its own"):
        siding.run(LANE, lambda: _raise(TimeoutError("its own")))
    assert rung == []


def _raise(error: Exception) -> bool:
    raise error


@pytest.mark.parametrize(("more", "expected"), [(True, [LANE]), (False, [])])
def test_slow_work_is_left_and_rings_by_itself_if_there_is_more(
    siding: Siding, rung: list[Lane], more: bool, expected: list[Lane]
) -> None:
    over = threading.Event()
    assert siding.run(LANE, lambda: over.wait(5) and more) is False
    assert siding.run(OTHER, lambda: True) is True, "another lane passes"
    over.set()
    siding.close()
    assert rung == expected


def test_a_lane_is_never_worked_on_twice_and_a_bell_meanwhile_is_heard_in_the_end(
    siding: Siding, rung: list[Lane]
) -> None:
    over = threading.Event()
    siding.run(LANE, lambda: over.wait(5) and False)
    assert siding.run(LANE, lambda: _raise(AssertionError("twice"))) is False
    over.set()
    siding.close()
    assert rung == [LANE]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = connect(settings_for(database_url).sqlalchemy_url, pool_size=10, application="test")
    yield opened
    opened.dispose()


@pytest.fixture
def world(engine: Engine, database_url: str) -> Iterator[World]:
    opened = World(engine, settings_for(database_url, webhook_timeout_seconds=3.0))
    yield opened
    opened.close()


def test_of_twenty_endpoints_five_hang_and_the_others_lag_stays_under_two_seconds(world: World) -> None:
    with receiving() as well, receiving(raw(_never)) as ill:
        endpoints = [world.endpoint(_url(ill if n % 4 == 0 else well, n)) for n in range(20)]
        notifier = world.notifier()
        siding = Siding(lambda lane: None)
        lags: list[float] = []
        ends_at = time.monotonic() + 4
        while time.monotonic() < ends_at:
            due: dict[str, float] = {}
            for number, endpoint in enumerate(endpoints):
                [delivery] = world.due(endpoint)
                if number % 4:
                    due[str(delivery)] = time.monotonic()
            for endpoint in endpoints:  # one worker hears one bell after the other
                siding.run(endpoint_lane(endpoint.id), lambda: notifier.deliver(endpoint.id))  # noqa: B023
            wait_until(lambda: due.keys() <= set(well.ids), "the living endpoints have theirs", 10)  # noqa: B023
            came = {call.id: call.at for call in well.calls}
            lags += [came[delivery] - since for delivery, since in due.items()]
        siding.close()
    assert len(lags) >= 30
    assert sorted(lags)[int(len(lags) * 0.99)] < 2


def _url(receiver: Receiver, number: int) -> str:
    return f"{receiver.url}/{number}"


def _never() -> Iterator[bytes]:
    time.sleep(3.5)
    yield b""
