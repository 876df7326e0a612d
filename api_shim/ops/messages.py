"""The list of messages with its filters, and the search that leads to whatever an id names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import Select, exists, false, func, select
from starlette.responses import RedirectResponse, Response

from api_shim.bulk import ORDERS, Bulk
from api_shim.errors import ApiError, Fault
from api_shim.message_filter import (
    Condition,
    accepted_since,
    as_uuid,
    in_state,
    of_mailer,
    of_queue,
    of_submission,
    submitted_with,
    to_recipient,
    with_id,
)
from api_shim.ops.pages import HEADERS, Form, Visit, render
from api_shim.ops.words import count, number_of
from api_shim.pages import after_id, encode
from api_shim.resources.bulk import carry_out
from models.base import from_ulid
from models.mailer import Mailer
from models.message import Campaign, Message, State, Submission
from worker.bell import PRIORITIES

PAGE = 50
SINCE = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row of the list."""

    message: Message
    subject: str
    mailer: str
    provider: str
    error: str


def messages(visit: Visit) -> Response:
    """``GET /ops/messages``; with ``?preview=cancel`` or ``retry`` it also counts what that would be about."""
    asked = _asked(visit.asked)
    workspace_id = visit.operator.caller.workspace_id
    conditions = [FILTERS[name](value, workspace_id) for name, value in asked.items()]
    cursor = visit.asked("cursor") or None
    query = _query(workspace_id).where(*conditions, *after_id(Message.id, cursor))
    rows = visit.session.execute(query.order_by(Message.id.desc()).limit(PAGE + 1)).all()
    preview = visit.asked("preview") if asked and visit.asked("preview") in ORDERS else ""
    return render(
        visit,
        "messages.html",
        asked=dict.fromkeys(FILTERS, "") | asked,
        given=asked,
        rows=[_listed(row) for row in rows[:PAGE]],
        address=f"/ops/messages?{urlencode(asked)}" if asked else "/ops/messages",
        cursor=encode([rows[PAGE - 1][0].id]) if len(rows) > PAGE else None,
        states=[state.value for state in State],
        queues=list(PRIORITIES),
        periods=list(SINCE),
        mailers=_mailers(visit),
        preview=preview,
        matched=_bulk(visit, preview, asked).count() if preview else 0,
    )


def many(visit: Visit, form: Form) -> str:
    """``order``: ``cancel`` or ``retry``, about all that fits the filter in the other fields."""
    asked, order = _asked(lambda name: form.get(name, "").strip()), form.get("order", "")
    visit.operator.caller.require("email:send")
    if not asked or order not in ORDERS:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("order", "Say what to do, and which mails are meant.")])
    done = carry_out(order, _bulk(visit, order, asked), visit.request, visit.operator.caller, asked)
    what = {"cancel": "Cancelled for good", "retry": "Back in the queue"}[order]
    return f"{what}: {number_of(done['updated'], 'mail')} of {count(done['matched'])}."


def _asked(given: Callable[[str], str]) -> dict[str, str]:
    return {name: value for name in FILTERS if (value := given(name))}


def _bulk(visit: Visit, order: str, asked: Mapping[str, str]) -> Bulk:
    workspace_id = visit.operator.caller.workspace_id
    conditions = [FILTERS[name](value, workspace_id) for name, value in asked.items()]
    mine = [Message.workspace_id == workspace_id, *conditions]
    return Bulk(session=visit.session, workspace_id=workspace_id, conditions=mine, order=ORDERS[order])


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


def _since(value: str, workspace_id: UUID) -> Condition:
    return accepted_since(datetime.now(UTC) - SINCE[value], workspace_id) if value in SINCE else false()


FILTERS: Mapping[str, Callable[[str, UUID], Condition]] = {
    "state": in_state,
    "queue": of_queue,
    "mailer": of_mailer,
    "since": _since,
    "to": to_recipient,
    "campaign": submitted_with("campaign_id"),
    "contact": submitted_with("contact_id"),
    "deal": submitted_with("deal_id"),
    "ref_id": of_submission,
    "request_id": submitted_with("request_id"),
    "id": with_id,
}
"""Query parameter -> its condition. What cannot be read finds nothing."""


def search(visit: Visit) -> Response:
    """``GET /ops/search?q=``: leads to the message, or to the list of what was asked for."""
    asked = visit.asked("q")
    return RedirectResponse(_place(visit, asked), 303, headers=HEADERS)


def _place(visit: Visit, asked: str) -> str:
    if not asked:
        return "/ops/messages"
    workspace_id = visit.operator.caller.workspace_id
    found = visit.session.scalars(
        select(Message.id).where(Message.workspace_id == workspace_id, with_id(asked, workspace_id)).limit(2)
    ).all()
    if len(found) == 1:
        return f"/ops/messages/{found[0]}"
    campaign = exists().where(Campaign.workspace_id == workspace_id, Campaign.id == asked)
    name = (
        "ref_id" if from_ulid(asked)
        else "id" if asked.startswith("<") or as_uuid(asked)
        else "to" if "@" in asked
        else "campaign" if visit.session.scalar(select(campaign))
        else "request_id"
    )  # fmt: skip
    return f"/ops/messages?{urlencode({name: asked})}"
