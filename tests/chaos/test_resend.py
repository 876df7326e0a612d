"""A mailer that would rather send twice than not at all: what it doubles is exactly what was in doubt."""

from typing import Any

import pytest

from tests.chaos.world import LONG, Scenario, World
from tests.conftest import wait_until

pytestmark = pytest.mark.stack

MAILS = 500 if LONG else 100
KILLS = 20 if LONG else 2
KILLS_AT_ONCE = 2
"""One more, and a mail may have been in a dead worker's hand three times: then it is isolated."""


def test_r3_a_mailer_that_resends_keeps_no_doubt_and_doubles_exactly_what_was_in_doubt(world: World) -> None:
    broken = f"{KILLS} workers killed after the provider took it; on_uncertain is resend"
    with world.scenario("R3", broken, may_double=True) as scenario:
        for number in range(1, KILLS + 1):
            scenario.send(MAILS, mailer_id=world.mailer(on_uncertain="resend"))
            kill_after_sending(world)
            if number % KILLS_AT_ONCE == 0 and number < KILLS:
                scenario.wait_for(lambda fate: fate.sent == fate.promised, "all of it is sent", 60)
        scenario.mended()
    fate = world.lines[-1].fate
    assert (fate.sent, fate.uncertain) == (KILLS * MAILS, 0)
    doubts = {mail: outcomes.count("uncertain") for mail, outcomes in attempts(scenario).items()}
    assert {mail: world.smtp.ledger[mail] - 1 for mail in doubts} == doubts
    assert fate.doubled == sum(doubts.values()) > 0


def kill_after_sending(world: World) -> None:
    already = len(world.struck())
    with world.armed("sent:kill:1"):
        wait_until(lambda: len(world.struck()) > already, "a worker dies")


def attempts(scenario: Scenario) -> dict[str, list[Any]]:
    """What is on record of each mail by its Message-ID: the outcomes of its attempts, oldest first."""
    rows = scenario.world.sql(
        """
        select m.rfc_message_id, jsonb_path_query_array(m.attempts, '$[*].outcome')
        from message m join submission s on s.id = m.submission_id where s.campaign_id = %s
        """,
        scenario.campaign,
    )
    return {str(row[0]): list(row[1]) for row in rows}
