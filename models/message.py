"""The heart: a submission (content once), its messages (one per mail to send), and what may happen to them.

One column says when a worker must look at a message next: ``due_at``. For a queued message that is when it may be
sent, for an uncertain one when to ask the provider. While a worker has it in hand it has none, but a `Lease` with an
end; a finished message has neither. The messages of a lane go in its order. So retries, schedules and recovery are one
index scan, and of the four writes in a message's life only the claim touches an index.
"""

import enum
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ForeignKey, Index, Integer, SmallInteger, text
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.orm import Mapped, mapped_column

from models.base import BY_TIME, Base, Created, Key, Tenant


class Priority(enum.IntEnum):
    NORMAL = 0
    HIGH = 1


class State(enum.StrEnum):
    QUEUED = "queued"
    """Waits for its time and for a worker."""
    CLAIMED = "claimed"
    """In a worker's batch; surely not on the wire."""
    SENDING = "sending"
    """An attempt is on record; the wire may be touched."""
    UNCERTAIN = "uncertain"
    """The wire may have been touched and no answer is on record."""
    SENT = "sent"
    """The provider accepted it for at least one recipient."""
    DELIVERED = "delivered"
    """The provider reported delivery."""
    BOUNCED = "bounced"
    """It came back after the provider had taken it."""
    COMPLAINED = "complained"
    """The recipient reported it as spam."""
    FAILED = "failed"
    """Surely not sent, and will not be: refused for good, not composable, or out of attempts."""
    CANCELLED = "cancelled"
    """Somebody cancelled it before it was sent."""
    SUPPRESSED = "suppressed"
    """Every recipient is on the suppression list."""
    EXPIRED = "expired"
    """``expires_at`` passed before it could be sent."""
    SKIPPED = "skipped"
    """Invalid recipient under ``settings.validate``."""


TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(
        {State.CLAIMED, State.CANCELLED, State.SUPPRESSED, State.EXPIRED, State.SKIPPED, State.FAILED, State.SENT}
    ),  # sent: cancelled when some of those who share it had got it
    State.CLAIMED: frozenset(
        {
            State.QUEUED,
            State.SENDING,
            State.SENT,
            State.FAILED,
            State.SUPPRESSED,
            State.EXPIRED,
            State.SKIPPED,
            State.CANCELLED,
        }
    ),  # sent: its last open recipients turned out to be suppressed
    State.SENDING: frozenset({State.QUEUED, State.SENT, State.FAILED, State.UNCERTAIN}),
    State.UNCERTAIN: frozenset({State.SENT, State.QUEUED, State.FAILED}),
    State.SENT: frozenset({State.DELIVERED, State.BOUNCED, State.COMPLAINED}),
    State.DELIVERED: frozenset({State.BOUNCED, State.COMPLAINED}),
    State.BOUNCED: frozenset({State.COMPLAINED}),
    State.COMPLAINED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),  # an operator's retry
    State.CANCELLED: frozenset(),
    State.SUPPRESSED: frozenset({State.QUEUED}),  # an operator's retry after the suppression was lifted
    State.EXPIRED: frozenset(),
    State.SKIPPED: frozenset(),
}
"""What may follow what. The only list of its kind; `predecessors` turns it round for guarded updates."""

OPEN = frozenset({State.QUEUED, State.CLAIMED, State.SENDING, State.UNCERTAIN})
"""States that still want something done. Everything else is finished."""

ACCEPTED = frozenset({State.SENT, State.DELIVERED, State.BOUNCED, State.COMPLAINED})
"""States in which the provider took the mail."""

UNTIL_SOMEBODY_ACTS = datetime(9999, 1, 1, tzinfo=UTC)
"""``due_at`` of what waits for a person: a held uncertain mail, the queued mail of a paused campaign."""

PATIENCE = timedelta(days=1)
"""A message that never expires has its turn as if it did so long after it came; nothing overtakes it for longer."""

STATE_TYPE = ENUM(State, name="message_state", values_callable=lambda states: [state.value for state in states])


def predecessors(state: State) -> list[str]:
    """The states from which a message may enter ``state``, for ``where state = any(...)``."""
    return sorted(before.value for before, after in TRANSITIONS.items() if state in after)


def due_now(now: datetime, expires_at: datetime | None) -> datetime:
    """``due_at`` of a message that may go at once: the nearest deadline is the next in its lane.

    One that expires within `PATIENCE` is dated back, so that it stands where its deadline belongs among those of the
    others. When it came is in ``created_at``, and what is late is late by the later of the two.
    """
    return now if expires_at is None else min(now, expires_at - PATIENCE)


