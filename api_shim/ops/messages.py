"""The list of messages with its filters, and the search that leads to whatever an id names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, false, func, or_, select, text
from starlette.responses import RedirectResponse, Response

from api_shim.ops.pages import HEADERS, Visit, render
from api_shim.pages import after_id, encode
from models.base import from_ulid
from models.mailer import Mailer
from models.message import OPEN, Campaign, Lease, Message, State, Submission
from models.record import EmailLog

PAGE = 50
SINCE = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}
OURS = re.compile(r"<?postroad([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
"""A Message-ID that we made: it holds the id of the message."""

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row of the list."""

    message: Message
    subject: str
    mailer: str
    provider: str
    error: str


def messages(visit: Visit) -> Response:
    """``GET /ops/messages``."""
    asked = {name: value for name in FILTERS if (value := visit.asked(name))}
    workspace_id = visit.operator.caller.workspace_id
    conditions = [FILTERS[name](value, workspace_id) for name, value in asked.items()]
    cursor = visit.asked("cursor") or None
    query = _query(workspace_id).where(*conditions, *after_id(Message.id, cursor))
    rows = visit.session.execute(query.order_by(Message.id.desc()).limit(PAGE + 1)).all()
    return render(
        visit,
        "messages.html",
        asked=dict.fromkeys(FILTERS, "") | asked,
        filtered=bool(asked),
        rows=[_listed(row) for row in rows[:PAGE]],
        address=f"/ops/messages?{urlencode(asked)}" if asked else "/ops/messages",
        cursor=encode([rows[PAGE - 1][0].id]) if len(rows) > PAGE else None,
        states=[state.value for state in State],
        periods=list(SINCE),
        mailers=_mailers(visit),
    )


def _query(workspace_id: UUID) -> Select[Message, str, str, str]:
    subject = func.coalesce(Message.subject, Submission.content["subject"].astext, "")
    return (
        select(Message, subject.label("subject"), Mailer.name, Mailer.provider)
        .join(Submission, Submission.id == Message.submission_id)
        .join(Mailer, Mailer.id == Message.mailer_id)
        .where(Message.workspace_id == workspace_id)
    )


def _listed(row: Any) -> Listed:
    message, subject, mailer, provider = row
    return Listed(message=message, subject=subject, mailer=mailer, provider=provider, error=last_error(message))


def last_error(message: Message) -> str:
    """Why it is where it is, or what the last attempt that did not succeed was answered."""
    if message.reason:
        return message.reason
    failed = [attempt for attempt in message.attempts if attempt["outcome"] != "accepted"]
    return str(failed[-1].get("detail") or "") if failed else ""


def _mailers(visit: Visit) -> Sequence[Any]:
    mine = (Mailer.workspace_id == visit.operator.caller.workspace_id, Mailer.deleted_at.is_(None))
    return visit.session.execute(select(Mailer.id, Mailer.name).where(*mine).order_by(Mailer.name)).all()


_IN_HAND = select(func.unnest(Lease.message_ids))


def _in_state(value: str, workspace_id: UUID) -> Condition:
    """Common states are found soon among the newest; the others by the index that has them."""
    if value not in set(State):
        return false()
    is_in = Message.state == value
    if value in OPEN:
        return and_(is_in, or_(Message.due_at.is_not(None), Message.id.in_(_IN_HAND)))
    if value in (State.SENT, State.DELIVERED):
        return is_in
    logged = select(EmailLog.message_id).where(EmailLog.workspace_id == workspace_id, EmailLog.status == value)
    return and_(is_in, Message.id.in_(logged))


def _to(value: str, workspace_id: UUID) -> Condition:
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
        or_(Message.due_at.is_not(None), Message.id.in_(_IN_HAND)),
        Message.recipients.overlap([value, key]),
    )
    return Message.id.in_(alone.union_all(shared, waiting))


def _of_campaign(value: str, _: UUID) -> Condition:
    return Submission.campaign_id == value


def _of_submission(value: str, _: UUID) -> Condition:
    key = from_ulid(value)
    return false() if key is None else Message.submission_id == key


def _of_request(value: str, _: UUID) -> Condition:
    return Submission.request_id == value


def _with_id(value: str, workspace_id: UUID) -> Condition:
    """Any of the three ids a mail has: ours, the Message-ID, the provider's."""
    ours = OURS.match(value)
    key = _uuid(ours[1] if ours else value)
    if key is not None:
        return Message.id == key
    foreign = text("rfc_message_id !~ '^<postroad[0-9a-f]{8}-'")
    bracketed = value if value.startswith("<") else f"<{value}>"
    named = select(EmailLog.message_id).where(
        EmailLog.workspace_id == workspace_id,
        or_(and_(EmailLog.rfc_message_id == bracketed, foreign), EmailLog.provider_message_id == value),
    )
    return Message.id.in_(named)


def _over(value: str, _: UUID) -> Condition:
    key = _uuid(value)
    return false() if key is None else Message.mailer_id == key


def _since(value: str, _: UUID) -> Condition:
    """Ids are in the order of time (RFC 9562), so that a period is a range of the list's own index."""
    if value not in SINCE:
        return false()
    millis = int((datetime.now(UTC) - SINCE[value]).timestamp() * 1000)
    return Message.id >= UUID(int=millis << 80)


FILTERS: Mapping[str, Callable[[str, UUID], Condition]] = {
    "state": _in_state,
    "to": _to,
    "campaign": _of_campaign,
    "ref_id": _of_submission,
    "request_id": _of_request,
    "id": _with_id,
    "mailer": _over,
    "since": _since,
}
"""Query parameter -> its condition. What cannot be read finds nothing."""


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def search(visit: Visit) -> Response:
    """``GET /ops/search?q=``: leads to the message, or to the list of what was asked for."""
    asked = visit.asked("q")
    return RedirectResponse(_place(visit, asked), 303, headers=HEADERS)


def _place(visit: Visit, asked: str) -> str:
    if not asked:
        return "/ops/messages"
    workspace_id = visit.operator.caller.workspace_id
    found = visit.session.scalars(
        select(Message.id).where(Message.workspace_id == workspace_id, _with_id(asked, workspace_id)).limit(2)
    ).all()
    if len(found) == 1:
        return f"/ops/messages/{found[0]}"
    campaign = exists().where(Campaign.workspace_id == workspace_id, Campaign.id == asked)
    name = (
        "ref_id" if from_ulid(asked)
        else "id" if asked.startswith("<") or _uuid(asked)
        else "to" if "@" in asked
        else "campaign" if visit.session.scalar(select(campaign))
        else "request_id"
    )  # fmt: skip
    return f"/ops/messages?{urlencode({name: asked})}"
