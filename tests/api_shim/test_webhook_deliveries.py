"""Deliveries at an endpoint: what is shown of them, test events, replays, disabling and enabling."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook
from starlette.testclient import TestClient

from api_shim.services import Services
from models.access import AuditEntry
from models.event import EventType
from models.webhook import WebhookDelivery
from tests.api_shim.conftest import Tenant
from tests.api_shim.test_webhook_endpoints import register
from tests.worker.receiver import Receiver, receiving, status
from worker.events import NewEvent, append_events
from worker.notify import Notifier
from worker.settings import Settings

NOW = datetime.now(UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def add_events(session: Session, tenant: Tenant, count: int = 1) -> None:
    """Operators' events, addressed to whoever wants them."""
    append_events(
        session.connection(),
        [
            NewEvent(workspace_id=tenant.workspace_id, type=EventType.MAILER_RECONNECT_REQUIRED, at=NOW)
            for _ in range(count)
        ],
    )
    session.commit()


def rows_of(session: Session, endpoint: dict[str, Any]) -> list[WebhookDelivery]:
    session.rollback()
    session.expire_all()
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == UUID(endpoint["id"]))
    return list(session.scalars(query.order_by(WebhookDelivery.event_id)))


def change(session: Session, row: WebhookDelivery, **values: Any) -> None:
    session.execute(update(WebhookDelivery).where(WebhookDelivery.id == row.id).values(**values))
    session.commit()


def path(endpoint: dict[str, Any], *parts: str) -> str:
    return "/".join(["/v1/webhook-endpoints", endpoint["id"], *parts])


def is_due(row: WebhookDelivery) -> bool:
    return row.state == "pending" and row.due_at is not None and row.due_at <= datetime.now(UTC)


def test_a_test_event_goes_to_this_endpoint_alone_signed_with_its_secret(
    client: TestClient, app_services: Services, session: Session, receiver: Receiver
) -> None:
    bystander = register(client, url=receiver.url)
    made = register(client, url=receiver.url, events=["MAIL_BOUNCED"], campaign_id="spring")
    answer = client.post(path(made, "test"))
    assert answer.status_code == 202
    notifier = Notifier(app_services.engine, app_services.settings, app_services.vault)
    notifier.deliver(UUID(made["id"]))
    notifier.close()
    (call,) = receiver.calls
    body = Webhook(made["secret"]).verify(call.body, call.headers)
    assert (body["event"], body["details"]) == ("webhook_endpoint.test", {"endpoint_id": made["id"]})
    shown = client.get(path(made, "deliveries", answer.json()["delivery_id"])).json()
    assert (shown["state"], shown["event"], shown["tries"]) == ("delivered", "webhook_endpoint.test", 1)
    assert shown["attempts"][0]["status"] == 200
    assert shown["payload"] == body
    assert rows_of(session, bystander) == []


def test_deliveries_are_listed_newest_first_and_by_state(client: TestClient, tenant: Tenant, session: Session) -> None:
    made = register(client)
    add_events(session, tenant, 3)
    rows = rows_of(session, made)
    change(session, rows[0], state="dead", due_at=None)
    first = client.get(path(made, "deliveries"), params={"limit": 2}).json()
    second = client.get(path(made, "deliveries"), params={"limit": 2, "cursor": first["next_cursor"]}).json()
    shown = first["data"] + second["data"]
    assert {row["id"] for row in shown} == {str(row.id) for row in rows}
    assert [row["event_id"] for row in shown] == sorted((str(row.event_id) for row in rows), reverse=True)
    dead = client.get(path(made, "deliveries"), params={"state": "dead"}).json()["data"]
    assert [(row["id"], row["next_attempt_at"]) for row in dead] == [(str(rows[0].id), None)]


def test_replaying_one_delivery_leaves_its_id_and_history_and_gives_it_all_its_tries(
    client: TestClient, tenant: Tenant, session: Session
) -> None:
    made = register(client)
    add_events(session, tenant, 2)
    dead, other_row = rows_of(session, made)
    change(session, dead, state="dead", due_at=None, tries=8, attempts=[{"status": 500}])
    change(session, other_row, state="delivered", due_at=None, delivered_at=NOW)
    answer = client.post(path(made, "replay"), json={"delivery_id": str(dead.id)})
    assert answer.json() == {"replayed": 1}
    replayed, untouched = rows_of(session, made)
    assert (replayed.id, replayed.tries, replayed.attempts) == (dead.id, 0, [{"status": 500}])
    assert is_due(replayed)
    assert untouched.state == "delivered"
    assert session.scalars(
        select(AuditEntry.action).where(AuditEntry.target == made["id"]).order_by(AuditEntry.id)
    ).all()[-1] == ("webhook_endpoint.replayed")


