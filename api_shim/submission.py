"""The canonical request: what all three shapes become. Everything behind intake knows only this."""

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from api_shim.idempotency import Original
from models.content import Address, SendSettings
from models.message import Priority


class Shape(enum.StrEnum):
    CRM = "crm"
    MAILBOX = "mailbox"
    MAILER = "mailer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A CRM entity the mail belongs to. ``field`` is the name the caller used (``deal_id`` or ``opportunity_id``)."""

    field: str
    kind: str
    """``contact``, ``deal`` or ``customer``."""
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttachment:
    """An attachment as it came: bytes, or a path in the attachment store."""

    field: str
    """Where it stood in the body, for error messages: ``attachments[2]``."""
    filename: str
    content_type: str
    data: bytes | None = dataclasses.field(default=None, repr=False)
    storage_path: str | None = None
    inline: bool = False
    content_id: str | None = None
    content_location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request to send, checked as far as it can be without the database."""

    shape: Shape
    sender: Address | None = None
    """None: the mailer's or the email config's own address."""
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    individual: bool
    """One message for each recipient of ``to``; otherwise one message that all share."""
    reply_to: tuple[Address, ...] = ()
    subject: str | None = None
    html: str | None = None
    text: str | None = None
    template_id: UUID | None = None
    attachments: tuple[NewAttachment, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Custom headers, checked; without those that have their own field below."""
    custom_message_id: str | None = None
    """The caller's own id, without brackets; wrapped into our Message-ID."""
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    provider_thread_id: str | None = None
    """Gmail's Thread-Id."""
    substitutions: Mapping[str, Mapping[str, str]] | None = None
    """Address in lower case -> variable -> value. None: braces are plain text."""
    mailer_id: UUID | None = None
    """None: the workspace's default, or what ``mode`` and ``email_config_id`` lead to."""
    email_config_id: UUID | None = None
    personal: bool = False
    """``mode: personal``: send through the mailbox of ``sender_user_id``."""
    sender_user_id: UUID | None = None
    from_alias: str | None = None
    """``from_email`` of the crm shape: a send-as address of the personal mailbox."""
    links: tuple[Link, ...] = ()
    thread_id: UUID | None = None
    priority: Priority = Priority.NORMAL
    campaign_id: str = "NIL"
    custom_args: Mapping[str, Any] | None = None
    settings: SendSettings = SendSettings()
    send_at: datetime | None = None
    expires_at: datetime | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What `accept` stored, or found stored by an earlier request with the same Idempotency-Key."""

    submission_id: UUID
    message_id: UUID
    """The first message: the one to wait for."""
    total: int
    rfc_message_id: str
    thread_id: UUID | None
    provider: str
    original: Original | None = None
    """The earlier request; None if this one is the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What is known of a submission when its answer is written. A shape renders it."""

    ref_id: str
    """ULID of the submission."""
    id: UUID
    """The (first) message."""
    state: str
    """A `models.message.State` value; ``queued`` also while a worker has it."""
    rfc_message_id: str
    provider_message_id: str | None
    thread_id: UUID | None
    provider: str
    reason: str | None = None
    """The provider's words where it was not sent."""
    permanent: bool = False
    """With a failed state: the provider refused for good, and did not merely fail."""
    log_failed: bool = False
    """Sent, and the follow-up could not write its log row so far."""
