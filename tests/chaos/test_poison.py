"""A mail that is deadly to whoever takes it in hand."""

import pytest

from tests.chaos.world import LONG, World

pytestmark = pytest.mark.stack

NEIGHBOURS = 60


SHORT = [("crash", "a mail that makes its worker segfault")]
MORE = [("kill", "a mail that eats all memory (SIGKILL)")]


@pytest.mark.parametrize(("action", "broken"), SHORT + MORE if LONG else SHORT)
def test_r26_a_deadly_mail_is_isolated_after_three_tries_and_its_neighbours_go_out(
    world: World, action: str, broken: str
) -> None:
    with world.scenario("R26", broken, failed=1) as scenario:
        body = scenario.body(NEIGHBOURS, mailer_id=world.mailer())
        mole = f"mole-{action}@example.com"
        body["to"].insert(NEIGHBOURS // 2, {"email": mole})
        already = len(world.struck())
        with world.armed(f"composing:{action}:1:{mole}"):
            assert world.client.send(body).status_code == 202
            scenario.promised += NEIGHBOURS + 1
            scenario.wait_for(lambda fate: fate.failed == 1, "the deadly mail is isolated", 300)
        scenario.mended()
        assert len(world.struck()) - already == 3
        [(reason,)] = world.sql("select reason from message where recipients = array[%s]", mole)
        assert reason == "isolated: its worker died 3 times with it in hand"