def test_a_range_since_a_time_or_a_state_is_replayed_and_nothing_else(
    client: TestClient, tenant: Tenant, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_shim.replay.FIRST_CHUNK", 1)  # several transactions
    monkeypatch.setattr("api_shim.replay.CHUNK", 2)
    made = register(client)
    add_events(session, tenant, 6)
    start = NOW - timedelta(hours=10)

    def replayed(body: dict[str, str]) -> list[int]:
        for number, row in enumerate(rows_of(session, made)):
            state = "dead" if number == 5 else "delivered"
            change(session, row, state=state, due_at=None, created_at=start + timedelta(hours=number))
        answer = client.post(path(made, "replay"), json=body)
        numbers = [number for number, row in enumerate(rows_of(session, made)) if is_due(row)]
        assert answer.json() == {"replayed": len(numbers)}
        return numbers

    def hour(number: int) -> str:
        return (start + timedelta(hours=number)).isoformat()

    assert replayed({"from": hour(1), "to": hour(3)}) == [1, 2, 3]
    assert replayed({"since": hour(0)}) == [0, 1, 2, 3, 4, 5]
    assert replayed({"state": "dead"}) == [5]
    assert replayed({"since": hour(4), "state": "delivered"}) == [4]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"from": "2026-01-01T00:00:00Z"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
        {"delivery_id": "019aa5b4-6412-7801-a001-2e16a5593439", "state": "dead"},
        {"state": "sleeping"},
    ],
)
def test_a_replay_that_does_not_say_what_is_a_400(client: TestClient, body: dict[str, str]) -> None:
    assert client.post(path(register(client), "replay"), json=body).status_code == 400


def test_a_disabled_endpoint_gets_nothing_until_it_is_enabled_and_then_what_has_waited(
    client: TestClient, tenant: Tenant, session: Session
) -> None:
    made = register(client)
    add_events(session, tenant, 2)
    disabled = client.patch(path(made), json={"status": "disabled"}).json()
    assert (disabled["status"], disabled["status_reason"]) == ("disabled", "Disabled through the API.")
    assert [row.due_at for row in rows_of(session, made)] == [None, None]
    assert client.post(path(made, "test")).status_code == 409
    assert client.post(path(made, "replay"), json={"state": "dead"}).status_code == 409
    enabled = client.patch(path(made), json={"status": "active"}).json()
    assert (enabled["status"], enabled["status_reason"], enabled["failing_since"]) == ("active", None, None)
    assert all(is_due(row) for row in rows_of(session, made))


def test_what_a_dead_receiver_missed_arrives_under_the_same_id_when_it_is_replayed(
    client: TestClient, tenant: Tenant, session: Session, app_services: Services, receiver: Receiver
) -> None:
    made = register(client, url=receiver.url)
    add_events(session, tenant)
    receiver.default = status(500)
    settings = Settings(**app_services.settings.model_dump() | {"webhook_retry_seconds": "0"})
    notifier = Notifier(app_services.engine, settings, app_services.vault)
    for _ in range(2):
        notifier.deliver(UUID(made["id"]))
    assert rows_of(session, made)[0].state == "dead"
    receiver.default = status(200)
    client.post(path(made, "replay"), json={"state": "dead"})
    notifier.deliver(UUID(made["id"]))
    notifier.close()
    assert len(set(receiver.ids)) == 1
    assert rows_of(session, made)[0].state == "delivered"
    assert receiver.calls[-1].json["event"] == "mailer.reconnect_required"


def test_another_workspace_sees_no_delivery_and_replays_none(
    client: TestClient, other: TestClient, tenant: Tenant, session: Session
) -> None:
    made = register(client)
    add_events(session, tenant)
    (row,) = rows_of(session, made)
    change(session, row, state="dead", due_at=None)
    theirs = register(other)
    answers = [
        other.get(path(made, "deliveries")),
        other.get(path(made, "deliveries", str(row.id))),
        other.get(path(theirs, "deliveries", str(row.id))),
        other.post(path(made, "test")),
        other.post(path(made, "replay"), json={"state": "dead"}),
        other.post(path(theirs, "replay"), json={"delivery_id": str(row.id)}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 6
    assert rows_of(session, made)[0].state == "dead"
