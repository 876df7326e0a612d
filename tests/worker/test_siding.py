"""One endpoint that hangs never delays another: twenty endpoints on one worker, five of which never answer."""

import threading
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
    """Of no patience at all: whatever takes any time is left."""
    opened = Siding(rung.append, patience=0.0)
    yield opened
    opened.close()


@pytest.fixture
def patient(rung: list[Lane]) -> Iterator[Siding]:
    opened = Siding(rung.append, patience=60.0)
    yield opened
    opened.close()


def test_quick_work_is_waited_for_and_says_whether_there_is_more(patient: Siding, rung: list[Lane]) -> None:
    assert patient.run(LANE, lambda: True) is True
    assert patient.run(LANE, lambda: False) is False
    with pytest.raises(TimeoutError, match="its own"):
        patient.run(LANE, lambda: _raise(TimeoutError("its own")))
    assert rung == []


def _noted(event: threading.Event) -> bool:
    event.set()
    return False


def _raise(error: Exception) -> bool:
    raise error


@pytest.mark.parametrize(("more", "expected"), [(True, [LANE]), (False, [])])
def test_slow_work_is_left_and_rings_by_itself_if_there_is_more(
    siding: Siding, rung: list[Lane], more: bool, expected: list[Lane]
) -> None:
    over, passed = threading.Event(), threading.Event()
    assert siding.run(LANE, lambda: over.wait(60) and more) is False
    siding.run(OTHER, lambda: _noted(passed))
    assert passed.wait(60), "another lane passes"
    over.set()
    siding.close()
    assert rung == expected


def test_a_lane_is_never_worked_on_twice_and_a_bell_meanwhile_is_heard_in_the_end(
    siding: Siding, rung: list[Lane]
) -> None:
    over = threading.Event()
    siding.run(LANE, lambda: over.wait(60) and False)
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
    opened = World(engine, settings_for(database_url, webhook_timeout_seconds=120.0))
    yield opened
    opened.close()


def test_of_twenty_endpoints_five_hang_and_the_others_have_each_event_meanwhile(world: World) -> None:
    over = threading.Event()
    with receiving() as well, receiving(raw(lambda: _hang_until(over))) as ill:
        endpoints = [world.endpoint(_url(ill if n % 4 == 0 else well, n)) for n in range(20)]
        notifier = world.notifier()
        siding = Siding(lambda lane: None)
        for _ in range(4):
            dues = [world.due(endpoint) for endpoint in endpoints]
            due = {str(delivery) for number, [delivery] in enumerate(dues) if number % 4}
            for endpoint in endpoints:  # one worker hears one bell after the other
                siding.run(endpoint_lane(endpoint.id), lambda: notifier.deliver(endpoint.id))  # noqa: B023
            wait_until(lambda: due <= set(well.ids), "the living endpoints have theirs")  # noqa: B023
        assert len(ill.calls) == 5, "each of the others still waits for the answer to its first"
        over.set()
        siding.close()


def _url(receiver: Receiver, number: int) -> str:
    return f"{receiver.url}/{number}"


def _hang_until(over: threading.Event) -> Iterator[bytes]:
    over.wait(120)
    yield b""
