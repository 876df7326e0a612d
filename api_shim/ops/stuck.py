"""What does not go on by itself, or not soon: each kind with why, and what its button does."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from starlette.responses import Response

from api_shim.audit import audit
from api_shim.ops.pages import Form, Visit, render
from models.mailer import Mailer, MailerStatus
from models.message import UNTIL_SOMEBODY_ACTS, Message, State
from worker.bell import FOLLOWUP_LANE

PAGE = 50
LATE_MINUTES = 5
"""Queued mail that is due for longer than this is worth a line."""

_EXHAUSTED = text("""
    select endpoint.id, endpoint.url, endpoint.status, count(*) as number, min(d.created_at) as oldest
    from webhook_delivery d join webhook_endpoint endpoint on endpoint.id = d.endpoint_id
    where endpoint.workspace_id = :workspace_id and d.state = 'dead'
    group by endpoint.id order by endpoint.url
""")
_UNLOGGED = text("""
    select f.id, f.tries, f.error, f.due_at, f.created_at, cardinality(f.message_ids) as number,
           f.message_ids[1] as message_id
    from followup f join message m on m.id = f.message_ids[1]
    where f.tries > 0 and m.workspace_id = :workspace_id order by f.id limit :page
""")
_LATE = text("""
    select mailer.id, mailer.name, mailer.status, mailer.throttled_until, count(*) as number,
           min(greatest(due_at, m.created_at)) as oldest
    from message m join mailer on mailer.id = m.mailer_id
    where m.workspace_id = :workspace_id and m.state = 'queued'
      and m.due_at < statement_timestamp() - :late * interval '1 minute'
      and m.created_at < statement_timestamp() - :late * interval '1 minute'
    group by mailer.id order by mailer.name
""")
_HURRY = text("""
    update followup f set due_at = clock_timestamp() from message m
    where m.id = f.message_ids[1] and m.workspace_id = :workspace_id and f.tries > 0
""")


def stuck(visit: Visit) -> Response:
    """``GET /ops/stuck``."""
    mine = {"workspace_id": visit.operator.caller.workspace_id, "page": PAGE, "late": LATE_MINUTES}
    return render(
        visit,
        "stuck.html",
        held=_held(visit),
        reconnect=_reconnect(visit),
        exhausted=visit.session.execute(_EXHAUSTED, mine).all(),
        unlogged=visit.session.execute(_UNLOGGED, mine).all(),
        late=visit.session.execute(_LATE, mine).all(),
        page=PAGE,
        now=datetime.now(UTC),
        minutes=LATE_MINUTES,
    )


def _held(visit: Visit) -> Any:
    waiting = (
        Message.workspace_id == visit.operator.caller.workspace_id,
        Message.due_at >= UNTIL_SOMEBODY_ACTS,
        Message.state == State.UNCERTAIN,
    )
    return visit.session.scalars(select(Message).where(*waiting).order_by(Message.id).limit(PAGE)).all()


def _reconnect(visit: Visit) -> Any:
    refused = (
        Mailer.workspace_id == visit.operator.caller.workspace_id,
        Mailer.deleted_at.is_(None),
        Mailer.status == MailerStatus.RECONNECT_REQUIRED,
    )
    return visit.session.scalars(select(Mailer).where(*refused).order_by(Mailer.name)).all()


def log_now(visit: Visit, _: Form) -> str:
    """Tries the follow-up of the workspace's unlogged mail at once instead of later."""
    caller = visit.operator.caller
    visit.session.execute(_HURRY, {"workspace_id": caller.workspace_id})
    audit(visit.session, caller, "followup.retried", str(caller.workspace_id))
    visit.session.commit()
    visit.services.ringer.ring(FOLLOWUP_LANE)
    return "The follow-up tries again now. No mail is sent by it."
