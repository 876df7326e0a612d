"""Campaigns: counts, and that pause, resume, cancel and retry leave every message sent once or not at all."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.errors import ApiError
from api_shim.services import Services
from models.event import EventType
from models.message import UNTIL_SOMEBODY_ACTS, Followup, State
from tests.api_shim.conftest import Tenant
from tests.api_shim.mail_rows import POLICY, TRY_LATER, Mailroom
from worker.events import NewEvent, append_events
from worker.outcome import judge
from worker.outcome_rows import record_verdicts


@pytest.fixture
def room(app_services: Services, tenant: Tenant) -> Mailroom:
    return Mailroom(app_services, tenant)


def test_c23_c38_a_campaign_is_counted_over_all_its_submissions(client: TestClient, room: Mailroom) -> None:
    name = "spring/é 2026"
    first, second = room.submit(3, campaign_id=name), room.submit(2, campaign_id=name)
    room.submit(5, campaign_id="other")
    room.put(first, State.SENT)
    found = client.get(f"/v1/campaigns/{quote(name, safe='')}").json()
    assert (found["id"], found["status"], found["total"], found["submissions"]) == (name, "active", 5, 2)
    assert (found["counts"]["sent"], found["counts"]["queued"], found["counts"]["failed"]) == (3, 2, 0)
    assert found["finished_at"] is None
    room.put(second, State.FAILED)
    assert client.get(f"/v1/campaigns/{quote(name, safe='')}").json()["finished_at"] is not None


def test_c23_c38_opens_and_clicks_are_counted_with_and_without_machines(
    client: TestClient, room: Mailroom, tenant: Tenant, session: Session
) -> None:
    accepted = room.submit(campaign_id="spring")
    kinds = [
        (EventType.OPENED, True),
        (EventType.OPENED, False),
        (EventType.CLICKED, True),
        (EventType.DELIVERED, False),
    ]
    append_events(
        session.connection(),
        [
            NewEvent(
                workspace_id=tenant.workspace_id, type=type_, at=datetime.now(UTC), message_id=accepted.message_id,
                submission_id=accepted.submission_id, data={"is_bot": True} if is_bot else {},
            )
            for type_, is_bot in kinds
        ],
    )  # fmt: skip
    session.commit()
    found = client.get("/v1/campaigns/spring").json()
    assert (found["opened"], found["clicked"], found["bounced"], found["unsubscribed"]) == (2, 1, 0, 0)
    assert found["without_bots"] == {"opened": 1, "clicked": 0, "bounced": 0, "complained": 0, "unsubscribed": 0}


def test_campaigns_are_listed_in_pages(client: TestClient, room: Mailroom) -> None:
    for name in ("c", "a", "b"):
        room.submit(campaign_id=name)
    room.submit()
    first = client.get("/v1/campaigns?limit=2").json()
    second = client.get("/v1/campaigns", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in first["data"] + second["data"]] == ["a", "b", "c"]
    assert second["next_cursor"] is None


def test_pausing_takes_mail_out_of_the_queue_and_out_of_a_workers_hand(client: TestClient, room: Mailroom) -> None:
    queued, claimed, sent = (room.submit(2, campaign_id="spring") for _ in range(3))
    bystander = room.submit(campaign_id="autumn")
    room.put(claimed, State.CLAIMED)
    room.put(sent, State.DELIVERED)
    answer = client.post("/v1/campaigns/spring/pause").json()
    assert (answer["status"], answer["paused"]) == ("paused", 4)
    assert {key: answer[key] for key in ("sent", "in_flight", "uncertain", "failed", "never_sent", "total")} == {
        "sent": 2, "in_flight": 0, "uncertain": 0, "failed": 0, "never_sent": 4, "total": 6,
    }  # fmt: skip
    held = room.messages(queued) + room.messages(claimed)
    assert {(message.state, message.due_at) for message in held} == {("queued", UNTIL_SOMEBODY_ACTS)}
    assert room.message(bystander).due_at != UNTIL_SOMEBODY_ACTS


def test_what_is_submitted_to_a_paused_campaign_waits_with_it(client: TestClient, room: Mailroom) -> None:
    room.submit(campaign_id="spring")
    client.post("/v1/campaigns/spring/pause")
    late = room.submit(campaign_id="spring")
    due_at = room.message(late).due_at
    assert due_at is not None
    assert due_at >= UNTIL_SOMEBODY_ACTS
    client.post("/v1/campaigns/spring/resume")
    due_at = room.message(late).due_at
    assert due_at is not None
    assert due_at <= datetime.now(UTC)


def test_resuming_keeps_the_order_and_the_time_of_what_was_scheduled(client: TestClient, room: Mailroom) -> None:
    at = datetime.now(UTC) + timedelta(days=2)
    now, later = room.submit(5, campaign_id="spring"), room.submit(campaign_id="spring", send_at=at)
    client.post("/v1/campaigns/spring/pause")
    assert client.post("/v1/campaigns/spring/resume").json()["resumed"] == 6
    due = [message.due_at for message in room.messages(now) if message.due_at]
    assert due == sorted(set(due))
    assert len(due) == 5
    assert due[-1] <= datetime.now(UTC)
    assert room.message(later).due_at == at


def test_a_mail_that_fails_while_its_campaign_is_paused_waits_with_it(client: TestClient, room: Mailroom) -> None:
    accepted = room.submit(20, campaign_id="spring")
    worker = room.worker(troubled=1.0).start()
    deadline = time.monotonic() + 60
    while not any(message.attempts for message in room.messages(accepted)) and time.monotonic() < deadline:
        time.sleep(0.01)
    answer = client.post("/v1/campaigns/spring/pause").json()
    time.sleep(0.1)
    worker.stop()
    assert answer["in_flight"] == 0
    assert {(message.state, message.due_at) for message in room.messages(accepted)} == {("queued", UNTIL_SOMEBODY_ACTS)}


@pytest.mark.parametrize(
    ("action", "state", "due_at"), [("pause", "queued", UNTIL_SOMEBODY_ACTS), ("cancel", "cancelled", None)]
)
def test_what_comes_back_from_the_wire_long_after_a_stop_does_not_leave_again(
    *,
    client: TestClient,
    room: Mailroom,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    state: str,
    due_at: datetime | None,
) -> None:
    monkeypatch.setattr("api_shim.campaigns.WAIT_SECONDS", 0)
    accepted = room.submit(campaign_id="spring")
    lease_id, message = room.begin()
    assert client.post(f"/v1/campaigns/spring/{action}").json()["in_flight"] == 1
    record_verdicts(session.connection(), lease_id, [judge(message, TRY_LATER, POLICY)])
    session.commit()
    found = room.message(accepted)
    assert (found.state, found.due_at, len(found.attempts)) == (state, due_at, 1)
    told = [id_ for ids in session.scalars(select(Followup.message_ids)) for id_ in ids]
    assert (found.id in told) == (state == "cancelled")


def test_a_pause_waits_for_a_verdict_that_is_just_being_written(
    client: TestClient, room: Mailroom, session: Session
) -> None:
    accepted = room.submit(campaign_id="spring")
    lease_id, message = room.begin()
    record_verdicts(session.connection(), lease_id, [judge(message, TRY_LATER, POLICY)])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/campaigns/spring/pause")
        with pytest.raises(TimeoutError):
            answer.result(0.3)
        session.commit()
        assert answer.result(10).json()["never_sent"] == 1
    assert room.message(accepted).due_at == UNTIL_SOMEBODY_ACTS


def test_cancelling_ends_what_is_not_sent_and_tells_the_follow_up(
    client: TestClient, room: Mailroom, session: Session
) -> None:
    queued, failed = room.submit(3, campaign_id="spring"), room.submit(1, campaign_id="spring")
    room.put(failed, State.FAILED)
    client.post("/v1/campaigns/spring/pause")
    answer = client.post("/v1/campaigns/spring/cancel").json()
    assert (answer["status"], answer["cancelled"], answer["never_sent"], answer["failed"]) == ("cancelled", 3, 3, 1)
    messages = room.messages(queued)
    assert {(message.state, message.due_at, message.reason) for message in messages} == {
        ("cancelled", None, "its campaign was cancelled")
    }
    told = {id_ for ids in session.scalars(select(Followup.message_ids)) for id_ in ids}
    assert {message.id for message in messages} <= told


def test_a_cancelled_campaign_stays_cancelled(client: TestClient, room: Mailroom) -> None:
    room.submit(campaign_id="spring")
    client.post("/v1/campaigns/spring/cancel")
    again = client.post("/v1/campaigns/spring/cancel")
    assert (again.status_code, again.json()["cancelled"]) == (200, 0)
    refused = [client.post(f"/v1/campaigns/spring/{action}") for action in ("pause", "resume", "retry-failed")]
    assert [answer.status_code for answer in refused] == [409] * 3
    with pytest.raises(ApiError, match="CONFLICT"):
        room.submit(campaign_id="spring")


def test_a_shared_mail_that_reached_somebody_is_sent_when_the_rest_is_cancelled(
    client: TestClient, room: Mailroom
) -> None:
    accepted = room.submit(2, individual=False, campaign_id="spring")
    room.put(accepted, State.QUEUED, due_at=datetime.now(UTC), outcomes={"p0@example.com": {"outcome": "accepted"}})
    answer = client.post("/v1/campaigns/spring/cancel").json()
    assert (answer["sent"], answer["never_sent"]) == (1, 0)
    assert room.states(accepted) == Counter(sent=1)


def test_retrying_sends_what_failed_again_with_all_attempts_anew(client: TestClient, room: Mailroom) -> None:
    failed, sent = room.submit(2, campaign_id="spring"), room.submit(campaign_id="spring")
    room.put(failed, State.FAILED, attempts=[{"outcome": "permanent", "at": "", "detail": ""}], crashes=3)
    room.put(sent, State.SENT)
    assert client.post("/v1/campaigns/spring/retry-failed").json()["retried"] == 2
    assert room.states(sent) == Counter(sent=1)
    for message in room.messages(failed):
        assert message.due_at is not None
        assert message.due_at <= datetime.now(UTC)
        assert (message.state, message.crashes, message.finished_at) == ("queued", 0, None)
        assert [attempt["outcome"] for attempt in message.attempts] == ["permanent", "retried"]


def test_what_is_retried_in_a_paused_campaign_waits_for_it(client: TestClient, room: Mailroom) -> None:
    accepted = room.submit(campaign_id="spring")
    room.put(accepted, State.FAILED)
    client.post("/v1/campaigns/spring/pause")
    client.post("/v1/campaigns/spring/retry-failed")
    due_at = room.message(accepted).due_at
    assert due_at is not None
    assert due_at >= UNTIL_SOMEBODY_ACTS


def test_c38_d5_nothing_leaves_while_a_campaign_is_paused_and_all_of_it_is_sent_once(
    client: TestClient, room: Mailroom
) -> None:
    accepted = room.submit(2000, campaign_id="spring")
    workers = [room.worker(troubled=0.2, seed=seed).start() for seed in range(3)]
    pauses: list[tuple[float, float]] = []
    for round_ in range(6):
        time.sleep(0.05 + 0.02 * round_)
        answer = client.post("/v1/campaigns/spring/pause").json()
        since = time.monotonic()
        assert answer["in_flight"] == 0
        assert answer["sent"] + answer["never_sent"] == answer["total"] == 2000
        time.sleep(0.1)
        assert room.states(accepted)["sent"] == answer["sent"]
        pauses.append((since, time.monotonic()))
        client.post("/v1/campaigns/spring/resume")
    deadline = time.monotonic() + 120
    while room.states(accepted) != Counter(sent=2000) and time.monotonic() < deadline:
        time.sleep(0.1)
    for worker in workers:
        worker.stop()
    assert room.states(accepted) == Counter(sent=2000)
    sent = [entry for worker in workers for entry in worker.sent]
    assert Counter(Counter(id_ for id_, _ in sent).values()) == Counter({1: 2000})
    assert not [at for _, at in sent for since, until in pauses if since <= at <= until]


def test_cancelling_under_way_leaves_an_exact_ledger(client: TestClient, room: Mailroom) -> None:
    accepted = room.submit(600, campaign_id="spring")
    workers = [room.worker(troubled=0.3, seed=seed).start() for seed in range(2)]
    time.sleep(0.15)
    answer = client.post("/v1/campaigns/spring/cancel").json()
    sent: set[UUID] = {id_ for worker in workers for id_, _ in worker.sent}
    time.sleep(0.2)
    for worker in workers:
        worker.stop()
    assert {id_ for worker in workers for id_, _ in worker.sent} == sent
    assert (answer["sent"], answer["never_sent"], answer["in_flight"]) == (len(sent), 600 - len(sent), 0)
    assert room.states(accepted) == Counter(sent=len(sent), cancelled=600 - len(sent))


def test_another_workspaces_campaign_does_not_exist(client: TestClient, other: TestClient, room: Mailroom) -> None:
    accepted = room.submit(campaign_id="spring")
    paths = ["pause", "resume", "cancel", "retry-failed"]
    answers = [other.get("/v1/campaigns/spring"), *(other.post(f"/v1/campaigns/spring/{path}") for path in paths)]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert other.get("/v1/campaigns").json()["data"] == []
    assert room.states(accepted) == Counter(queued=1)
    assert client.get("/v1/campaigns/NIL").status_code == 404
