"""The specification as a story: HTTP in, a real worker, a real SMTP dialogue, the log, the timeline, a signed webhook."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from api_shim.send import WAIT_SECONDS
from tests.conftest import Stack, wait_until
from tests.e2e.outside import Client, Receiver

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Client:
    return Client(stack=stack)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def secret(client: Client, receiver: Receiver) -> str:
    """Registers the receiver; the secret of its signatures."""
    answer = client.post("/v1/webhook-endpoints", {"url": receiver.url, "events": ["*"]})
    assert answer.status_code == 201
    registered: dict[str, Any] = answer.json()
    assert registered["secret"].startswith("whsec_")
    return str(registered["secret"])


def test_a26_a27_d3_d4_one_message_from_http_to_the_webhook(client: Client, receiver: Receiver, secret: str) -> None:
    # Given a contact of the workspace
    contact = client.stack.json["contact_id"]
    recipient = f"grace-{uuid4().hex}@example.com"

    # When the CRM sends it a mail
    answer = client.send(
        {
            "to_email": recipient,
            "to_name": "Grace",
            "subject": "Your report",
            "html_body": "<h1>Hello!</h1>",
            "contact_id": contact,
        }
    )

    # Then the answer comes when the provider took it and the log was written
    assert answer.status_code == 200
    sent = answer.json()
    assert set(sent) == {"id", "ref_id", "status", "message_id", "provider_message_id", "thread_id", "provider"}
    assert (sent["status"], sent["provider"]) == ("sent", "smtp")
    assert UUID(sent["id"])
    assert len(sent["ref_id"]) == 26
    assert "X-Request-ID" in answer.headers

    # And the mail lies in the recipient's mailbox, once, under that Message-ID
    [mail] = client.inbox(recipient)
    assert (mail["subject"], mail["message_id"]) == ("Your report", sent["message_id"])

    # And it is on the contact's timeline and in the log
    activities = client.get(f"/v1/contacts/{contact}/activities")["data"]
    assert [activity["message_id"] for activity in activities if activity["message_id"] == sent["id"]] == [sent["id"]]
    [log] = client.get("/v1/email/logs", ref_id=sent["ref_id"])["data"]
    assert (log["status"], log["recipient_email"], log["contact_id"]) == ("sent", recipient, contact)
    assert client.get(f"/v1/email/threads/{sent['thread_id']}")["subject"] == "Your report"

    # And a signed webhook says so, in the words of the contract
    event = receiver.wait_for(
        secret, lambda event: event["details"].get("ref_id") == sent["ref_id"], "the webhook comes"
    )
    assert event["event"] == "MAIL_DELIVERED"
    assert event["details"]["email"] == [recipient]
    assert event["details"]["message_id"] == sent["message_id"]
    assert event["details"]["evidence"] == "accepted"


def test_each_shape_is_answered_in_its_own_words(client: Client) -> None:
    crm = client.send({"to_email": "a@example.com", "subject": "A", "html_body": "<p>a</p>"})
    mailbox = client.send({"to": "Jane <b@example.com>", "subject": "B", "body_text": "b", "cc": ["c@example.com"]})
    mailer = client.send(client.mailer_body("d@example.com"))
    assert (crm.status_code, mailbox.status_code, mailer.status_code) == (200, 200, 202)
    assert crm.json()["status"] == mailbox.json()["status"] == "sent"
    assert set(mailer.json()) == {"success", "ref_id"}
    client.finished(mailer.json()["ref_id"])
    assert [len(client.inbox(f"{name}@example.com")) for name in "abcd"] == [1, 1, 1, 1]


def test_d1_high_priority_mail_is_sent_by_its_own_queue(client: Client) -> None:
    ref = client.send(client.mailer_body("urgent@example.com", priority=1)).json()["ref_id"]
    assert client.finished(ref)["counts"]["sent"] == 1
    queues = client.get("/v1/ops/queues")["queues"]
    assert set(queues) == {"send.high", "send.normal", "followup", "webhooks"}
    assert all(figures["workers"] >= 1 for figures in queues.values())


def test_c13_each_of_many_recipients_gets_a_personal_mail(client: Client) -> None:
    people = {f"person{number}@example.com": {"name": f"Person {number}"} for number in range(200)}
    body = client.mailer_body(
        *people,
        subject="For {{name}}",
        content=[{"type": "text/plain", "value": "Dear {{name}}"}],
        substitutions=people,
        campaign_id="personal",
    )
    submission = client.finished(client.send(body).json()["ref_id"])
    assert (submission["total"], submission["counts"]["sent"], submission["campaign_id"]) == (200, 200, "personal")
    for number in (0, 99, 199):
        [mail] = client.inbox(f"person{number}@example.com")
        assert mail["subject"] == f"For Person {number}"
        assert client.get(f"/inbox/messages/{mail['id']}")["text"].strip() == f"Dear Person {number}"


def test_a31_a_recipient_that_is_refused_is_answered_422_and_reported(
    client: Client, receiver: Receiver, secret: str
) -> None:
    answer = client.send({"to_email": "bounce1@example.com", "subject": "A", "html_body": "<p>a</p>"})
    assert answer.status_code == 422
    assert answer.json()["error"] == "EMAIL_DELIVERY_FAILED"
    receiver.wait_for(
        secret,
        lambda event: event["event"] == "MAIL_FAILED" and event["details"]["email"] == ["bounce1@example.com"],
        "the failure is reported",
    )


def test_respond_async_never_waits_and_says_so(client: Client) -> None:
    body = {"to_email": "later@example.org", "subject": "A", "html_body": "<p>a</p>"}
    answer = client.send(body, Prefer="respond-async")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["Location"] == f"/v1/submissions/{answer.json()['ref_id']}"


def test_c3_d5_a_hundred_thousand_recipients_are_accepted_in_one_request(client: Client) -> None:
    recipients = [f"n{number}@example.com" for number in range(100_000)]
    answer = client.send(client.mailer_body(*recipients, campaign_id="huge", send_at=_tomorrow()))
    assert answer.status_code == 202
    submission = client.get(f"/v1/submissions/{answer.json()['ref_id']}")
    assert (submission["total"], submission["counts"]["queued"]) == (100_000, 100_000)


def test_d6_the_queues_add_up_to_the_rows(client: Client) -> None:
    def settled() -> bool:
        queues = client.get("/v1/ops/queues")["queues"]
        return all(queue["ready"] == queue["in_flight"] == 0 for queue in queues.values())

    wait_until(settled, "everything that is due is done")
    scheduled = client.get("/v1/ops/queues")["queues"]["send.normal"]["scheduled"]
    assert scheduled >= 100_000


def _tomorrow() -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


def test_a_waiting_request_is_answered_as_soon_as_the_outcome_is_known(client: Client) -> None:
    crm = {"to_email": "quick@example.com", "subject": "A", "html_body": "<p>a</p>"}
    mailbox = {"to": "quick@example.com", "subject": "A", "body_text": "a"}
    for body in (crm, mailbox):
        client.send(body)  # the first one opens connections
        answer = client.send(body)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < WAIT_SECONDS / 2
