"""What messages can be asked for by: for lists, for acting on many at once, and for the dashboard.

Every condition leads to its rows by an index of its own, or is one that the newest messages soon satisfy.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import ColumnElement, and_, false, func, or_, select, text

from api_shim.errors import ApiError, Fault
from api_shim.text import Line
from models.base import from_ulid
from models.message import OPEN, Followup, Lease, Message, State, Submission
from models.record import EmailLog
from worker.bell import PRIORITIES

Condition = ColumnElement[bool]

OURS = re.compile(r"<?postroad([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
"""A Message-ID that we made: it holds the id of the message."""

_IN_HAND = select(func.unnest(Lease.message_ids))
_OUTBOX = select(func.unnest(Followup.message_ids))


class MessageFilter(BaseModel):
    """All that is given must hold. ``since`` and ``until`` are about when a message was accepted."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    ref_id: Line | None = None
    queue: Literal["send.high", "send.normal"] | None = None
    mailer_id: UUID | None = None
    campaign_id: Line | None = None
    recipient: Line | None = None
    """The whole address, in either case."""
    contact_id: UUID | None = None
    deal_id: UUID | None = None
    customer_id: UUID | None = None
    request_id: Line | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def conditions(self, workspace_id: UUID) -> list[Condition]:
        """The workspace's messages that fit. Raises VALIDATION_ERROR for a ref_id that is none."""
        if self.ref_id is not None and from_ulid(self.ref_id) is None:
            fault = Fault("ref_id", f"{self.ref_id!r} is not a ULID of 26 characters")
            raise ApiError("VALIDATION_ERROR", faults=[fault])
        asked = ((name, getattr(self, name)) for name in CONDITIONS)
        found = [CONDITIONS[name](value, workspace_id) for name, value in asked if value is not None]
        return [Message.workspace_id == workspace_id, *found]

    def told(self) -> dict[str, Any]:
        """What was asked for, for the audit trail."""
        return self.model_dump(mode="json", exclude_none=True)


def in_state(value: str, workspace_id: UUID) -> Condition:
    """Common states are found soon among the newest; the others by the index that has them."""
    if value not in set(State):
        return false()
    is_in = Message.state == value
    if value in OPEN:
        return and_(is_in, or_(Message.due_at.is_not(None), Message.id.in_(_IN_HAND)))
    if value in (State.SENT, State.DELIVERED):
        return is_in
    logged = select(EmailLog.message_id).where(EmailLog.workspace_id == workspace_id, EmailLog.status == value)
    return and_(is_in, Message.id.in_(logged.union_all(_OUTBOX)))


def to_recipient(value: str, workspace_id: UUID) -> Condition:
    """The whole address, in either case: in the log, or still on its way."""
    key = value.lower()
    alone = select(EmailLog.message_id).where(
        EmailLog.workspace_id == workspace_id, func.lower(EmailLog.recipient_email) == key
    )
    shared = select(EmailLog.message_id).where(
        EmailLog.workspace_id == workspace_id,
        func.cardinality(EmailLog.recipients) > 1,
        EmailLog.recipients.overlap([value, key]),
    )
    waiting = select(Message.id).where(
        Message.workspace_id == workspace_id,
        or_(Message.due_at.is_not(None), Message.id.in_(_IN_HAND), Message.id.in_(_OUTBOX)),
        Message.recipients.overlap([value, key]),
    )
    return Message.id.in_(alone.union_all(shared, waiting))


def of_submission(value: str, _: UUID) -> Condition:
    key = from_ulid(value)
    return false() if key is None else Message.submission_id == key


def of_mailer(value: Any, _: UUID) -> Condition:
    key = as_uuid(value)
    return false() if key is None else Message.mailer_id == key


def of_queue(value: str, _: UUID) -> Condition:
    return Message.priority == int(PRIORITIES[value]) if value in PRIORITIES else false()


def with_id(value: str, workspace_id: UUID) -> Condition:
    """Any of the three ids a mail has: ours, the Message-ID, the provider's."""
    ours = OURS.match(value)
    key = as_uuid(ours[1] if ours else value)
    if key is not None:
        return Message.id == key
    foreign = text("rfc_message_id !~ '^<postroad[0-9a-f]{8}-'")
    bracketed = value if value.startswith("<") else f"<{value}>"
    named = select(EmailLog.message_id).where(
        EmailLog.workspace_id == workspace_id,
        or_(and_(EmailLog.rfc_message_id == bracketed, foreign), EmailLog.provider_message_id == value),
    )
    return Message.id.in_(named)


def accepted_since(value: datetime, _: UUID) -> Condition:
    """Ids are in the order of time (RFC 9562), so that a period is a range of the list's own index."""
    return Message.id >= _first_id(value)


def accepted_until(value: datetime, _: UUID) -> Condition:
    return Message.id < _first_id(value)


def _first_id(moment: datetime) -> UUID:
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def submitted_with(column: str) -> Callable[[Any, UUID], Condition]:
    """The condition on a column of the submission; ids may come as text."""
    named = getattr(Submission, column)

    def condition(value: Any, workspace_id: UUID) -> Condition:
        wanted = as_uuid(value) if column in ("contact_id", "deal_id", "customer_id") else value
        if wanted is None:
            return false()
        return Message.submission_id.in_(
            select(Submission.id).where(Submission.workspace_id == workspace_id, named == wanted)
        )

    return condition


def as_uuid(value: Any) -> UUID | None:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError:
        return None


CONDITIONS: Mapping[str, Callable[[Any, UUID], Condition]] = {
    "state": in_state,
    "ref_id": of_submission,
    "queue": of_queue,
    "mailer_id": of_mailer,
    "campaign_id": submitted_with("campaign_id"),
    "recipient": to_recipient,
    "contact_id": submitted_with("contact_id"),
    "deal_id": submitted_with("deal_id"),
    "customer_id": submitted_with("customer_id"),
    "request_id": submitted_with("request_id"),
    "since": accepted_since,
    "until": accepted_until,
}
"""Field of a `MessageFilter` -> its condition."""
