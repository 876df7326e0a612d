"""``/v1/campaigns``: how far a campaign is, and holding it, letting it go on, cancelling it, retrying what failed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.campaigns import Mover, due_under, set_status, status_held, submissions_of
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, decode, page
from api_shim.text import Line
from models.event import ENGAGEMENT, ENGAGEMENT_TYPES
from models.message import OPEN, Campaign, CampaignStatus, Message, Submission
from worker.bell import FOLLOWUP_LANE, Lane
from worker.moves import CANCEL, LET_GO, PARK, RETRY_FAILED, count_states

router = APIRouter(prefix="/campaigns", tags=["campaigns"])
Reader = Annotated[Caller, caller_with("campaigns:read")]
Writer = Annotated[Caller, caller_with("campaigns:write")]
CampaignId = Annotated[Line, Path(description="The campaign_id of your sends, URL-encoded.")]

_ENGAGED = text(f"""
    select event.type, count(*) as number,
           count(*) filter (where not coalesce((event.data->>'is_bot')::boolean, false)) as by_people
    from unnest(cast(:submissions as uuid[])) as asked (id) join event on event.submission_id = asked.id
    where event.{ENGAGEMENT_TYPES} group by event.type
""")  # noqa: S608 -- constants


def find_campaign(session: Session, caller: Caller, campaign_id: str) -> Campaign:
    """The caller's campaign. Raises NOT_FOUND."""
    query = select(Campaign).where(Campaign.workspace_id == caller.workspace_id, Campaign.id == campaign_id)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"campaign_id": campaign_id})
    return row


@router.get("")
def list_campaigns(
    session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Campaigns in the order of their ids. The numbers of one are at the campaign itself."""
    query = select(Campaign).where(Campaign.workspace_id == caller.workspace_id)
    if cursor is not None:
        query = query.where(Campaign.id > decode(cursor, [str])[0])
    rows: Sequence[Campaign] = session.scalars(query.order_by(Campaign.id).limit(limit + 1)).all()
    return page(rows, limit, _show, lambda row: [row.id])


@router.get("/{id:path}")
def get_campaign(id: CampaignId, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- in the path
    """A campaign with its messages counted by state, and what recipients did with them.

    ``opened``, ``clicked`` and so on count every event; ``without_bots`` leaves out scanners and prefetching.
    """
    row = find_campaign(session, caller, id)
    submissions = [submission_id for submission_id, _ in submissions_of(session, caller.workspace_id, id)]
    counts = count_states(session, submissions)
    finished_at = None if any(counts[state] for state in OPEN) else _finished_at(session, caller, id)
    return {
        **_show(row),
        "counts": counts,
        "total": sum(counts.values()),
        "submissions": len(submissions),
        **_engagement(session, submissions),
        "finished_at": finished_at,
    }


def _show(row: Campaign) -> dict[str, Any]:
    return {"id": row.id, "status": row.status, "created_at": row.created_at}


def _finished_at(session: Session, caller: Caller, campaign_id: str) -> datetime | None:
    of_campaign = (Submission.workspace_id == caller.workspace_id, Submission.campaign_id == campaign_id)
    messages = select(func.max(Message.finished_at)).join(Submission, Submission.id == Message.submission_id)
    return session.scalar(messages.where(*of_campaign))


def _engagement(session: Session, submissions: list[UUID]) -> dict[str, Any]:
    rows = session.execute(_ENGAGED, {"submissions": submissions}).all()
    zeros = dict.fromkeys((each.value for each in ENGAGEMENT), 0)
    return {
        **zeros,
        **{row.type: row.number for row in rows},
        "without_bots": {**zeros, **{row.type: row.by_people for row in rows}},
    }


@router.post("/{id:path}/pause")
def pause_campaign(id: CampaignId, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Holds the campaign's mail back. Answers when none of it can leave any more, with what became of each message.

    ``in_flight`` is above 0 only where a provider has not answered within 15 s.
    """
    mover = _changed(session, caller, id, CampaignStatus.PAUSED)
    return {**_show(find_campaign(session, caller, id)), "paused": mover.stop(PARK), **mover.ledger()}


@router.post("/{id:path}/resume")
def resume_campaign(id: CampaignId, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Lets a paused campaign go on, in the order in which it was submitted; mail scheduled for later keeps its time."""
    mover = _changed(session, caller, id, CampaignStatus.ACTIVE)
    count, lanes = mover.go(LET_GO, due=datetime.now(UTC))
    _ring(request, lanes)
    return {**_show(find_campaign(session, caller, id)), "resumed": count, **mover.ledger()}


@router.post("/{id:path}/cancel")
def cancel_campaign(id: CampaignId, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Cancels for good what has not been sent. Answers when no more can leave, with what became of each message."""
    mover = _changed(session, caller, id, CampaignStatus.CANCELLED)
    cancelled = mover.stop(CANCEL, reason="its campaign was cancelled")
    _ring(request, {FOLLOWUP_LANE})
    return {**_show(find_campaign(session, caller, id)), "cancelled": cancelled, **mover.ledger()}


@router.post("/{id:path}/retry-failed")
def retry_failed(id: CampaignId, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Sends what has failed again, with all attempts anew. In a paused campaign it waits for the resumption."""
    row = find_campaign(session, caller, id)
    if row.status == CampaignStatus.CANCELLED:
        raise _cancelled(id)
    audit(session, caller, "campaign.failed_retried", id)
    session.commit()
    status = row.status
    mover = Mover(
        session=session,
        submissions=submissions_of(session, caller.workspace_id, id),
        still_wanted=lambda: status_held(session, caller.workspace_id, id) == status,
    )
    due = due_under(status, datetime.now(UTC))
    count, lanes = mover.go(RETRY_FAILED, due=due, reason="retried with its campaign")
    _ring(request, lanes)
    return {**_show(row), "retried": count}


def _changed(session: Session, caller: Caller, campaign_id: str, status: CampaignStatus) -> Mover:
    """The campaign in its new status, which is committed, and what moves its mail as long as it stays so."""
    find_campaign(session, caller, campaign_id)
    if set_status(session, caller.workspace_id, campaign_id, status) != status:
        raise _cancelled(campaign_id)
    done = "resumed" if status == CampaignStatus.ACTIVE else status.value
    audit(session, caller, f"campaign.{done}", campaign_id)
    session.commit()
    return Mover(
        session=session,
        submissions=submissions_of(session, caller.workspace_id, campaign_id),
        still_wanted=lambda: status_held(session, caller.workspace_id, campaign_id) == status,
    )


def _cancelled(campaign_id: str) -> ApiError:
    reason = "the campaign is cancelled, which is for good; send what is missing under another campaign_id"
    return ApiError("CONFLICT", details={"campaign_id": campaign_id, "status": "cancelled", "reason": reason})


def _ring(request: Request, lanes: frozenset[Lane] | set[Lane]) -> None:
    for lane in lanes:
        services(request).ringer.ring(lane)
