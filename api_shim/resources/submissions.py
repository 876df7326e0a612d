"""``/v1/submissions`` and ``/v1/messages``: where a request and each of its mails stand."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with
from api_shim.message_filter import MessageFilter
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from models.base import from_ulid, ulid
from models.message import OPEN, UNTIL_SOMEBODY_ACTS, Message, State, Submission

router = APIRouter(tags=["submissions"])


class MessageQuery(MessageFilter):
    """The filter of a list, and its place."""

    model_config = ConfigDict(extra="ignore")

    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


Reader = Annotated[Caller, caller_with("email:read")]


def find_submission(session: Session, caller: Caller, ref_id: str) -> Submission:
    """The caller's submission with this ref_id. Raises NOT_FOUND."""
    key = from_ulid(ref_id)
    row = session.get(Submission, key) if key else None
    if row is None or row.workspace_id != caller.workspace_id:
        raise ApiError("NOT_FOUND", details={"ref_id": ref_id})
    return row


def find_message(session: Session, caller: Caller, message_id: UUID) -> Message:
    """The caller's message. Raises NOT_FOUND."""
    row = session.get(Message, message_id)
    if row is None or row.workspace_id != caller.workspace_id:
        raise ApiError("NOT_FOUND", details={"id": str(message_id)})
    return row


@router.get("/submissions/{ref_id}")
def get_submission(ref_id: str, session: SessionDep, caller: Reader) -> dict[str, Any]:
    """One submission with its messages counted by state."""
    return show_submission(session, find_submission(session, caller, ref_id))


def show_submission(session: Session, row: Submission) -> dict[str, Any]:
    counts = dict.fromkeys((state.value for state in State), 0)
    grouped = select(Message.state, func.count()).where(Message.submission_id == row.id).group_by(Message.state)
    for state, count in session.execute(grouped):
        counts[state] = count
    is_open = any(counts[state] for state in OPEN)
    finished_at = None
    if not is_open:
        finished_at = session.scalar(select(func.max(Message.finished_at)).where(Message.submission_id == row.id))
    return {
        "ref_id": ulid(row.id),
        "status": _status(counts, is_open=is_open),
        "shape": row.shape,
        "priority": row.priority,
        "campaign_id": row.campaign_id,
        "mailer_id": row.mailer_id,
        "counts": counts,
        "total": row.total,
        "custom_args": row.custom_args,
        "phishing": row.phishing,
        "contact_id": row.contact_id,
        "deal_id": row.deal_id,
        "customer_id": row.customer_id,
        "request_id": row.request_id,
        "expires_at": row.expires_at,
        "created_at": row.created_at,
        "finished_at": finished_at,
    }


def _status(counts: dict[str, int], *, is_open: bool) -> str:
    """``queued`` until anything happened, ``sending`` while anything is open, else what became of all: the one
    state, or ``finished``.
    """
    if is_open:
        return "queued" if counts[State.QUEUED] == sum(counts.values()) else "sending"
    states = [state for state, count in counts.items() if count]
    return states[0] if len(states) == 1 else "finished"


@router.get("/messages")
def list_messages(
    session: SessionDep,
    caller: Reader,
    query: Annotated[MessageQuery, Query()],
) -> dict[str, Any]:
    """Messages, newest first, by whatever is known of them."""
    asked = select(Message).where(*query.conditions(caller.workspace_id), *after_id(Message.id, query.cursor))
    rows: Sequence[Message] = session.scalars(asked.order_by(Message.id.desc()).limit(query.limit + 1)).all()
    return page(rows, query.limit, show_message, lambda row: [row.id])


@router.get("/messages/{message_id}")
def get_message(message_id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:
    """One message with every attempt and the provider's answer."""
    return show_message(find_message(session, caller, message_id))


def show_message(row: Message) -> dict[str, Any]:
    waits_for_somebody = row.due_at is not None and row.due_at >= UNTIL_SOMEBODY_ACTS
    return {
        "id": row.id,
        "ref_id": ulid(row.submission_id),
        "state": row.state,
        "priority": row.priority,
        "mailer_id": row.mailer_id,
        "recipients": row.recipients,
        "recipient_name": row.recipient_name,
        "message_id": row.rfc_message_id,
        "provider_message_id": row.provider_message_id,
        "thread_id": row.thread_id,
        "attempts": row.attempts,
        "outcomes": row.outcomes,
        "reason": row.reason,
        "due_at": None if waits_for_somebody else row.due_at and max(row.due_at, row.created_at),
        "held": waits_for_somebody,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }
