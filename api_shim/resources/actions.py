"""What can be done to mail that was taken: cancel, retry, reschedule, and decide what became of an uncertain one."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, StrictBool, StringConstraints
from sqlalchemy import update
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.campaigns import Mover, due_under, status_held
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with, services
from api_shim.resources.submissions import find_message, find_submission, show_message, show_submission
from api_shim.shapes.mailer import MAX_AHEAD
from api_shim.text import Line
from models.message import UNTIL_SOMEBODY_ACTS, CampaignStatus, Message, State, Submission
from worker.bell import FOLLOWUP_LANE, Lane, send_lane
from worker.moves import CANCEL, MARK_SENT, RESCHEDULE, RETRY, RETRY_FAILED, SEND_AGAIN, Move, move_one

router = APIRouter(tags=["submissions"])
Sender = Annotated[Caller, caller_with("email:send")]

CANCELLED_BY_REQUEST = "cancelled through the API"


class Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"send_at": "2026-12-01T09:00:00Z"}})

    send_at: AwareDatetime | None
    """Up to 30 days ahead; ``null`` or a time gone by is now."""


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"force": True}})

    force: StrictBool = False
    """For an uncertain message: send it again although it may have arrived."""


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"provider_message_id": "0100018c"}})

    provider_message_id: Annotated[Line, StringConstraints(min_length=1)] | None = None
    """The provider's own id of the mail, where you know it."""


