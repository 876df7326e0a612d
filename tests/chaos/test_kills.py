"""Every process is killed, at every point where that could matter and at random, while mail flows."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psutil
import pytest
import requests

from tests.chaos.world import LONG, Scenario, World
from tests.conftest import wait_until
from tests.e2e.outside import Receiver
from worker.faults import POINTS

pytestmark = pytest.mark.stack

MAILS = 500 if LONG else 60
IN_DOUBT = 4 * 16
"""What one killed worker leaves uncertain at most: a group on each connection."""

WORKER_POINTS = ("claimed", "composing", "sending", "sent", "recording", "recorded", "asked")


@dataclass(frozen=True, kw_only=True)
class Told:
    """An endpoint whose worker was killed after a post, and what it has to be told."""

    receiver: Receiver
    secret: str
    message_ids: set[str]


@pytest.fixture(scope="module")
def told(world: World) -> Iterator[Told]:
    """Made first and looked at last: meanwhile the lease of what the dead worker had claimed runs out."""
    with Receiver() as receiver:
        with world.scenario("R30", "the webhook worker killed after a post") as scenario:
            campaign = {"url": receiver.url, "events": ["MAIL_DELIVERED"], "campaign_id": scenario.campaign}
            endpoint = world.client.post("/v1/webhook-endpoints", campaign).json()
            pid = world.pid("webhooks")
            with world.armed("posted:kill:1"):
                scenario.send(MAILS, mailer_id=world.mailer())
                wait_until(lambda: world.pid("webhooks") != pid, "the webhook worker runs again")
            scenario.mended()
        found = world.sql(
            "select m.rfc_message_id from message m join submission s on s.id = m.submission_id where campaign_id = %s",
            scenario.campaign,
        )
        yield Told(receiver=receiver, secret=endpoint["secret"], message_ids={row[0] for row in found})
        world.client.call("DELETE", f"/v1/webhook-endpoints/{endpoint['id']}")


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("number", "point", "stored"), [("R1", "intake_storing", 0), ("R2", "intake_stored", 1)], ids=["R1", "R2"]
)
def test_an_api_that_dies_around_its_commit_stores_a_repeated_request_once(
    world: World, number: str, point: str, stored: int
) -> None:
    with world.scenario(number, f"the API killed {'after' if stored else 'before'} its commit") as scenario:
        body, key = scenario.body(MAILS, mailer_id=world.mailer()), str(uuid4())
        pid = world.pid("api")
        with world.armed(f"{point}:kill:1"), pytest.raises(requests.ConnectionError):
            world.client.send(body, Idempotency_Key=key)
        wait_until(lambda: world.pid("api") != pid and world.answers(), "the API runs again")
        scenario.mended()
        assert rows(world, scenario) == stored * MAILS
        answer = world.client.send(body, Idempotency_Key=key)
        assert answer.status_code == 202
        assert ("Idempotency-Replayed" in answer.headers) == bool(stored)
        scenario.promised = MAILS
    assert rows(world, scenario) == MAILS


def rows(world: World, scenario: Scenario) -> int:
    [(count,)] = world.sql(
        "select count(*) from message m join submission s on s.id = m.submission_id where s.campaign_id = %s",
        scenario.campaign,
    )
    return int(count)


def test_r3_a_worker_that_dies_at_any_point_loses_and_doubles_nothing(world: World) -> None:
    with world.scenario("R3", f"workers killed at each of {len(WORKER_POINTS)} points of the send path") as scenario:
        open_points = list(WORKER_POINTS)
        while open_points:
            scenario.send(MAILS, mailer_id=world.mailer())
            already = len(world.struck())
            with world.armed(",".join(f"{point}:kill:1" for point in open_points)):
                wait_until(lambda: len(world.struck()) > already, f"somebody dies at one of {open_points}", 30)  # noqa: B023
            struck = {fault["point"] for fault in world.struck()}
            open_points = [point for point in open_points if point not in struck]
        scenario.mended()
    assert world.lines[-1].fate.uncertain <= len(WORKER_POINTS) * IN_DOUBT


def test_r3_a_follow_up_cut_short_is_done_again(world: World) -> None:
    with world.scenario("R3", "the follow-up worker killed before its commit") as scenario:
        pid = world.pid("followup")
        with world.armed("following_up:kill:1"):
            scenario.send(MAILS, mailer_id=world.mailer())
            wait_until(lambda: world.pid("followup") != pid, "the follow-up worker runs again")
        scenario.mended()


def test_r5_a_beat_that_dies_while_it_recovers_leaves_that_to_the_next(world: World) -> None:
    with world.scenario("R5", "a worker killed, and the beat while it recovers what that held") as scenario:
        pid = world.pid("beat")
        with world.armed("claimed:kill:1"):
            already = len(world.struck())
            scenario.send(MAILS, mailer_id=world.mailer())
            wait_until(lambda: len(world.struck()) > already, "the worker is dead")
        with world.armed("recovering:kill:1"):
            wait_until(lambda: world.pid("beat") != pid, "the beat runs again")
        scenario.mended()


def test_r5_two_beats_at_once_ring_and_recover_as_one(world: World) -> None:
    with world.scenario("R5", "two beats at once, a worker killed, FLUSHALL") as scenario:
        argv = (sys.executable, "-m", "deploy.cli", "beat")
        before = connections_of_beats(world)
        second = subprocess.Popen(argv, env=world.environment, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: connections_of_beats(world) > before, "the second beat is at work")
            mailers = [world.mailer() for _ in range(3)]
            with world.armed("claimed:kill:0.3"):
                for mailer in mailers:
                    scenario.send(MAILS, mailer_id=mailer)
                    with world.redis() as server:
                        server.flushall()
            scenario.mended()
            scenario.settle()
        finally:
            second.terminate()
            assert second.wait(10) == 0


def connections_of_beats(world: World) -> int:
    [(count,)] = world.sql("select count(*) from pg_stat_activity where application_name = 'postroad beat'")
    return int(count)


def test_every_fault_point_was_reached(world: World) -> None:
    """Runs after those above. A point that nobody reaches any more would prove nothing."""
    assert set(POINTS) - {fault["point"] for fault in world.struck()} == set()


VICTIMS = ("send.normal", "followup", "send.high", "webhooks", "beat", "api", "redis")
KILLS = 100 if LONG else len(VICTIMS)
SUBMITTED_AT_ONCE = 1_000 if LONG else 300
BACKLOG = 2 * SUBMITTED_AT_ONCE
"""So many may wait when the next process is killed."""


def test_r4_processes_killed_at_random_while_mail_flows_lose_and_double_nothing(world: World) -> None:
    broken = f"{KILLS} kills of {', '.join(VICTIMS)} at random moments"
    dice = random.Random(20261121)
    order = [*VICTIMS, *dice.choices(VICTIMS, k=KILLS - len(VICTIMS))]
    with world.scenario("R4", broken) as scenario:
        mailers = [world.mailer() for _ in range(4)]
        for victim in order:
            # More than is sent meanwhile would measure in the end how long that takes, not how soon it goes on.
            wait_until(lambda: world.waiting() <= BACKLOG, "most of it is sent")
            submit(world, scenario, mailer_id=dice.choice(mailers), priority=int(victim == "send.high"))
            time.sleep(dice.uniform(0, 0.2))
            pid = world.running(victim)
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                os.kill(dice.choice([pid, *world.children(victim)]), signal.SIGKILL)
        for victim in VICTIMS:
            world.running(victim)
        scenario.mended()
    assert world.lines[-1].fate.uncertain <= KILLS * IN_DOUBT


def submit(world: World, scenario: Scenario, **changes: Any) -> None:
    """As a careful client: with a key, again and again until there is an answer."""
    body = scenario.body(SUBMITTED_AT_ONCE, **changes)
    key = str(uuid4())

    def accepted() -> bool:
        try:
            return world.client.send(body, Idempotency_Key=key).status_code == 202
        except requests.ConnectionError:
            return False

    wait_until(accepted, "it is accepted")
    scenario.promised += SUBMITTED_AT_ONCE


def test_r30_every_event_reaches_the_endpoint_whose_worker_died_under_one_id_each(told: Told) -> None:
    def arrived() -> set[str]:
        return {event["details"]["message_id"] for event in told.receiver.events(told.secret)}

    wait_until(lambda: arrived() >= told.message_ids, "every event has arrived", 60)
    ids = {headers["webhook-id"] for headers, _ in told.receiver.requests}
    assert len(ids) == len(told.message_ids)
