"""The page of one message: what happened when, every attempt, the mail itself, and what can be done about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from starlette.responses import HTMLResponse, Response

from api_shim.errors import ApiError, Fault
from api_shim.explain import explain
from api_shim.ops import mail
from api_shim.ops.messages import last_error
from api_shim.ops.pages import HEADERS, Form, Visit, render
from api_shim.resources.actions import Retry, Sent, cancel_message, mark_sent, retry_message
from api_shim.resources.copies import raw_of, redeliver
from api_shim.resources.submissions import find_message, show_message
from api_shim.resources.suppressions import add_suppressions
from api_shim.suppression_rows import SuppressionNew
from models.base import ulid
from models.crm import Activity
from models.event import Event, wire_name
from models.mailer import Mailer
from models.message import Message, State, Submission
from models.record import EmailLog
from models.webhook import WebhookDelivery, WebhookEndpoint
from worker.bell import send_lane

# The mail is hostile: it may run nothing, load nothing from anywhere and address no frame but its own.
MAIL_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'self'; sandbox"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line of the timeline. ``after``: how long it took since the line above."""

    at: datetime
    what: str
    detail: str
    after: timedelta | None = None


def message(visit: Visit) -> Response:
    """``GET /ops/messages/{id}``."""
    row, submission = _find(visit)
    session = visit.session
    events = session.scalars(
        select(Event).where(Event.message_id == row.id, Event.workspace_id == row.workspace_id).order_by(Event.seq)
    ).all()
    log = session.get(EmailLog, row.id)
    return render(
        visit,
        "message.html",
        message=row,
        shown=show_message(row),
        submission=submission,
        ref_id=ulid(row.submission_id),
        mailer=session.get_one(Mailer, row.mailer_id),
        error=last_error(row),
        log=log,
        timeline=_timeline(row, submission, events, log),
        mail=mail.shown(session, submission, row, visit.services),
        activities=session.scalars(
            select(Activity).where(Activity.message_id == row.id, Activity.workspace_id == row.workspace_id)
        ).all(),
        deliveries=_deliveries(visit, row.id),
        can=_possible(row, held=bool(show_message(row)["held"])),
        explained=explain(session, row, visit.services.pace, visit.services.redis),
        curl=f'curl -H "Authorization: Bearer $POSTROAD_API_KEY" {_api(visit)}/v1/messages/{row.id}/explain',
    )


def _api(visit: Visit) -> str:
    """Root of the API as this browser reaches it."""
    return str(visit.request.base_url).rstrip("/")


def _find(visit: Visit) -> tuple[Message, Submission]:
    row = find_message(visit.session, visit.operator.caller, visit.path_id)
    return row, visit.session.get_one(Submission, row.submission_id)


def _possible(row: Message, *, held: bool) -> set[str]:
    """What can be done to it now."""
    uncertain = row.state == State.UNCERTAIN and held
    possible = {
        "cancel": row.state in (State.QUEUED, State.CLAIMED),
        "retry": row.state in (State.FAILED, State.SUPPRESSED),
        "send_again": uncertain,
        "mark_sent": uncertain,
    }
    return {name for name, is_possible in possible.items() if is_possible}


def _timeline(row: Message, submission: Submission, events: Sequence[Event], log: EmailLog | None) -> list[Moment]:
    moments = [Moment(at=row.created_at, what="accepted", detail=f"by the API, as {submission.shape}")]
    moments += [_attempt(number, one) for number, one in enumerate(row.attempts, start=1)]
    moments += [_event(event) for event in events]
    if row.finished_at is not None:
        moments.append(Moment(at=row.finished_at, what="outcome", detail=row.state))
    if log is not None:
        moments.append(Moment(at=log.recorded_at, what="logged", detail="log, timelines, events and webhooks written"))
    ordered = sorted(moments, key=lambda moment: moment.at)
    befores = [None, *(moment.at for moment in ordered)]
    return [
        Moment(at=moment.at, what=moment.what, detail=moment.detail, after=moment.at - before if before else None)
        for moment, before in zip(ordered, befores, strict=False)
    ]


def _attempt(number: int, attempt: dict[str, Any]) -> Moment:
    said = " · ".join(str(attempt[name]) for name in ("code", "detail") if attempt.get(name))
    detail = f"{attempt['outcome']}: {said}" if said else attempt["outcome"]
    return Moment(at=datetime.fromisoformat(attempt["at"]), what=f"attempt {number}", detail=detail)


def _event(event: Event) -> Moment:
    said = ", ".join(f"{name} {value}" for name, value in event.data.items() if isinstance(value, str | int | bool))
    return Moment(at=event.at, what=f"event {event.type}", detail=said)


def _deliveries(visit: Visit, message_id: UUID) -> list[dict[str, Any]]:
    """Webhook deliveries of the message's events, by endpoint."""
    query = (
        select(WebhookDelivery, Event.type, WebhookEndpoint.url)
        .join(Event, Event.id == WebhookDelivery.event_id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(
            Event.message_id == message_id,
            WebhookEndpoint.workspace_id == visit.operator.caller.workspace_id,
        )
        .order_by(Event.seq)
    )
    return [
        {"delivery": delivery, "event": wire_name(kind), "url": url}
        for delivery, kind, url in visit.session.execute(query)
    ]


def html(visit: Visit) -> Response:
    """``GET /ops/messages/{id}/html``: the HTML part alone, for the sandboxed frame."""
    row, submission = _find(visit)
    shown = mail.shown(visit.session, submission, row, visit.services)
    return HTMLResponse(shown.html or "", headers=MAIL_HEADERS)


def source(visit: Visit) -> Response:
    """``GET /ops/messages/{id}/source``: the mail as a file."""
    row, _ = _find(visit)
    raw = raw_of(visit.session, row, visit.services)
    headers = {**MAIL_HEADERS, "Content-Disposition": f'attachment; filename="{row.id}.eml"'}
    return Response(raw, media_type="message/rfc822", headers=headers)


def cancel(visit: Visit, _: Form) -> str:
    cancel_message(visit.path_id, visit.request, visit.session, visit.operator.caller)
    return "Cancelled. It will not be sent."


def retry(visit: Visit, form: Form) -> str:
    """``force``: an uncertain one, although it may have arrived."""
    body = Retry(force=form.get("force") == "yes")
    retry_message(visit.path_id, visit.request, visit.session, visit.operator.caller, body)
    return "Back in the queue, with all attempts anew."


def redeliver_it(visit: Visit, _: Form) -> str:
    """Sends the same mail as a new message."""
    row, _submission = _find(visit)
    visit.operator.caller.require("email:send")
    copy = redeliver(visit.session, visit.operator.caller, row, visit.request.scope.get("request_id"))
    visit.services.ringer.ring(send_lane(copy.mailer_id, copy.priority))
    return f"The same mail is in the queue as a new message, {copy.id}."


def marked_sent(visit: Visit, form: Form) -> str:
    body = Sent(provider_message_id=form.get("provider_message_id", "").strip() or None)
    mark_sent(visit.path_id, visit.request, visit.session, visit.operator.caller, body)
    return "Marked as sent. The follow-up writes the log and tells the webhooks."


def suppress(visit: Visit, form: Form) -> str:
    """Takes one of the message's recipients off all mail."""
    row, _ = _find(visit)
    address = form.get("address", "")
    if address not in row.recipients:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("address", "This is no recipient of the message.")])
    body = SuppressionNew(address=address, reason="manual")
    add_suppressions(body, visit.session, visit.operator.caller, Response())
    return f"{address} gets no more mail from this workspace."