class Submission(Base):
    """One accepted request: what to send, kept once however many messages it makes."""

    __tablename__ = "submission"
    __table_args__ = (
        Index(None, "workspace_id", "id"),
        Index(None, "workspace_id", "campaign_id", "id", postgresql_where=text("campaign_id <> 'NIL'")),
        Index(
            "submission_attachments",
            text("(content->'attachments')"),
            postgresql_using="gin",
            postgresql_where=text("content->'attachments' is not null"),
        ),
        Index(None, "created_at", **BY_TIME),
    )

    id: Mapped[Key]
    """Shown as a ULID: the ``ref_id``."""
    workspace_id: Mapped[Tenant]
    api_key_id: Mapped[UUID | None]
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    """The span that took it in (W3C Trace Context); null where nobody traces."""
    shape: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    mailer_id: Mapped[UUID] = mapped_column(ForeignKey("mailer.id"))
    campaign_id: Mapped[str]
    content: Mapped[dict[str, Any]]
    """A `models.content.Content` as JSON."""
    phishing: Mapped[dict[str, Any] | None]
    """``{"score", "reasons"}`` of content that ``settings.phishing_protection`` had read; null where it was off."""
    contact_id: Mapped[UUID | None]
    deal_id: Mapped[UUID | None]
    customer_id: Mapped[UUID | None]
    sender_user_id: Mapped[UUID | None]
    custom_args: Mapped[dict[str, Any] | None]
    total: Mapped[int] = mapped_column(Integer)
    awaited: Mapped[bool] = mapped_column(Boolean)
    """Somebody holds a request open for the outcome: the worker announces it."""
    send_at: Mapped[datetime | None]
    """Not before this time; what a message that was held back returns to."""
    expires_at: Mapped[datetime | None]
    created_at: Mapped[Created]


class CampaignStatus(enum.StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    """Its queued messages are due `UNTIL_SOMEBODY_ACTS`."""
    CANCELLED = "cancelled"
    """For good: nothing more can be submitted to it."""


class Campaign(Base):
    """A campaign that was named by a submission. Its mails are the messages of all its submissions."""

    __tablename__ = "campaign"

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    """The caller's own ``campaign_id``."""
    status: Mapped[str] = mapped_column(server_default=CampaignStatus.ACTIVE)
    created_at: Mapped[Created]


class Message(Base):
    """One mail to send, to one recipient or to several that share it."""

    __tablename__ = "message"
    __table_args__ = (
        Index("message_due", "mailer_id", "priority", "due_at", postgresql_where=text("due_at is not null")),
        Index("message_submission", "submission_id", "id"),
        Index("message_workspace", "workspace_id", "id"),
        # The four versions of a row on its way must find room on its page, or they touch every index: the old ones stay
        # as long as any transaction that began before. A row that changes four times is no reason for new statistics.
        {
            "postgresql_with": {
                "fillfactor": "35",
                "autovacuum_vacuum_scale_factor": "0.02",
                "autovacuum_analyze_scale_factor": "0.4",
            }
        },
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    submission_id: Mapped[UUID] = mapped_column(ForeignKey("submission.id"))
    mailer_id: Mapped[UUID]
    priority: Mapped[int] = mapped_column(SmallInteger)
    state: Mapped[str] = mapped_column(STATE_TYPE)
    due_at: Mapped[datetime | None]
    lease_id: Mapped[int] = mapped_column(server_default="0")
    """Fencing token: the latest `Lease` it was in. A worker's write under an older one changes nothing."""
    tries: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Attempts put on record so far, the one in flight included."""
    crashes: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Leases that ran out with the message in hand; the third isolates it."""
    recipients: Mapped[list[str]]
    """Envelope recipients, To first, then Cc and Bcc."""
    recipient_name: Mapped[str | None]
    variables: Mapped[dict[str, Any] | None]
    rfc_message_id: Mapped[str]
    """The RFC 5322 Message-ID, with angle brackets; frozen at intake, replaced only by what the provider really
    used.
    """
    provider_message_id: Mapped[str | None]
    provider_thread_id: Mapped[str | None]
    """The provider's conversation id (Gmail)."""
    thread_id: Mapped[UUID | None]
    subject: Mapped[str | None]
    """The rendered subject where it differs from the submission's."""
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(server_default="[]")
    """Finished attempts, oldest first: ``{"at", "outcome", "detail", ...}``."""
    outcomes: Mapped[dict[str, Any] | None]
    """Per recipient, where they differ: ``{address: {"outcome", "detail"}}``.

    Absent recipients are still to be sent.
    """
    reason: Mapped[str | None]
    """Why it is in this state, for a person: the last error, the suppression, who cancelled it."""
    finished_at: Mapped[datetime | None]
    created_at: Mapped[Created]


class Lease(Base):
    """A batch in one worker's hands. Ids only grow, so the id is the fencing token of the messages in it."""

    __tablename__ = "lease"

    id: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    """Name of the `models.worker.WorkerHeartbeat` that holds it."""
    mailer_id: Mapped[UUID]
    priority: Mapped[int] = mapped_column(SmallInteger)
    message_ids: Mapped[list[UUID]]
    expires_at: Mapped[datetime]
    created_at: Mapped[Created]


class Followup(Base):
    """Messages that reached an outcome and are not yet in the log: the outbox of the follow-up.

    Written in the transaction of the outcome and deleted in that of the log rows, so neither can be had without
    the other.
    """

    __tablename__ = "followup"
    __table_args__ = (Index("followup_due", "due_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    message_ids: Mapped[list[UUID]]
    due_at: Mapped[Created]
    tries: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    error: Mapped[str | None]
    created_at: Mapped[Created]
