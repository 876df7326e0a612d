"""What the buttons do: each once, with a sentence about it and an entry in the audit trail."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.services import Services
from models.access import AuditEntry
from models.base import uuid7
from models.mailer import Mailer, Suppression
from models.message import UNTIL_SOMEBODY_ACTS, Campaign, Followup, State
from models.record import EmailLog
from models.webhook import WebhookDelivery
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_mailer
from tests.ops.conftest import HELD, Browser, add_endpoint, add_failed, add_message, fresh


def _audited(session: Session, tenant: Tenant) -> list[str]:
    query = select(AuditEntry.action).where(AuditEntry.workspace_id == tenant.workspace_id)
    return list(session.scalars(query.order_by(AuditEntry.id)))


def test_a_scheduled_message_is_cancelled(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_message(session, tenant, due_at=datetime.now(UTC) + timedelta(hours=1))
    page = operator.act(f"/ops/messages/{message_id}/cancel", back=f"/ops/messages/{message_id}")
    assert "Cancelled. It will not be sent." in page
    assert "/cancel" not in page
    assert fresh(session, message_id).state == State.CANCELLED
    assert _audited(session, tenant) == ["message.cancelled"]


def test_what_cannot_be_done_any_more_is_said_and_not_done(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_failed(session, tenant)
    assert "cannot be changed in this way" in operator.act(f"/ops/messages/{message_id}/cancel")
    assert fresh(session, message_id).state == State.FAILED
    assert _audited(session, tenant) == []


def test_a_notice_is_shown_once(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_failed(session, tenant)
    assert "Back in the queue" in operator.act(f"/ops/messages/{message_id}/retry")
    assert "Back in the queue" not in operator.get("/ops").text
    assert fresh(session, message_id).state == State.QUEUED


def test_a_held_message_is_decided_from_the_stuck_page(operator: Browser, session: Session, tenant: Tenant) -> None:
    arrived, lost = add_message(session, tenant, **HELD), add_message(session, tenant, **HELD)
    page = operator.get("/ops/stuck").text
    assert page.count("Mark as sent</button>") == page.count("Send again</button>") == 2
    operator.act(f"/ops/messages/{arrived}/mark-sent", provider_message_id="p-1", back="/ops/stuck")
    assert "uncertain" not in operator.act(f"/ops/messages/{lost}/retry", force="yes", back="/ops/stuck")
    row = fresh(session, arrived)
    assert (row.state, row.provider_message_id) == (State.SENT, "p-1")
    assert fresh(session, lost).state == State.QUEUED
    assert "unknown fate" not in operator.get("/ops/stuck").text
    assert _audited(session, tenant) == ["message.marked_sent", "message.retried"]


def test_sending_again_what_may_have_arrived_has_to_be_said(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    message_id = add_message(session, tenant, **HELD)
    assert "may deliver it twice" in operator.act(f"/ops/messages/{message_id}/retry")
    assert fresh(session, message_id).state == State.UNCERTAIN


def test_a_recipient_of_the_message_is_suppressed_and_nobody_else(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    message_id = add_failed(session, tenant)
    assert "no recipient" in operator.act(f"/ops/messages/{message_id}/suppress", address="else@example.com")
    assert "gets no more mail" in operator.act(f"/ops/messages/{message_id}/suppress", address="grace@example.com")
    rows = session.scalars(select(Suppression).where(Suppression.workspace_id == tenant.workspace_id)).all()
    assert [row.address for row in rows] == ["grace@example.com"]
    assert _audited(session, tenant) == ["suppression.added"]


def test_suppressions_are_listed_added_and_removed(operator: Browser, session: Session, tenant: Tenant) -> None:
    page = operator.act("/ops/suppressions/add", address=" Ada@Example.com ", list_id="", back="/ops/suppressions")
    assert "ada@example.com" in page
    assert "not a valid email address" in operator.act("/ops/suppressions/add", address="nonsense")
    assert "No suppressed" not in operator.get("/ops/suppressions?address=ADA@example.com").text
    found = re.search(r'name="id" value="([^"]+)"', page)
    assert found is not None
    assert "No suppressed addresses." in operator.act("/ops/suppressions/remove", id=found[1], back="/ops/suppressions")
    assert "no id of a suppression" in operator.act("/ops/suppressions/remove", id="x")
    assert _audited(session, tenant) == ["suppression.added", "suppression.removed"]


def test_a_campaign_is_paused_resumed_retried_and_cancelled(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    name = "spring & summer/2026"
    session.add(Campaign(workspace_id=tenant.workspace_id, id=name))
    session.commit()
    waiting = add_message(session, tenant, campaign_id=name, due_at=datetime.now(UTC) + timedelta(hours=1))
    failed = add_failed(session, tenant, campaign_id=name)
    page = operator.get("/ops/campaigns").text
    assert 'aria-label="1 queued, 1 failed"' in page
    assert "50 % finished" in page
    back = "/ops/campaigns"
    assert "Held back: 1 mail." in operator.act("/ops/campaigns/pause", id=name, back=back)
    assert fresh(session, waiting).due_at == UNTIL_SOMEBODY_ACTS
    assert "Due again: 1 mail." in operator.act("/ops/campaigns/resume", id=name, back=back)
    assert "Back in the queue: 1 mail" in operator.act("/ops/campaigns/retry", id=name, back=back)
    assert fresh(session, failed).state == State.QUEUED
    page = operator.act("/ops/campaigns/cancel", id=name, back=back)
    assert "Cancelled for good: 2 mails." in page
    assert "/ops/campaigns/resume" not in page
    assert _audited(session, tenant) == [
        "campaign.paused",
        "campaign.resumed",
        "campaign.failed_retried",
        "campaign.cancelled",
    ]


def test_a_mailer_is_paused_resumed_and_tested(
    operator: Browser, session: Session, tenant: Tenant, app_services: Services
) -> None:
    mailer_id = add_mailer(session, tenant, caps={"per_second": 5})
    sealed = app_services.vault.seal(
        f"mailer:{mailer_id}",
        {"host": "127.0.0.1", "port": 9, "security": "none", "username": None, "password": None},
    )
    session.get_one(Mailer, mailer_id).sealed_credentials = sealed
    session.commit()
    assert "5 of 5 per second" in operator.get("/ops/mailers").text
    assert "is paused" in operator.act(f"/ops/mailers/{mailer_id}/pause", back="/ops/mailers")
    session.expire_all()
    assert session.get_one(Mailer, mailer_id).status == "paused"
    assert "sends again" in operator.act(f"/ops/mailers/{mailer_id}/resume", back="/ops/mailers")
    assert "The provider refused" in operator.act(f"/ops/mailers/{mailer_id}/test", back="/ops/mailers")
    assert _audited(session, tenant) == ["mailer.paused", "mailer.resumed", "mailer.tested"]


def _delivery(session: Session, tenant: Tenant, endpoint: UUID, **columns: Any) -> UUID:
    row = WebhookDelivery(
        id=uuid7(), workspace_id=tenant.workspace_id, endpoint_id=endpoint, event_id=uuid7(), **columns
    )
    session.add(row)
    session.commit()
    return row.id


def _state(session: Session, delivery_id: UUID) -> str:
    session.expire_all()
    return session.get_one(WebhookDelivery, delivery_id).state


def test_webhooks_show_their_deliveries_and_replay_them(operator: Browser, session: Session, tenant: Tenant) -> None:
    endpoint = add_endpoint(session, tenant)
    attempt = {
        "at": datetime.now(UTC).isoformat(),
        "status": 503,
        "error": "busy",
        "response": "<b>no</b>",
        "milliseconds": 12,
    }
    dead = [_delivery(session, tenant, endpoint, state="dead", tries=8, attempts=[attempt]) for _ in range(2)]
    done = _delivery(session, tenant, endpoint, state="delivered", delivered_at=datetime.now(UTC), tries=1)
    assert ">2</a>" in operator.get("/ops/webhooks").text
    back = f"/ops/webhooks/{endpoint}"
    page = operator.get(back).text
    for words in ("503", "busy", "12 ms", "&lt;b&gt;no"):
        assert words in page
    assert operator.get(f"{back}?state=delivered").text.count("<details>") == 0
    assert "1 delivery" in operator.act(f"{back}/replay", delivery_id=str(dead[0]), back=back)
    assert (_state(session, dead[0]), _state(session, dead[1])) == ("pending", "dead")
    assert "1 delivery" in operator.act(f"{back}/replay", state="dead", back="/ops/stuck")
    assert "3 deliveries" in operator.act(f"{back}/replay", since="15m", back=back)
    assert _state(session, done) == "pending"
    assert "Say what to replay." in operator.act(f"{back}/replay", back=back)
    assert _audited(session, tenant) == ["webhook_endpoint.replayed"] * 3


def test_an_endpoint_is_tested_switched_off_and_on(operator: Browser, session: Session, tenant: Tenant) -> None:
    endpoint = add_endpoint(session, tenant)
    back = f"/ops/webhooks/{endpoint}"
    assert "A test event is on its way" in operator.act(f"{back}/test", back=back)
    assert "is disabled." in operator.act(f"{back}/switch", status="disabled", back=back)
    page = operator.get(back).text
    assert "Enable</button>" in page
    assert "Send a test event" not in page
    assert "is disabled" in operator.get("/ops").text
    assert "is active." in operator.act(f"{back}/switch", status="active", back=back)
    assert "Input should be" in operator.act(f"{back}/switch", status="x", back=back)
    assert _audited(session, tenant) == ["webhook_endpoint.tested"] + ["webhook_endpoint.changed"] * 2


def test_the_follow_up_of_unlogged_mail_is_hurried(
    operator: Browser, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    rows = [
        Followup(message_ids=[add_failed(session, who)], tries=3, due_at=later, error="no table")
        for who in (tenant, other_tenant)
    ]
    session.add_all(rows)
    session.commit()
    assert operator.get("/ops/stuck").text.count("no table") == 1
    operator.act("/ops/stuck/log-now", back="/ops/stuck")
    for row in rows:
        session.refresh(row)
    assert rows[0].due_at <= datetime.now(UTC)
    assert rows[1].due_at == later
    assert _audited(session, tenant) == ["followup.retried"]
    session.query(Followup).delete()
    session.query(EmailLog).delete()
    session.commit()
