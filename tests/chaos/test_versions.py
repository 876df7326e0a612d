"""The next version is rolled out while mail flows, runs beside this one, and is taken back."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos import next_version
from tests.chaos.next_version import NextVersion
from tests.chaos.world import LONG, Scenario, World
from tests.conftest import wait_until
from tests.e2e.outside import Receiver

pytestmark = pytest.mark.stack

MAILS = 5_000 if LONG else 100


def test_r16_two_versions_side_by_side_over_a_migration_lose_and_double_nothing(world: World, scratch: Path) -> None:
    following = next_version.make(scratch / "next", world)
    with world.scenario("R16", "the next version migrates, runs beside this one, and is taken back") as scenario:
        scenario.send(MAILS, mailer_id=world.mailer())
        following.migrate()
        scenario.send(MAILS, mailer_id=world.mailer())
        with following.running():
            both_take_mail(world, scenario, following)
            the_next_one_sends_what_this_one_took(world, scenario)
            an_event_of_the_next_one_stops_nobody(world, scenario, following)
        scenario.send(MAILS, mailer_id=world.mailer())
        scenario.mended()
    assert world.lines[-1].fate.uncertain == 0


def through(following: NextVersion, world: World, scenario: Scenario) -> None:
    """Mail by the next version's API."""
    answer = following.call(world, "POST", "/v1/email/send", scenario.body(MAILS, mailer_id=world.mailer()))
    assert answer.status_code == 202, answer.text
    scenario.promised += MAILS


def both_take_mail(world: World, scenario: Scenario, following: NextVersion) -> None:
    for _ in range(2):
        scenario.send(MAILS, mailer_id=world.mailer())
        through(following, world, scenario)
    scenario.wait_for(lambda fate: fate.sent == scenario.promised, "all of it is sent")


def the_next_one_sends_what_this_one_took(world: World, scenario: Scenario) -> None:
    with ExitStack() as frozen:
        for pid in (*world.children("send.normal"), world.pid("send.normal")):
            frozen.enter_context(world.frozen(pid))
        scenario.send(MAILS, mailer_id=world.mailer())
        scenario.wait_for(lambda fate: fate.sent == scenario.promised, "the next version has sent it", 60)


def an_event_of_the_next_one_stops_nobody(world: World, scenario: Scenario, following: NextVersion) -> None:
    """Its type has no name here: the API shows the inner one, and webhooks of other events go on."""
    with Receiver() as receiver:
        wanted = {"url": receiver.url, "events": ["*"], "campaign_id": scenario.campaign}
        endpoint = world.client.post("/v1/webhook-endpoints", wanted).json()
        scenario.wait_for(lambda fate: fate.stuck == 0 and fate.unrecorded == 0, "all of it is in the log")
        before = world.client.get("/v1/events", after="latest")["next_cursor"]
        assert following.call(world, "POST", f"/v1/webhook-endpoints/{endpoint['id']}/test").status_code == 202
        listed = [event["type"] for event in world.client.get("/v1/events", after=before)["data"]]
        assert "of_the_next_version" in listed
        through(following, world, scenario)
        wait_until(lambda: delivered(receiver, endpoint["secret"]) == MAILS, "its webhooks have arrived", 60)
        world.client.call("DELETE", f"/v1/webhook-endpoints/{endpoint['id']}")


def delivered(receiver: Receiver, secret: str) -> int:
    return sum(event["event"] == "MAIL_DELIVERED" for event in receiver.events(secret))
