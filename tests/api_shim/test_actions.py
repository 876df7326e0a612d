"""Cancelling, retrying, rescheduling, and deciding about uncertain mail."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from api_shim.submission import Accepted
from models.access import AuditEntry
from models.base import ulid
from models.mailer import Mailer
from models.message import UNTIL_SOMEBODY_ACTS, Followup, State
from tests.api_shim.conftest import Tenant
from tests.api_shim.mail_rows import POLICY, TRY_LATER, Mailroom
from worker.outcome import judge

HELD = {"due_at": UNTIL_SOMEBODY_ACTS, "attempts": [{"outcome": "uncertain", "at": "", "detail": ""}]}


@pytest.fixture
def room(app_services: Services, tenant: Tenant) -> Mailroom:
    return Mailroom(app_services, tenant)


def submission(mail: Accepted, action: str = "") -> str:
    return f"/v1/submissions/{ulid(mail.submission_id)}{action}"


def message(mail: Accepted, action: str) -> str:
    return f"/v1/messages/{mail.message_id}/{action}"


def told(session: Session) -> set[Any]:
    session.rollback()
    return {id_ for ids in session.scalars(select(Followup.message_ids)) for id_ in ids}


def test_cancelling_a_submission_ends_what_is_not_sent(client: TestClient, room: Mailroom, session: Session) -> None:
    mail = room.submit(3)
    answer = client.post(submission(mail, "/cancel")).json()
    assert (answer["cancelled"], answer["never_sent"], answer["total"], answer["in_flight"]) == (3, 3, 3, 0)
    assert room.states(mail) == Counter(cancelled=3)
    assert {row.id for row in room.messages(mail)} <= told(session)
    assert client.post(submission(mail, "/cancel")).json()["cancelled"] == 0


def test_cancelling_under_way_counts_what_left_exactly(client: TestClient, room: Mailroom) -> None:
    mail = room.submit(300)
    worker = room.worker(troubled=0.3).start()
    time.sleep(0.1)
    answer = client.post(submission(mail, "/cancel")).json()
    sent = len(worker.sent)
    time.sleep(0.1)
    worker.stop()
    assert len(worker.sent) == sent == answer["sent"]
    assert room.states(mail) == Counter(sent=sent, cancelled=300 - sent)


def test_retrying_a_submission_moves_only_what_failed(client: TestClient, room: Mailroom) -> None:
    mail, fine = room.submit(2), room.submit(1)
    room.put(mail, State.FAILED)
    room.put(fine, State.SENT)
    assert client.post(submission(mail, "/retry-failed")).json()["retried"] == 2
    assert client.post(submission(fine, "/retry-failed")).json()["retried"] == 0
    assert (room.states(mail), room.states(fine)) == (Counter(queued=2), Counter(sent=1))


def test_failures_before_a_retry_no_longer_count(client: TestClient, room: Mailroom) -> None:
    mail = room.submit()
    used_up = [{"outcome": "transient", "at": "", "detail": ""}] * 50
    room.put(mail, State.FAILED, attempts=used_up, tries=50)
    client.post(message(mail, "retry"))
    _, held = room.begin()
    assert len(held.attempts) == 51
    assert judge(held, TRY_LATER, POLICY).state is State.QUEUED


def test_rescheduling_moves_what_is_queued_in_its_order(client: TestClient, room: Mailroom) -> None:
    mail = room.submit(3)
    at = datetime.now(UTC) + timedelta(days=3)
    answer = client.patch(submission(mail), json={"send_at": at.isoformat()})
    assert (answer.status_code, answer.json()["rescheduled"]) == (200, 3)
    due = [row.due_at for row in room.messages(mail) if row.due_at]
    assert due == sorted(set(due))
    assert at <= due[0] <= due[2] < at + timedelta(seconds=1)
    client.patch(submission(mail), json={"send_at": None})
    due = [row.due_at for row in room.messages(mail) if row.due_at]
    assert due[-1] <= datetime.now(UTC)


def test_what_a_paused_campaign_holds_takes_its_new_time_when_it_is_resumed(client: TestClient, room: Mailroom) -> None:
    mail = room.submit(campaign_id="spring")
    client.post("/v1/campaigns/spring/pause")
    at = datetime.now(UTC) + timedelta(days=3)
    assert client.patch(submission(mail), json={"send_at": at.isoformat()}).status_code == 200
    assert room.message(mail).due_at == UNTIL_SOMEBODY_ACTS
    client.post("/v1/campaigns/spring/resume")
    due_at = room.message(mail).due_at
    assert due_at is not None
    assert at <= due_at < at + timedelta(seconds=1)


@pytest.mark.parametrize("state", [State.CLAIMED, State.SENDING, State.SENT])
def test_what_a_worker_has_taken_cannot_be_rescheduled(client: TestClient, room: Mailroom, state: State) -> None:
    mail = room.submit()
    room.put(mail, state)
    answer = client.patch(submission(mail), json={"send_at": "2099-01-01T00:00:00Z"})
    assert answer.status_code == 400
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    answer = client.patch(submission(mail), json={"send_at": later})
    assert (answer.status_code, answer.json()["error"]) == (409, "CONFLICT")
    assert room.states(mail) == Counter({state.value: 1})


def test_a_time_after_the_expiry_or_without_a_zone_is_a_400(client: TestClient, room: Mailroom) -> None:
    mail = room.submit(expires_at=datetime.now(UTC) + timedelta(days=1))
    for send_at in ((datetime.now(UTC) + timedelta(days=2)).isoformat(), "2026-12-01T09:00:00", "soon"):
        assert client.patch(submission(mail), json={"send_at": send_at}).status_code == 400
    assert client.patch(submission(mail), json={}).status_code == 400


@pytest.mark.parametrize("state", [State.QUEUED, State.CLAIMED])
def test_a_message_is_cancelled_until_it_is_on_the_wire(
    client: TestClient, room: Mailroom, session: Session, state: State
) -> None:
    mail = room.submit()
    room.put(mail, state)
    answer = client.post(message(mail, "cancel")).json()
    assert (answer["state"], answer["due_at"], answer["reason"]) == ("cancelled", None, "cancelled through the API")
    assert mail.message_id in told(session)
    entry = session.scalars(select(AuditEntry).where(AuditEntry.target == str(mail.message_id))).one()
    assert (entry.action, entry.detail["was"]) == ("message.cancelled", state.value)


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("cancel", [State.SENDING, State.UNCERTAIN, State.SENT, State.FAILED, State.CANCELLED]),
        ("retry", [State.QUEUED, State.SENDING, State.SENT, State.CANCELLED, State.EXPIRED]),
        ("mark-sent", [State.QUEUED, State.SENDING, State.SENT, State.FAILED]),
    ],
)
def test_what_a_state_does_not_allow_is_a_409_that_names_it(
    client: TestClient, room: Mailroom, action: str, states: list[State]
) -> None:
    for state in states:
        mail = room.submit()
        room.put(mail, state)
        answer = client.post(message(mail, action))
        assert (answer.status_code, answer.json()["details"]["state"]) == (409, state.value)
        assert room.states(mail) == Counter({state.value: 1})


@pytest.mark.parametrize("state", [State.FAILED, State.SUPPRESSED])
def test_a_message_is_retried_for_those_who_did_not_get_it(client: TestClient, room: Mailroom, state: State) -> None:
    mail = room.submit(2, individual=False)
    known = {"p0@example.com": {"outcome": "accepted"}, "p1@example.com": {"outcome": "permanent"}}
    room.put(mail, state, outcomes=known)
    assert client.post(message(mail, "retry")).json()["state"] == "queued"
    _, held = room.begin()
    assert held.pending == ("p1@example.com",)


def test_an_uncertain_message_is_sent_again_only_by_force(client: TestClient, room: Mailroom) -> None:
    mail = room.submit()
    room.put(mail, State.UNCERTAIN, **HELD)
    refused = client.post(message(mail, "retry"))
    assert refused.status_code == 409
    assert "twice" in refused.text
    assert client.post(message(mail, "retry"), json={"force": True}).json()["state"] == "queued"
    assert room.message(mail).attempts[-1]["outcome"] == "retried"


def test_an_uncertain_message_is_marked_sent_and_logged(client: TestClient, room: Mailroom, session: Session) -> None:
    mail = room.submit()
    room.put(mail, State.UNCERTAIN, **HELD)
    answer = client.post(message(mail, "mark-sent"), json={"provider_message_id": "p-1"}).json()
    assert (answer["state"], answer["provider_message_id"], answer["held"]) == ("sent", "p-1", False)
    assert answer["attempts"][-1]["outcome"] == "marked_sent"
    assert mail.message_id in told(session)


def test_while_the_provider_is_asked_nobody_else_decides(client: TestClient, room: Mailroom) -> None:
    mail = room.submit()
    room.put(mail, State.UNCERTAIN, due_at=datetime.now(UTC) + timedelta(minutes=1))
    for action, body in (("mark-sent", {}), ("retry", {"force": True})):
        answer = client.post(message(mail, action), json=body)
        assert answer.status_code == 409
        assert "still being asked" in answer.text


def test_nothing_is_retried_into_a_cancelled_campaign(client: TestClient, room: Mailroom) -> None:
    mail = room.submit(campaign_id="spring")
    room.put(mail, State.FAILED)
    client.post("/v1/campaigns/spring/cancel")
    assert client.post(message(mail, "retry")).status_code == 409
    assert client.post(submission(mail, "/retry-failed")).status_code == 409
    assert room.states(mail) == Counter(failed=1)


def test_another_workspaces_mail_does_not_exist(other: TestClient, room: Mailroom) -> None:
    mail = room.submit()
    answers = [
        other.post(submission(mail, "/cancel")),
        other.post(submission(mail, "/retry-failed")),
        other.patch(submission(mail), json={"send_at": None}),
        *(other.post(message(mail, action)) for action in ("cancel", "retry", "mark-sent")),
    ]
    assert [answer.status_code for answer in answers] == [404] * 6
    assert room.states(mail) == Counter(queued=1)


def test_what_failed_is_not_queued_for_ever_when_its_mailer_was_deleted(
    client: TestClient, room: Mailroom, session: Session
) -> None:
    mail = room.submit(1)
    room.put(mail, State.FAILED)
    mailer_id = room.messages(mail)[0].mailer_id
    session.execute(update(Mailer).where(Mailer.id == mailer_id).values(deleted_at=datetime.now(UTC)))
    session.commit()
    refused = client.post(message(mail, "retry"))
    assert refused.status_code == 409
    assert "mailer was deleted" in refused.text
    assert client.post(submission(mail, "/retry-failed")).json()["retried"] == 0
    assert room.states(mail) == Counter(failed=1)