@router.post("/submissions/{ref_id}/cancel")
def cancel_submission(ref_id: str, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Cancels what has not been sent. Answers when no more can leave, with what became of each message."""
    row = find_submission(session, caller, ref_id)
    audit(session, caller, "submission.cancelled", ref_id)
    session.commit()
    mover = Mover(session=session, submissions=[(row.id, row.total)])
    cancelled = mover.stop(CANCEL, reason=CANCELLED_BY_REQUEST)
    _ring(request, FOLLOWUP_LANE)
    return {"ref_id": ref_id, "cancelled": cancelled, **mover.ledger()}


@router.post("/submissions/{ref_id}/retry-failed")
def retry_submission(ref_id: str, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Sends what has failed again, with all attempts anew."""
    row = find_submission(session, caller, ref_id)
    due = _due(session, row, datetime.now(UTC))
    audit(session, caller, "submission.failed_retried", ref_id)
    session.commit()
    mover = _in_its_campaign(session, row, due)
    count, lanes = mover.go(RETRY_FAILED, due=due, reason="retried through the API")
    _ring(request, *lanes)
    return {"ref_id": ref_id, "retried": count}


@router.patch("/submissions/{ref_id}")
def reschedule(ref_id: str, body: Schedule, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Sets another time for what no worker has taken yet; 409 if there is nothing left to reschedule."""
    row = find_submission(session, caller, ref_id)
    send_at = _checked(body.send_at, row)
    parked = _due(session, row, datetime.now(UTC)) >= UNTIL_SOMEBODY_ACTS
    session.execute(update(Submission).where(Submission.id == row.id).values(send_at=send_at))
    audit(session, caller, "submission.rescheduled", ref_id, send_at=send_at.isoformat() if send_at else None)
    mover = Mover(session=session, submissions=[(row.id, row.total)])
    # What a paused campaign holds back takes the new time when it is resumed.
    count, lanes = mover.go(RESCHEDULE, due=send_at or datetime.now(UTC))
    session.refresh(row)
    shown = show_submission(session, row)
    if not count and not (parked and shown["counts"][State.QUEUED]):
        reason = "none of its messages is queued any more; see counts"
        raise ApiError("CONFLICT", details={"ref_id": ref_id, "counts": shown["counts"], "reason": reason})
    _ring(request, *lanes)
    return {**shown, "send_at": send_at, "rescheduled": count}


@router.post("/messages/{message_id}/cancel")
def cancel_message(message_id: UUID, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Cancels a message that is not on the wire yet; 409 with its state if it is too late."""
    row = find_message(session, caller, message_id)
    shown = _moved(session, caller, row, CANCEL, "cancelled", reason=CANCELLED_BY_REQUEST)
    _ring(request, FOLLOWUP_LANE)
    return shown


@router.post("/messages/{message_id}/retry")
def retry_message(
    message_id: UUID, request: Request, session: SessionDep, caller: Sender, body: Retry | None = None
) -> dict[str, Any]:
    """Sends a failed or suppressed message again, with all attempts anew.

    An uncertain one that waits for a decision needs ``{"force": true}``: it may have arrived already.
    """
    force = body is not None and body.force
    row = find_message(session, caller, message_id)
    if row.state == State.UNCERTAIN and not force:
        reason = (
            "the provider may have taken this mail, so that sending it again may deliver it twice; look it up there,"
            ' then POST mark-sent, or retry with {"force": true}'
        )
        raise ApiError("CONFLICT", details={"id": str(message_id), "state": row.state, "reason": reason})
    submission = session.get_one(Submission, row.submission_id)
    due = _due(session, submission, datetime.now(UTC))
    why = "sent again although it may have arrived" if row.state == State.UNCERTAIN else "retried through the API"
    shown = _moved(session, caller, row, SEND_AGAIN if force else RETRY, "retried", due=due, reason=why)
    _ring(request, _lane(row))
    return shown


@router.post("/messages/{message_id}/mark-sent")
def mark_sent(
    message_id: UUID, request: Request, session: SessionDep, caller: Sender, body: Sent | None = None
) -> dict[str, Any]:
    """Decides that an uncertain message, which waits for a decision, has arrived at the provider."""
    row = find_message(session, caller, message_id)
    values = {"provider_message_id": body.provider_message_id if body else None}
    shown = _moved(
        session, caller, row, MARK_SENT, "marked_sent", outcome="marked_sent", reason="marked as sent", **values
    )
    _ring(request, FOLLOWUP_LANE)
    return shown


def _moved(session: Session, caller: Caller, row: Message, move: Move, done: str, **values: Any) -> dict[str, Any]:
    """Moves one message and commits. Raises CONFLICT naming its state where that does not allow it."""
    moved = move_one(session, move, row.id, **values)
    if moved is None:
        session.refresh(row)
        shown = show_message(row)
        details = {"id": str(row.id), "state": row.state, "held": shown["held"], "reason": _why_not(row, move)}
        raise ApiError("CONFLICT", details=details)
    audit(session, caller, f"message.{done}", str(row.id), was=row.state, reason=values.get("reason"))
    session.commit()
    session.refresh(row)
    return show_message(row)


def _why_not(row: Message, move: Move) -> str:
    if row.state == State.UNCERTAIN and move is not CANCEL:
        return "the provider is still being asked what became of it; wait until the message is held"
    return f"a message that is {row.state} cannot be changed in this way, nor retried once its mailer was deleted"


def _due(session: Session, row: Submission, due: datetime) -> datetime:
    """When its messages are due if they go back to the queue. Raises CONFLICT in a cancelled campaign."""
    status = status_held(session, row.workspace_id, row.campaign_id)
    if status == CampaignStatus.CANCELLED:
        reason = "its campaign is cancelled, which is for good; send it again under another campaign_id"
        raise ApiError("CONFLICT", details={"campaign_id": row.campaign_id, "status": status, "reason": reason})
    return due_under(status, due)


def _in_its_campaign(session: Session, row: Submission, due: datetime) -> Mover:
    """Moves the submission's messages as long as its campaign is as it was when ``due`` was found."""

    def still_wanted() -> bool:
        parked = status_held(session, row.workspace_id, row.campaign_id) != CampaignStatus.ACTIVE
        return parked == (due >= UNTIL_SOMEBODY_ACTS)

    return Mover(session=session, submissions=[(row.id, row.total)], still_wanted=still_wanted)


def _checked(send_at: datetime | None, row: Submission) -> datetime | None:
    """Raises VALIDATION_ERROR for a time too far off, or after the mail has expired."""
    if send_at is None:
        return None
    if send_at > datetime.now(UTC) + MAX_AHEAD:
        fault = Fault(
            "send_at", f"{send_at.isoformat()} is more than {MAX_AHEAD.days} days ahead; send an earlier time"
        )
        raise ApiError("VALIDATION_ERROR", faults=[fault])
    if row.expires_at is not None and send_at >= row.expires_at:
        expires_at = row.expires_at.isoformat()
        fault = Fault("send_at", f"{send_at.isoformat()} is not before expires_at, {expires_at}; send an earlier time")
        raise ApiError("VALIDATION_ERROR", faults=[fault])
    return send_at


def _lane(row: Message) -> Lane:
    return send_lane(row.mailer_id, row.priority)


def _ring(request: Request, *lanes: Lane) -> None:
    for lane in lanes:
        services(request).ringer.ring(lane)
