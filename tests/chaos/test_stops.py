"""Workers are frozen, asked to stop, and replaced while mail flows, as every deployment does it."""

import signal

import psutil
import pytest

from tests.chaos.world import LONG, World
from tests.conftest import wait_until

pytestmark = pytest.mark.stack

MAILS = 20_000 if LONG else 400
RESTARTS = 10 if LONG else 1


@pytest.mark.parametrize(
    ("point", "broken"),
    [("claimed", "a worker frozen until others took its mail over"), ("sending", "a worker frozen amid a call")],
)
def test_r15_a_worker_that_wakes_up_after_its_lease_sends_nothing_again(world: World, point: str, broken: str) -> None:
    with world.scenario("R15", broken) as scenario:
        already = len(world.struck())
        with world.armed(f"{point}:stop:1"):
            scenario.send(50, mailer_id=world.mailer())
            wait_until(lambda: len(world.struck()) > already, "a worker is frozen")
        [fault] = world.struck_since(already)
        try:
            # What makes a lease end in production is its time; the frozen worker's lock still stands.
            world.sql("update lease set expires_at = clock_timestamp() where worker like %s", f"%:{fault['pid']}")
            if point == "claimed":
                scenario.wait_for(lambda fate: fate.sent == 50, "others have sent it")
            else:
                scenario.wait_for(lambda fate: fate.uncertain > 0, "its slice is in doubt")
        finally:
            psutil.Process(fault["pid"]).send_signal(signal.SIGCONT)
        scenario.mended()
        if point == "sending":  # what it knows settles the doubt
            scenario.wait_for(lambda fate: fate.sent == 50, "the late answers are taken")
    assert world.lines[-1].fate.uncertain == 0


def test_r16_restarts_of_every_worker_while_mail_flows_leave_nothing_in_doubt(world: World) -> None:
    broken = f"{RESTARTS} rolling restart(s) of workers, beat and API (SIGTERM)"
    with world.scenario("R16", broken) as scenario:
        for _ in range(RESTARTS):
            for name in ("send.normal", "send.high", "followup", "webhooks", "beat", "api"):
                scenario.send(MAILS // RESTARTS // 6, mailer_id=world.mailer(), priority=int(name == "send.high"))
                world.kill(name, signal.SIGTERM)
                wait_until(world.answers, "the API is ready")
        scenario.mended()
    assert world.lines[-1].fate.uncertain == 0


def test_r16_a_table_that_gains_a_column_while_mail_flows_stops_nothing(world: World) -> None:
    """What a migration of the next version does, with the processes of this one still at work."""
    with world.scenario("R16", "columns added and dropped under the running version") as scenario:
        for change in ("add column of_the_next_version text default 'unknown'", "drop column of_the_next_version"):
            for table in ("message", "submission", "mailer", "followup", "lease", "webhook_delivery"):
                scenario.send(MAILS // 12, mailer_id=world.mailer())
                world.alter(table, change)
        scenario.mended()
