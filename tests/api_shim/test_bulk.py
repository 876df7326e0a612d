"""Messages by whatever is known of them, and acting on all that a filter finds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from api_shim.services import Services
from models.access import AuditEntry
from models.base import ulid, uuid7
from models.message import UNTIL_SOMEBODY_ACTS, Campaign, Followup, State, Submission
from tests.api_shim.conftest import Tenant
from tests.api_shim.mail_rows import Mailroom


@pytest.fixture
def room(app_services: Services, tenant: Tenant) -> Mailroom:
    return Mailroom(app_services, tenant)


def _listed(client: TestClient, **query: Any) -> set[str]:
    answer = client.get("/v1/messages", params=query)
    assert answer.status_code == 200, answer.text
    return {row["recipients"][0] for row in answer.json()["data"]}


def _ordered(client: TestClient, action: str, **order: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/messages/{action}", json=order)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_messages_are_found_by_what_is_known_of_them(
    room: Mailroom, client: TestClient, app_services: Services
) -> None:
    spring, other = room.submit(2, campaign_id="spring"), room.submit(1)
    contact_id = uuid7()
    with app_services.sessions() as session:
        key = Submission.id == other.submission_id
        session.execute(update(Submission).where(key).values(request_id="req-7", contact_id=contact_id))
        session.commit()
    both, one = {"p0@example.com", "p1@example.com"}, {"p0@example.com"}
    assert _listed(client, campaign_id="spring") == both
    assert _listed(client, request_id="req-7") == _listed(client, contact_id=str(contact_id)) == one
    assert _listed(client, recipient="P1@example.com") == {"p1@example.com"}
    assert _listed(client, mailer_id=str(room.mailer_id), queue="send.normal") == both
    assert _listed(client, queue="send.high") == _listed(client, campaign_id="autumn") == set()
    assert _listed(client, ref_id=ulid(spring.submission_id), state="queued") == both


def test_messages_are_found_by_when_they_came(room: Mailroom, client: TestClient) -> None:
    room.submit(1)
    now = datetime.now(UTC)
    assert _listed(client, since=(now - timedelta(hours=1)).isoformat()) == {"p0@example.com"}
    assert _listed(client, since=(now + timedelta(seconds=5)).isoformat()) == set()
    assert _listed(client, until=(now - timedelta(hours=1)).isoformat()) == set()
    assert client.get("/v1/messages", params={"since": "yesterday"}).status_code == 400


def test_a_failed_message_is_found_before_it_is_logged(room: Mailroom, client: TestClient) -> None:
    accepted = room.submit(1)
    room.put(accepted, State.FAILED)
    assert _listed(client, state="failed") == set()  # neither in the log nor on the way there
    with room.services.sessions() as session:
        session.add(Followup(message_ids=[room.message(accepted).id]))
        session.commit()
    assert _listed(client, state="failed") == {"p0@example.com"}


def test_what_a_filter_finds_is_counted_and_then_cancelled(room: Mailroom, client: TestClient, tenant: Tenant) -> None:
    spring, other = room.submit(3, campaign_id="spring"), room.submit(1)
    asked = {"campaign_id": "spring"}
    assert _ordered(client, "cancel", **asked, dry_run=True) == {"matched": 3, "updated": 0, "dry_run": True}
    assert room.states(spring) == {"queued": 3}
    assert _ordered(client, "cancel", **asked) == {"matched": 3, "updated": 3, "dry_run": False}
    assert (room.states(spring), room.states(other)) == ({"cancelled": 3}, {"queued": 1})
    with room.services.sessions() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.workspace_id == tenant.workspace_id)).one()
    assert (entry.action, entry.detail) == ("messages.cancelled", {"filter": asked, "matched": 3})


def test_the_audit_trail_says_that_somebodys_mail_was_cancelled_and_not_whose(
    room: Mailroom, client: TestClient, tenant: Tenant
) -> None:
    room.submit(1)
    assert _ordered(client, "cancel", recipient="p0@example.com")["updated"] == 1
    with room.services.sessions() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.workspace_id == tenant.workspace_id)).one()
    assert entry.detail == {"filter": {"recipient": "an address"}, "matched": 1}


def test_what_failed_is_retried_under_the_state_of_its_campaign(room: Mailroom, client: TestClient) -> None:
    """Of a paused campaign it is held, of a cancelled one left alone."""
    mails = {name: room.submit(1, campaign_id=name) for name in ("running", "paused", "cancelled")}
    for accepted in mails.values():
        room.put(accepted, State.FAILED, attempts=[{"at": "2026-01-01T00:00:00+00:00", "outcome": "permanent"}])
    with room.services.sessions() as session:
        for name in ("paused", "cancelled"):
            session.execute(update(Campaign).where(Campaign.id == name).values(status=name))
        session.commit()
    done = _ordered(client, "retry", mailer_id=str(room.mailer_id))
    assert (done["matched"], done["updated"]) == (3, 2)
    assert room.message(mails["cancelled"]).state == State.FAILED
    assert (room.message(mails["paused"]).due_at or datetime.now(UTC)) >= UNTIL_SOMEBODY_ACTS
    running = room.message(mails["running"])
    assert (running.state, running.attempts[-1]["outcome"]) == (State.QUEUED, "retried")
    assert running.due_at is not None
    assert running.due_at <= datetime.now(UTC)


def test_many_are_moved_in_their_order(room: Mailroom, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api_shim.bulk.CHUNK", 4)
    accepted = room.submit(10)
    room.put(accepted, State.FAILED)
    assert _ordered(client, "retry", ref_id=ulid(accepted.submission_id))["updated"] == 10
    due = [message.due_at for message in sorted(room.messages(accepted), key=lambda message: message.id)]
    assert due == sorted(due, key=lambda at: at or UNTIL_SOMEBODY_ACTS)
    assert len(set(due)) == 10


@pytest.mark.parametrize(
    ("order", "field"),
    [({}, "body"), ({"dry_run": True}, "body"), ({"status": "failed"}, "status"), ({"ref_id": "x"}, "ref_id")],
)  # fmt: skip
def test_an_order_that_names_nothing_is_refused(client: TestClient, order: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/messages/retry", json=order)
    assert answer.status_code == 400
    assert [fault["field"] for fault in answer.json()["details"]["fields"]] == [field]


def test_another_workspaces_messages_are_neither_counted_nor_moved(room: Mailroom, other: TestClient) -> None:
    accepted = room.submit(2, campaign_id="spring")
    assert _ordered(other, "cancel", campaign_id="spring")["matched"] == 0
    assert room.states(accepted) == {"queued": 2}
