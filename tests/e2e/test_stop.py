"""Stop means stop: a campaign is paused and resumed at random moments while real workers send it."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack, run_stack
from tests.e2e.outside import Client

pytestmark = pytest.mark.stack

RECIPIENTS = 20_000
ROUNDS = 100


def inbox_total(client: Client) -> int:
    return int(client.get("/inbox/messages", limit=1)["total"])


@pytest.fixture
def own_stack(scratch: Path) -> Iterator[Stack]:
    """A stack of its own: every mail in its inbox is one of this campaign."""
    running = run_stack(scratch / "stop", "--no-demo")
    yield running
    running.stop()


def test_a_hundred_random_stops_and_resumes_over_twenty_thousand_recipients_send_each_once(own_stack: Stack) -> None:
    client = Client(stack=own_stack)
    dice = random.Random(20261121)
    before = inbox_total(client)
    recipients = [f"stop{number}@example.com" for number in range(RECIPIENTS)]
    ref = client.send(client.mailer_body(*recipients, campaign_id="stop")).json()["ref_id"]

    for _ in range(ROUNDS):
        time.sleep(dice.uniform(0, 0.05))
        ledger = stopped(client)
        sent = inbox_total(client) - before
        # The answer counts exactly what has left, and nothing leaves after it.
        assert (ledger["in_flight"], ledger["sent"], ledger["total"]) == (0, sent, RECIPIENTS)
        assert ledger["never_sent"] == RECIPIENTS - sent
        assert client.post("/v1/campaigns/stop/resume", {}).status_code == 200

    submission = client.finished(ref, seconds=300)
    assert submission["counts"]["sent"] == RECIPIENTS
    assert inbox_total(client) - before == RECIPIENTS
    delivered = Counter(mail["message_id"] for mail in newest(client, RECIPIENTS))
    assert len(delivered) == RECIPIENTS


def stopped(client: Client) -> dict[str, Any]:
    answer = client.post("/v1/campaigns/stop/pause", {})
    assert answer.status_code == 200
    ledger: dict[str, Any] = answer.json()
    return ledger


def newest(client: Client, count: int) -> list[dict[str, Any]]:
    mails: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while len(mails) < count:
        page = client.get("/inbox/messages", limit=500, **cursor)
        mails += page["data"]
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    return mails[:count]
