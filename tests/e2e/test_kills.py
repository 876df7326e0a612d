"""Every process of postroad is killed while mail flows. Nothing is lost and nothing is sent twice."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack, run_stack, wait_until
from tests.e2e.outside import Client

pytestmark = pytest.mark.stack

MAILS = 3_000
VICTIMS = ("send.normal", "followup", "send.high", "webhooks", "beat", "api", "redis")


def pid_of(stack: Stack, victim: str) -> int:
    pids: dict[str, Any] = stack.json["pids"]
    return int(pids.get(victim) or pids["workers"][victim])


def kill(stack: Stack, victim: str) -> None:
    """Kills a process as power loss would, and waits until the supervisor has started another."""
    pid = pid_of(stack, victim)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid_of(stack, victim) != pid, f"{victim} runs again", 20)


def all_pages(client: Client, path: str, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(path, limit=500, **query, **cursor)
        rows += page["data"]
        if not page["next_cursor"]:
            return rows
        cursor = {"cursor": page["next_cursor"]}


@pytest.fixture
def own_stack(scratch: Path) -> Iterator[Stack]:
    """A stack that nobody else uses: it is going to be hurt."""
    running = run_stack(scratch / "kills", "--no-demo")
    yield running
    running.stop()


def test_killing_each_process_while_mail_flows_loses_and_doubles_nothing(own_stack: Stack) -> None:
    client = Client(stack=own_stack)
    contact = own_stack.json["contact_id"]
    refs = []
    for victim in VICTIMS:
        recipients = [f"{victim}-{number}@example.com" for number in range(MAILS // len(VICTIMS))]
        body = client.mailer_body(*recipients, contact_id=contact, priority=int(victim == "send.high"))
        refs.append(client.send(body).json()["ref_id"])
        kill(own_stack, victim)
        wait_until(lambda: client.call("GET", "/v1/ops/queues").ok, "the API answers again")

    wait_until(lambda: is_settled(client), "everything is settled", 60)
    messages = [message for ref in refs for message in all_pages(client, "/v1/messages", ref_id=ref)]
    delivered = Counter(mail["message_id"] for mail in all_pages(client, "/inbox/messages"))
    logged = {row["id"] for ref in refs for row in all_pages(client, "/v1/email/logs", ref_id=ref)}
    timeline = Counter(row["message_id"] for row in all_pages(client, f"/v1/contacts/{contact}/activities"))

    sent = [message for message in messages if message["state"] == "sent"]
    held = [message for message in messages if message["state"] == "uncertain"]
    assert len(messages) == len(refs) * (MAILS // len(VICTIMS))
    assert len(sent) + len(held) == len(messages)
    assert [message["id"] for message in sent if delivered[message["message_id"]] != 1] == []
    assert [message["id"] for message in held if delivered[message["message_id"]] > 1] == []
    assert sum(delivered.values()) == len(delivered)
    assert {message["id"] for message in sent} == logged
    assert {message["id"]: 1 for message in sent} == dict(timeline)
    # A killed worker leaves no more in doubt than was on the wire: a group on each connection.
    assert len(held) <= 3 * 16 * 4


def is_settled(client: Client) -> bool:
    queues = client.get("/v1/ops/queues")["queues"]
    time.sleep(0.1)
    return all(queues[name][figure] == 0 for name in queues for figure in ("ready", "scheduled", "in_flight"))
