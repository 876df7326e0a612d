"""Campaigns: how far each is, and holding it, letting it go on, cancelling it, retrying what failed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from starlette.responses import Response

from api_shim.campaigns import submissions_of
from api_shim.ops.pages import Form, Visit, render
from api_shim.ops.words import number_of
from api_shim.pages import after, encode
from api_shim.resources.campaigns import cancel_campaign, pause_campaign, resume_campaign, retry_failed
from models.message import OPEN, Campaign, CampaignStatus
from worker.moves import count_states

PAGE = 20
"""Few, because the messages of each are counted."""
RATE_MINUTES = 2

_FINISHED = text("""
    select count(*) from email_log where workspace_id = :workspace_id and campaign_id = :id
                                     and finished_at > statement_timestamp() - make_interval(mins => :minutes)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A state's stretch of a progress bar that is 100 long."""

    state: str
    count: int
    start: float
    length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A campaign and its messages by state; states without any are left out."""

    campaign: Campaign
    total: int
    open: int
    """Messages that still want something done."""
    failed: int
    parts: Sequence[Part]
    per_minute: float
    """Mails that reached an outcome, over the last minutes."""

    @property
    def left(self) -> timedelta | None:
        """How long the rest takes if it goes on like this."""
        goes_on = self.open and self.per_minute and self.campaign.status == CampaignStatus.ACTIVE
        return timedelta(minutes=self.open / self.per_minute) if goes_on else None

    @property
    def can(self) -> frozenset[str]:
        """What can be done to it now."""
        if self.campaign.status == CampaignStatus.CANCELLED:
            return frozenset()
        turn = "resume" if self.campaign.status == CampaignStatus.PAUSED else "pause"
        possible = {turn: self.open or turn == "resume", "cancel": self.open, "retry": self.failed}
        return frozenset(name for name, is_possible in possible.items() if is_possible)


def campaigns(visit: Visit) -> Response:
    """``GET /ops/campaigns``."""
    workspace_id = visit.operator.caller.workspace_id
    kinds: list[Callable[[Any], Any]] = [datetime.fromisoformat, str]
    newest_first = (Campaign.created_at.desc(), Campaign.id.desc())
    beyond = after([Campaign.created_at, Campaign.id], visit.asked("cursor") or None, kinds)
    query = select(Campaign).where(Campaign.workspace_id == workspace_id, *beyond).order_by(*newest_first)
    rows = visit.session.scalars(query.limit(PAGE + 1)).all()
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return render(
        visit,
        "campaigns.html",
        rows=[_progress(visit, row) for row in rows[:PAGE]],
        cursor=encode([last.created_at.isoformat(), last.id]) if last else None,
    )


def _progress(visit: Visit, row: Campaign) -> Progress:
    submissions = submissions_of(visit.session, row.workspace_id, row.id)
    counts = count_states(visit.session, [id_ for id_, _ in submissions])
    return Progress(
        campaign=row,
        total=sum(counts.values()),
        open=sum(counts[state] for state in OPEN),
        failed=counts["failed"],
        parts=parts(counts),
        per_minute=_per_minute(visit, row),
    )


def _per_minute(visit: Visit, row: Campaign) -> float:
    named = {"workspace_id": row.workspace_id, "id": row.id, "minutes": RATE_MINUTES}
    return float(visit.session.execute(_FINISHED, named).scalar_one()) / RATE_MINUTES


def parts(counts: Mapping[str, int]) -> list[Part]:
    """The stretches of a progress bar, in the order of the states."""
    total = sum(counts.values())
    found: list[Part] = []
    start = 0.0
    for state, count in counts.items():
        if count:
            length = 100 * count / total
            found.append(Part(state=state, count=count, start=start, length=length))
            start += length
    return found


def pause(visit: Visit, form: Form) -> str:
    answer = pause_campaign(form.get("id", ""), visit.session, visit.operator.caller)
    wire = f" On the wire at this moment: {answer['in_flight']}." if answer["in_flight"] else ""
    return f"Paused. Held back: {number_of(answer['paused'], 'mail')}.{wire}"


def resume(visit: Visit, form: Form) -> str:
    answer = resume_campaign(form.get("id", ""), visit.request, visit.session, visit.operator.caller)
    return f"Goes on. Due again: {number_of(answer['resumed'], 'mail')}."


def cancel(visit: Visit, form: Form) -> str:
    answer = cancel_campaign(form.get("id", ""), visit.request, visit.session, visit.operator.caller)
    return f"Cancelled for good: {number_of(answer['cancelled'], 'mail')}. Sent before: {answer['sent']}."


def retry(visit: Visit, form: Form) -> str:
    answer = retry_failed(form.get("id", ""), visit.request, visit.session, visit.operator.caller)
    return f"Back in the queue: {number_of(answer['retried'], 'mail')} that had failed."
