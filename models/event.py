"""What happened to a mail after postroad took it: the event log."""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Index, Integer, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class EventType(enum.StrEnum):
    """The field's usual words. `WIRE_NAMES` says what they are called outside."""

    ACCEPTED = "accepted"
    """The provider took the mail; it will report delivery later."""
    DELIVERED = "delivered"
    """The receiving server took it, or (``evidence: accepted``) the best news this provider ever gives."""
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    OPENED = "opened"
    CLICKED = "clicked"
    UNSUBSCRIBED = "unsubscribed"
    FAILED = "failed"
    """Not sent and will not be."""
    GENERATION_FAILED = "generation_failed"
    """The mail could not be composed."""
    RECEIVED = "received"
    LOG_FAILED = "log_failed"
    """Sent, but the log row is still missing. Repaired by itself: `LOG_REPAIRED`."""
    LOG_REPAIRED = "log_repaired"
    MAILER_RECONNECT_REQUIRED = "mailer_reconnect_required"
    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_TEST = "endpoint_test"
    """Asked for by an endpoint's owner; goes to that endpoint alone."""


WIRE_NAMES: dict[EventType, str] = {
    EventType.ACCEPTED: "MAIL_ACCEPTED",
    EventType.DELIVERED: "MAIL_DELIVERED",
    EventType.DEFERRED: "MAIL_DEFERRED",
    EventType.BOUNCED: "MAIL_BOUNCED",
    EventType.COMPLAINED: "MAIL_SPAM",
    EventType.OPENED: "MAIL_OPENED",
    EventType.CLICKED: "MAIL_CLICKED",
    EventType.UNSUBSCRIBED: "MAIL_UNSUBSCRIBED",
    EventType.FAILED: "MAIL_FAILED",
    EventType.GENERATION_FAILED: "GENERATION_FAILURE",
    EventType.RECEIVED: "INCOMING_EMAIL",
    EventType.LOG_FAILED: "EMAIL_LOG_FAILED",
    EventType.LOG_REPAIRED: "EMAIL_LOG_REPAIRED",
    EventType.MAILER_RECONNECT_REQUIRED: "mailer.reconnect_required",
    EventType.ENDPOINT_DISABLED: "webhook_endpoint.disabled",
    EventType.ENDPOINT_TEST: "webhook_endpoint.test",
}


def wire_name(kind: str) -> str:
    """What an event of a type is called outside. One that a newer version wrote, beside us, keeps the name it has."""
    return WIRE_NAMES[EventType(kind)] if kind in WIRE_NAMES else kind


ENGAGEMENT = (
    EventType.OPENED, EventType.CLICKED, EventType.BOUNCED, EventType.COMPLAINED, EventType.UNSUBSCRIBED
)  # fmt: skip
"""What recipients do with a mail, as campaigns count it."""

ENGAGEMENT_TYPES = f"type in ({', '.join(repr(each.value) for each in ENGAGEMENT)})"


class Event(Base):
    """One thing that happened. ``seq`` counts within the message, ``cursor`` within the workspace without gaps."""

    __tablename__ = "event"
    __table_args__ = (
        Index(None, "workspace_id", "cursor"),
        Index(None, "message_id", "seq"),
        Index("event_engagement", "submission_id", "type", postgresql_where=ENGAGEMENT_TYPES),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    cursor: Mapped[int]
    message_id: Mapped[UUID | None]
    submission_id: Mapped[UUID | None]
    seq: Mapped[int] = mapped_column(Integer)
    type: Mapped[str]
    state: Mapped[str | None]
    """The state of the message that this event led to."""
    recipients: Mapped[list[str]]
    data: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    at: Mapped[datetime]
    """When it happened, by the clock of whoever saw it."""
    created_at: Mapped[Created]


class EventKey(Base):
    """What was reported already: a provider's own identity of an event, so that a repeated report is the same event."""

    __tablename__ = "event_key"
    __table_args__ = (Index(None, "event_id"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the natural key, which may name people."""
    event_id: Mapped[UUID]


class ProviderReport(Base):
    """A provider's webhook call, stored as it came and applied by a worker."""

    __tablename__ = "provider_report"
    __table_args__ = (Index("provider_report_due", "due_at", postgresql_where="due_at is not null"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    mailer_id: Mapped[UUID]
    sealed_head: Mapped[bytes] = mapped_column(LargeBinary)
    """Headers and query, encrypted: they carry the password of the hook."""
    body: Mapped[bytes] = mapped_column(LargeBinary)
    is_inbound: Mapped[bool] = mapped_column(Boolean)
    """It brings a mail that came in."""
    due_at: Mapped[datetime | None]
    """When to apply it; null once that was given up. An applied report is deleted."""
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    error: Mapped[str | None]
    created_at: Mapped[Created]
