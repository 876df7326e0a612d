"""What the demo counts: webhooks whose signature fits, and mails that were lost or came twice."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import requests
from standardwebhooks import Webhook

from deploy.demo import Tally
from deploy.receiver import Receiver
from deploy.services import free_port

SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def receiver(port: int) -> Iterator[Receiver]:
    running = Receiver(port, SECRET)
    yield running
    running.close()


def _post(port: int, content: object, secret: str = SECRET) -> int:
    body, now = json.dumps(content), datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, body),
    }
    return requests.post(f"http://127.0.0.1:{port}/", data=body, headers=headers, timeout=5).status_code


def test_signed_events_are_counted_alone_and_in_arrays(port: int, receiver: Receiver) -> None:
    event = {"event": "MAIL_DELIVERED", "details": {"ref_id": "A"}}
    assert _post(port, event) == 204
    assert _post(port, [event, event, {"event": "MAIL_FAILED", "details": {"ref_id": "B"}}]) == 204
    assert (receiver.count({"A"}), receiver.count({"A", "B"}), receiver.count({"C"})) == (3, 4, 0)


def test_an_event_signed_with_another_secret_is_refused_and_not_counted(port: int, receiver: Receiver) -> None:
    assert _post(port, {"event": "MAIL_DELIVERED", "details": {"ref_id": "A"}}, "whsec_" + "b3RoZXIh" * 4) == 401
    assert (receiver.count({"A"}), receiver.refused) == (0, 1)


def _tally(states: dict[str, str], **copies: int) -> Tally:
    messages = [{"id": name, "message_id": name, "state": state} for name, state in states.items()]
    return Tally(messages=messages, copies=Counter(copies), webhooks=0, activities=0, seconds=1.0)


@pytest.mark.parametrize(
    ("states", "copies", "lost", "doubled"),
    [
        ({"a": "sent", "b": "failed"}, {"a": 1}, 0, 0),
        ({"a": "sent", "b": "sent"}, {"a": 1}, 1, 0),  # b was said to be sent and is not there
        ({"a": "queued"}, {}, 1, 0),  # not finished in time
        ({"a": "sent"}, {"a": 2}, 0, 1),
        ({"a": "failed"}, {"a": 1}, 1, 0),  # said to be refused, yet it is there
    ],
)
def test_lost_and_doubled_mails_are_told_from_the_inbox(
    states: dict[str, str], copies: dict[str, int], lost: int, doubled: int
) -> None:
    tally = _tally(states, **copies)
    assert (tally.lost, tally.doubled) == (lost, doubled)
