"""``/v1/email/logs``: what was sent, to whom, and what became of it."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy import ColumnElement, any_, func, select, union

from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.resources.linked import LinkedTo
from api_shim.text import Email, Line
from models.base import from_ulid, ulid
from models.message import State
from models.record import EmailLog

router = APIRouter(prefix="/email/logs", tags=["logs"])
Reader = Annotated[Caller, caller_with("email:read")]
Kind = Literal["single", "shared", "campaign", "reply"]


def _to(workspace_id: UUID, address: str) -> ColumnElement[bool]:
    """Mails to the address, in either case; as one of several recipients, as it was written or in lower case."""
    spellings = list({address, address.lower()})
    in_workspace = EmailLog.workspace_id == workspace_id
    alone = select(EmailLog.message_id).where(in_workspace, func.lower(EmailLog.recipient_email) == address.lower())
    among_others = select(EmailLog.message_id).where(
        in_workspace, func.cardinality(EmailLog.recipients) > 1, EmailLog.recipients.overlap(spellings)
    )
    # As an array, which is found first: as an "or" the planner may rather walk through the whole log in order.
    return EmailLog.message_id == any_(func.array(union(alone, among_others).scalar_subquery()))


def _of_submission(ref_id: str) -> ColumnElement[bool]:
    key = from_ulid(ref_id)
    if key is None:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("ref_id", f"{ref_id!r} is not a ULID of 26 characters")])
    return EmailLog.submission_id == key


@router.get("")
def list_logs(
    *,
    session: SessionDep,
    caller: Reader,
    linked: LinkedTo,
    status: State | None = None,
    kind: Annotated[Kind | None, Query(alias="type")] = None,
    provider: Line | None = None,
    campaign_id: Line | None = None,
    ref_id: Annotated[Line | None, Query(description="ULID of the submission.")] = None,
    recipient: Annotated[Email | None, Query(description="A recipient's whole address.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Sent mails, the newest first; those that were not sent in the end are here too, with the reason."""
    query = select(EmailLog).where(
        EmailLog.workspace_id == caller.workspace_id,
        *linked.conditions(EmailLog),
        *after_id(EmailLog.message_id, cursor),
    )
    wanted = (
        (EmailLog.status, status),
        (EmailLog.type, kind),
        (EmailLog.provider, provider),
        (EmailLog.campaign_id, campaign_id),
    )
    query = query.where(*(column == value for column, value in wanted if value is not None))
    if ref_id is not None:
        query = query.where(_of_submission(ref_id))
    if recipient is not None:
        query = query.where(_to(caller.workspace_id, recipient))
    rows: Sequence[EmailLog] = session.scalars(query.order_by(EmailLog.message_id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show_log, lambda row: [row.message_id])


@router.get("/{message_id}")
def get_log(message_id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:
    """The log row of one message. There is none before the message reached an outcome."""
    row = session.get(EmailLog, message_id)
    if row is None or row.workspace_id != caller.workspace_id:
        raise ApiError("NOT_FOUND", details={"id": str(message_id)})
    return show_log(row)


def show_log(row: EmailLog) -> dict[str, Any]:
    return {
        "id": row.message_id,
        "ref_id": ulid(row.submission_id),
        "message_id": row.rfc_message_id,
        "provider_message_id": row.provider_message_id,
        "type": row.type,
        "status": row.status,
        "subject": row.subject,
        "recipient_email": row.recipient_email,
        "recipients": row.recipients,
        "cc": row.cc,
        "sender_email": row.sender_email,
        "sender_user_id": row.sender_user_id,
        "provider": row.provider,
        "mailer_id": row.mailer_id,
        "thread_id": row.thread_id,
        "contact_id": row.contact_id,
        "deal_id": row.deal_id,
        "customer_id": row.customer_id,
        "campaign_id": row.campaign_id,
        "priority": row.priority,
        "has_attachment": row.attachment_filename is not None,
        "attachment_filename": row.attachment_filename,
        "error": row.error,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }
