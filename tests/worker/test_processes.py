"""The processes of a worker: what becomes of them when one dies, and when all are told to stop."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from deploy.program import Process, Program, last_lines, start
from providers.emulators.smtp import Does, Fault, Stage
from tests.conftest import wait_until
from tests.worker.changed_worker import hear_of_no_death, start_slowly, stop_soon
from tests.worker.house import House
from worker.bell import FOLLOWUP_LANE, send_lane

Start = Callable[[Callable[[], None], str, int], Process]


@pytest.fixture
def started(house: House, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker for the house with something changed: that, its queue, and how many processes it has."""
    env = {
        "POSTROAD_DATABASE_URL": house.settings.database_url,
        "POSTROAD_REDIS_URL": house.settings.redis_url,
        "POSTROAD_SECRET_KEYS": house.settings.secret_keys,
        "POSTROAD_MAILER_ALLOWED_HOSTS": house.settings.mailer_allowed_hosts,
    }
    log = tmp_path / "worker.log"
    running: list[Process] = []

    def begin(change: Callable[[], None], queue: str, concurrency: int) -> Process:
        argv = (sys.executable, "-m", "tests.worker.changed_worker", change.__name__, queue, str(concurrency))
        worker = start(Program(name="worker", argv=argv, log=log, env=env))
        running.append(worker)
        expected = 0 if concurrency == 1 else concurrency
        wait_until(lambda: worker.poll() is not None or len(children(worker)) == expected, "it runs")
        assert worker.poll() is None, last_lines(log)
        return worker

    yield begin
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def children(process: Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [one for one in psutil.Process(process.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
    return []


def test_the_death_of_a_process_that_the_pool_did_not_hear_of_is_noticed_soon(house: House, started: Start) -> None:
    worker = started(hear_of_no_death, "followup", 2)
    house.runtime.bells.ring(FOLLOWUP_LANE)
    wait_until(lambda: house.runtime.redis.get(FOLLOWUP_LANE.key) is None, "it is at work")
    waits = []
    for _ in range(4):
        wait_until(lambda: len(children(worker)) == 2, "both processes are there")
        [victim, _] = children(worker)
        begun = time.monotonic()
        victim.kill()
        wait_until(lambda: victim not in children(worker) and len(children(worker)) == 2, "another took its place")  # noqa: B023
        waits.append(time.monotonic() - begun)
    # The first may have come at any time between two looks; after it each comes just behind one.
    assert min(waits[1:]) < 4.0


def test_a_process_whose_parent_died_while_it_started_ends_too(started: Start) -> None:
    worker = started(start_slowly, "followup", 2)
    orphans = children(worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(30)
    wait_until(lambda: not any(orphan.is_running() for orphan in orphans), "they have ended")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_worker_that_is_told_to_stop_ends_in_time_whatever_it_waits_for(
    house: House, started: Start, concurrency: int
) -> None:
    house.server.fail(Fault(Stage.DOT, Does.HANG, store=True))
    accepted = house.submit("ann@example.com")
    worker = started(stop_soon, "send.normal", concurrency)
    house.runtime.bells.ring(send_lane(house.mailer_id, 0))
    wait_until(lambda: house.message(accepted).rfc_message_id in house.server.ledger, "it is on the wire")
    family = [psutil.Process(worker.pid), *children(worker)]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == -signal.SIGALRM
    wait_until(lambda: not any(one.is_running() for one in family), "its processes have ended")

    def is_in_doubt() -> bool:
        house.tick()
        return house.message(accepted).state == "uncertain"

    wait_until(is_in_doubt, "what it held is taken from it")
