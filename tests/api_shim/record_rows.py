"""Threads, log rows and received mails as the follow-up and the inbound path write them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from models.base import Base, uuid7
from models.mailer import Mailer
from models.record import EmailLog, InboundMessage, Thread
from tests.api_shim.conftest import Tenant

START = datetime(2026, 1, 1, tzinfo=UTC)


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


def put_row(session: Session, row: Base) -> None:
    session.add(row)
    session.commit()


def add_thread(session: Session, tenant: Tenant, *, at: int = 0, **columns: Any) -> UUID:
    values: dict[str, Any] = {"subject": "Offer", "participants": ["grace@example.com"], "last_direction": "outbound"}
    thread = Thread(
        id=uuid7(),
        workspace_id=tenant.workspace_id,
        last_message_at=minute(at),
        **(values | {"has_outbound": True} | columns),
    )
    put_row(session, thread)
    return thread.id


def add_log(session: Session, tenant: Tenant, *, at: int = 0, **columns: Any) -> UUID:
    """at: the minute at which it was finished; ids grow with every call."""
    values: dict[str, Any] = {
        "message_id": uuid7(),
        "submission_id": uuid7(),
        "priority": 0,
        "type": "single",
        "status": "sent",
        "subject": "Offer",
        "sender_email": "hello@mail.test",
        "recipient_email": "grace@example.com",
        "recipients": ["grace@example.com"],
        "cc": [],
        "provider": "smtp",
        "mailer_id": uuid4(),
        "rfc_message_id": f"<{uuid4()}@mail.test>",
        "campaign_id": "NIL",
        "finished_at": minute(at),
    }
    row = EmailLog(workspace_id=tenant.workspace_id, **(values | columns))
    put_row(session, row)
    return row.message_id


def add_inbound(session: Session, tenant: Tenant, thread_id: UUID, *, at: int = 0, **columns: Any) -> UUID:
    values: dict[str, Any] = {
        "rfc_message_id": f"<{uuid4()}@example.com>",
        "from_email": "grace@example.com",
        "from_name": "Grace",
        "to": ["hello@mail.test"],
        "subject": "Re: Offer",
    }
    row = InboundMessage(
        id=uuid7(), workspace_id=tenant.workspace_id, thread_id=thread_id, received_at=minute(at), **(values | columns)
    )
    put_row(session, row)
    return row.id


def add_mailer(session: Session, tenant: Tenant, **columns: Any) -> UUID:
    values: dict[str, Any] = {
        "provider": "smtp",
        "name": "relay",
        "from_addresses": ["hello@mail.test"],
        "domains": ["mail.test"],
        "sealed_credentials": b"",
        "hook_token": str(uuid4()),
    }
    mailer = Mailer(id=uuid7(), workspace_id=tenant.workspace_id, **(values | columns))
    put_row(session, mailer)
    return mailer.id
