"""The database server is gone for good while mail flows, and its standby takes over. A stack of its own: it does not
come back.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.chaos import world as worlds
from tests.chaos.conftest import LINES
from tests.chaos.standby import Pair, followed
from tests.chaos.world import LONG, Scenario, World
from tests.conftest import wait_until

pytestmark = pytest.mark.stack

MAILS = 20_000 if LONG else 2_000
AT_ONCE = 20


@pytest.fixture(scope="module")
def doomed(scratch: Path) -> Iterator[tuple[World, Pair]]:
    """A stack whose database has a standby that is in step with it."""
    directory = scratch / "doomed"
    with (
        worlds.world(directory, LINES) as world,
        followed(directory / "postgres", world.stack.json["database_url"]) as pair,
    ):
        yield world, pair
        world.stack.stop()  # while there still is a database to say goodbye to


def test_r13_a_failover_to_a_synchronous_standby_loses_and_doubles_nothing(doomed: tuple[World, Pair]) -> None:
    world, pair = doomed
    broken = "PostgreSQL dead for good while mail flows, its synchronous standby promoted"
    with world.scenario("R13", broken) as scenario:
        over = Event()
        with ThreadPoolExecutor(1) as caller:
            promising = caller.submit(promise, world, scenario, world.mailer(), over)
            try:
                for _ in range(4):
                    scenario.send(MAILS // 4, mailer_id=world.mailer())
                scenario.wait_for(lambda fate: fate.sent > 0, "mail flows")
                fail_over(world, pair, scenario.body(1))
                scenario.mended()
            finally:
                over.set()
            answers = promising.result()
        scenario.promised += AT_ONCE * answers.count(202)
        assert set(answers) <= {202, 503}
    assert world.sql("select pg_is_in_recovery(), current_setting('synchronous_standby_names')") == [(False, "")]


def fail_over(world: World, pair: Pair, body: dict[str, Any]) -> None:
    """body: of a mail that nobody can take meanwhile."""
    pair.kill_primary(world.running("postgres"))
    world.database.cut()
    assert world.client.send(body).status_code == 503
    pair.promote()
    world.database.upstream = lambda: pair.standby.port
    world.database.mend()
    wait_until(world.answers, "the API is ready")


def promise(world: World, scenario: Scenario, mailer: str, over: Event) -> list[int]:
    """Has mail accepted all the time. Returns the status of every answer."""
    statuses = []
    while not over.is_set():
        statuses += insist(world, scenario.body(AT_ONCE, mailer_id=mailer))
        time.sleep(0.1)
    return statuses


def insist(world: World, body: dict[str, Any]) -> list[int]:
    """As a careful client: with one key, again and again until it is accepted. Returns the status of every answer."""
    key = str(uuid4())
    statuses: list[int] = []
    deadline = time.monotonic() + 60
    while 202 not in statuses:
        assert time.monotonic() < deadline, statuses
        with suppress(requests.ConnectionError):
            statuses.append(world.client.send(body, Idempotency_Key=key).status_code)
    return statuses
