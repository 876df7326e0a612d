"""A mail once more: its source as a file, and the same content sent anew."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.campaigns import due_under, status_held
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with, services
from api_shim.ops.mail import source
from api_shim.resources.submissions import Reader, find_message, show_message
from api_shim.services import Services
from models.base import uuid7
from models.content import message_id_for
from models.mailer import Mailer
from models.message import CampaignStatus, Message, Priority, State, Submission
from worker.bell import SEND_QUEUES, send_lane
from worker.meter import Cell, add
from worker.series import ACCEPTED
from worker.template import CompositionError

router = APIRouter(tags=["submissions"])
Sender = Annotated[Caller, caller_with("email:send")]

# Everything that intake decided stays; ids, times and outcomes are new.
_SUBMISSION = text("""
    insert into submission (id, workspace_id, api_key_id, request_id, shape, priority, mailer_id, campaign_id, content,
        phishing, contact_id, deal_id, customer_id, sender_user_id, custom_args, total, awaited)
    select :new, workspace_id, :key, :request_id, shape, priority, :mailer_id, campaign_id, content,
        phishing, contact_id, deal_id, customer_id, sender_user_id, custom_args, 1, false
    from submission where id = :old and workspace_id = :workspace_id
""")


@router.get(
    "/messages/{message_id}/raw",
    response_class=Response,
    responses={200: {"content": {"message/rfc822": {"schema": {"type": "string"}}}}},
)
def raw_message(message_id: UUID, request: Request, session: SessionDep, caller: Reader) -> Response:
    """The mail as a file (RFC 5322), composed once more: same content, without tracking, dated at its outcome."""
    row = find_message(session, caller, message_id)
    raw = raw_of(session, row, services(request))
    headers = {"Content-Disposition": f'attachment; filename="{row.id}.eml"'}
    return Response(raw, media_type="message/rfc822", headers=headers)


@router.post("/messages/{message_id}/redeliver", status_code=202)
def redeliver_message(message_id: UUID, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Sends the same mail to the same recipients as a new message, whatever became of the first."""
    row = find_message(session, caller, message_id)
    copy = redeliver(session, caller, row, request.scope.get("request_id"))
    services(request).ringer.ring(send_lane(copy.mailer_id, copy.priority))
    return show_message(copy)


def raw_of(session: Session, row: Message, opened: Services) -> bytes:
    """The source of a mail. Raises CONFLICT where it cannot be composed."""
    submission = session.get_one(Submission, row.submission_id)
    try:
        return source(session, submission, row, opened)
    except CompositionError as error:
        raise ApiError("CONFLICT", details={"reason": f"The mail cannot be composed: {error}."}) from error


def redeliver(session: Session, caller: Caller, row: Message, request_id: str | None) -> Message:
    """Commits the copy, under a Message-ID of its own. Raises CONFLICT if its mailer or its campaign is gone."""
    submission = session.get_one(Submission, row.submission_id)
    mailer = session.get_one(Mailer, row.mailer_id)
    status = status_held(session, row.workspace_id, submission.campaign_id)
    if mailer.deleted_at is not None:
        raise ApiError("CONFLICT", details={"id": str(row.id), "reason": "its mailer was deleted; submit it anew"})
    if status == CampaignStatus.CANCELLED:
        reason = "its campaign is cancelled, which is for good; submit it under another campaign_id"
        raise ApiError("CONFLICT", details={"campaign_id": submission.campaign_id, "reason": reason})
    session.execute(
        _SUBMISSION,
        {
            "new": (new := uuid7()),
            "old": submission.id,
            "workspace_id": caller.workspace_id,
            "key": caller.key_id,
            "request_id": request_id,
            "mailer_id": row.mailer_id,
        },
    )
    copy = _copied(session, row, new)
    counted = Cell(ACCEPTED.name, (SEND_QUEUES[Priority(row.priority)], submission.shape))
    add(session.connection(), [(counted, 1)])
    copy.due_at = due_under(status, copy.created_at)
    audit(session, caller, "message.redelivered", str(row.id), copy=str(copy.id))
    session.commit()
    return copy


def _copied(session: Session, row: Message, submission_id: UUID) -> Message:
    now = session.execute(text("select clock_timestamp()")).scalar_one()
    id_ = uuid7()
    domain = row.rfc_message_id.rpartition("@")[2].rstrip(">")
    copy = Message(
        id=id_,
        workspace_id=row.workspace_id,
        submission_id=submission_id,
        mailer_id=row.mailer_id,
        priority=row.priority,
        state=State.QUEUED,
        recipients=row.recipients,
        recipient_name=row.recipient_name,
        variables=row.variables,
        rfc_message_id=message_id_for(id_, domain, None),
        thread_id=row.thread_id,
        created_at=now,
    )
    session.add(copy)
    return copy
