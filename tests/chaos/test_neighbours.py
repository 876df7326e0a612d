"""One mailer in trouble, or with much to do, is nobody else's trouble."""

import time

import pytest

from providers.emulators.smtp import SmtpEmulator
from tests.chaos.world import LONG, World
from tests.conftest import wait_until

pytestmark = pytest.mark.stack


def test_r18_a_slow_provider_slows_nobody_else(world: World) -> None:
    slow_mails, mails = (2_000, 2_000) if LONG else (150, 300)
    with (
        SmtpEmulator(keep_data=False, latency=0.5) as slow,
        world.scenario("R18", "one of three providers takes 0.5 s for each answer") as scenario,
    ):
        scenario.others.append(slow)
        scenario.send(slow_mails, mailer_id=world.mailer(slow.port))
        time.sleep(0.3)
        quick, started = len(world.smtp.ledger) + mails, time.monotonic()
        for _ in range(2):
            scenario.send(mails // 2, mailer_id=world.mailer())
        wait_until(lambda: len(world.smtp.ledger) >= quick, "the others have theirs")
        took, already = time.monotonic() - started, len(slow.ledger)
        assert already < slow_mails, "the slow one was not slow enough to prove anything"
        assert took < (5 if LONG else 20)
        slow.latency = 0.0
        scenario.mended()


def test_r33_an_urgent_mail_overtakes_a_campaign(world: World) -> None:
    campaign = 50_000 if LONG else 3_000
    with world.scenario("R33", f"one urgent mail behind {campaign:,} queued ones") as scenario:
        mailer = world.mailer()
        scenario.send(campaign, mailer_id=mailer)
        scenario.send(1, mailer_id=mailer, priority="high")
        scenario.wait_for(lambda fate: fate.sent == campaign + 1, "all of it is sent", 120)
        scenario.mended()
    [(seconds, overtaken)] = world.sql(
        """select extract(epoch from max(urgent.finished_at - urgent.created_at))::float,
                  count(*) filter (where m.finished_at > urgent.finished_at)
           from submission s join message m on m.submission_id = s.id
           join (select m.* from message m join submission s on s.id = m.submission_id
                 where s.campaign_id = %s and m.priority = 1) urgent on m.priority = 0
           where s.campaign_id = %s""",
        scenario.campaign,
        scenario.campaign,
    )
    assert overtaken > 0
    assert seconds < (4 if LONG else 20)
