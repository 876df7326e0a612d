"""What the follow-up writes: the email log and the threads of the inbox, inbound mail included."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Computed, Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from models.base import BY_TIME, Base, Created, Key, Tenant


class EmailLog(Base):
    """One row per message that reached an outcome. Its absence after a send is EMAIL_LOG_FAILED."""

    __tablename__ = "email_log"
    __table_args__ = (
        # They end in message_id, the order of lists: a filter is one range, read backwards until the page is full.
        Index(None, "workspace_id", "message_id"),
        Index(None, "submission_id", "message_id"),
        Index(None, "contact_id", "message_id", postgresql_where="contact_id is not null"),
        Index(None, "deal_id", "message_id", postgresql_where="deal_id is not null"),
        Index(None, "customer_id", "message_id", postgresql_where="customer_id is not null"),
        Index(None, "thread_id", "message_id", postgresql_where="thread_id is not null"),
        Index(None, "workspace_id", "provider", "message_id"),
        Index("email_log_recipient", "workspace_id", text("lower(recipient_email)"), "message_id"),
        # The rare values only: common ones are found soon in the workspace's own index, and a mail pays for each entry.
        Index(
            "email_log_campaign", "workspace_id", "campaign_id", "message_id", postgresql_where="campaign_id <> 'NIL'"
        ),
        Index(
            "email_log_status",
            "workspace_id",
            "status",
            "message_id",
            postgresql_where="status not in ('sent', 'delivered')",
        ),
        Index("email_log_type", "workspace_id", "type", "message_id", postgresql_where="type <> 'campaign'"),
        # For what providers report without our reference, and for answers to mails whose Message-ID is not ours.
        Index(
            "email_log_provider_message",
            "workspace_id",
            "provider_message_id",
            postgresql_where="provider in ('postmark', 'mailgun', 'sparkpost')",
        ),
        Index(
            "email_log_rfc_message",
            "workspace_id",
            "rfc_message_id",
            postgresql_where="rfc_message_id !~ '^<postroad[0-9a-f]{8}-'",
        ),
        Index("email_log_shared", "recipients", postgresql_using="gin", postgresql_where="cardinality(recipients) > 1"),
        Index("email_log_failed", "priority", postgresql_where="status = 'failed'"),
        Index(None, "finished_at", **BY_TIME),
        Index(None, "recorded_at", **BY_TIME),
        {"postgresql_partition_by": "RANGE (message_id)"},
    )

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The id of the message; also the id of the log row."""
    workspace_id: Mapped[Tenant]
    submission_id: Mapped[UUID]
    priority: Mapped[int] = mapped_column(SmallInteger)
    type: Mapped[str]
    """``single`` (one recipient), ``shared`` (one mail, several recipients), ``campaign`` (one of many) or
    ``reply``.
    """
    status: Mapped[str]
    """The state of the message."""
    subject: Mapped[str]
    sender_email: Mapped[str]
    recipient_email: Mapped[str]
    recipients: Mapped[list[str]]
    cc: Mapped[list[str]]
    provider: Mapped[str]
    mailer_id: Mapped[UUID]
    rfc_message_id: Mapped[str]
    provider_message_id: Mapped[str | None]
    thread_id: Mapped[UUID | None]
    sender_user_id: Mapped[UUID | None]
    contact_id: Mapped[UUID | None]
    deal_id: Mapped[UUID | None]
    customer_id: Mapped[UUID | None]
    campaign_id: Mapped[str]
    attachment_filename: Mapped[str | None]
    error: Mapped[str | None]
    finished_at: Mapped[datetime]
    recorded_at: Mapped[Created]
    created_at: Mapped[Created]


class Thread(Base):
    """A conversation in the inbox. Its outbound mails are log rows, its inbound ones `InboundMessage` rows."""

    __tablename__ = "thread"
    __table_args__ = (
        Index(None, "workspace_id", "last_message_at", "id"),
        Index("thread_unread", "workspace_id", "last_message_at", "id", postgresql_where="not is_read"),
        Index("thread_inbound", "workspace_id", "last_message_at", "id", postgresql_where="has_inbound"),
        Index(
            "thread_set_aside", "workspace_id", "status", "last_message_at", "id", postgresql_where="status <> 'active'"
        ),
        Index(None, "subject_words", postgresql_using="gin"),
        Index(None, "participants", postgresql_using="gin"),
        Index(None, "workspace_id", "provider_thread_id", postgresql_where="provider_thread_id is not null"),
        Index(None, "contact_id", postgresql_where="contact_id is not null"),
        Index(None, "deal_id", postgresql_where="deal_id is not null"),
        Index(None, "customer_id", postgresql_where="customer_id is not null"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    subject: Mapped[str]
    subject_words: Mapped[Any] = mapped_column(TSVECTOR, Computed("to_tsvector('simple', subject)", persisted=True))
    participants: Mapped[list[str]]
    """Every address of the conversation, Cc included, lower case, sorted."""
    status: Mapped[str] = mapped_column(server_default="active")
    """``active``, ``archived`` or ``spam``."""
    is_read: Mapped[bool] = mapped_column(Boolean, server_default="true")
    last_direction: Mapped[str]
    """``outbound`` or ``inbound``."""
    has_inbound: Mapped[bool] = mapped_column(Boolean, server_default="false")
    has_outbound: Mapped[bool] = mapped_column(Boolean, server_default="false")
    provider_thread_id: Mapped[str | None]
    """Gmail's conversation id."""
    contact_id: Mapped[UUID | None]
    deal_id: Mapped[UUID | None]
    customer_id: Mapped[UUID | None]
    last_message_at: Mapped[Created]
    created_at: Mapped[Created]


class InboundMessage(Base):
    """A mail that came in, attached to its thread."""

    __tablename__ = "inbound_message"
    __table_args__ = (
        UniqueConstraint("workspace_id", "mailer_id", "rfc_message_id"),
        Index(None, "thread_id", "created_at"),
        Index(None, "workspace_id", "rfc_message_id"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    mailer_id: Mapped[UUID | None]
    thread_id: Mapped[UUID]
    rfc_message_id: Mapped[str]
    in_reply_to: Mapped[str | None]
    references: Mapped[list[str]] = mapped_column("reference_ids", server_default="{}")
    from_email: Mapped[str]
    from_name: Mapped[str | None]
    to: Mapped[list[str]] = mapped_column("to_emails")
    cc: Mapped[list[str]] = mapped_column("cc_emails", server_default="{}")
    subject: Mapped[str]
    text: Mapped[str | None]
    html: Mapped[str | None]
    attachments: Mapped[list[dict[str, Any]]] = mapped_column(server_default="[]")
    """``{"name", "mimeType", "size", "sha256"}`` each; the bytes lie in `models.blob.Blob`."""
    is_spam: Mapped[bool] = mapped_column(Boolean, server_default="false")
    is_automatic: Mapped[bool] = mapped_column(Boolean, server_default="false")
    """Written by a machine: a vacation note, a list, a report that fits no mail. Not a reply."""
    received_at: Mapped[datetime]
    created_at: Mapped[Created]
