"""Mailers: how each stands with its provider, its limits, its last hour; pause, resume, test."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from sqlalchemy import select, text
from starlette.responses import Response

from api_shim.ops.pages import Form, Visit, render
from api_shim.resources.mailers import pause_mailer, resume_mailer, test_mailer
from models.mailer import Mailer
from worker.circuits import Circuits
from worker.mailers import caps_in_force
from worker.pace import Standing

_WAITING = text("""
    select mailer_id, count(*) filter (where due_at < '9999-01-01') as waiting,
           count(*) filter (where due_at >= '9999-01-01') as held
    from message where workspace_id = :workspace_id and due_at is not null group by mailer_id
""")
_LAST_HOUR = text("""
    select mailer_id, count(*) filter (where status in ('sent', 'delivered', 'bounced', 'complained')) as sent,
           count(*) filter (where status = 'failed') as failed,
           count(*) filter (where status in ('bounced', 'complained')) as bounced,
           percentile_cont(0.5) within group (order by finished_at - created_at) as half,
           percentile_cont(0.95) within group (order by finished_at - created_at) as most
    from email_log where workspace_id = :workspace_id and finished_at > statement_timestamp() - interval '1 hour'
    group by mailer_id
""")


def mailers(visit: Visit) -> Response:
    """``GET /ops/mailers``."""
    workspace_id = visit.operator.caller.workspace_id
    mine = (Mailer.workspace_id == workspace_id, Mailer.deleted_at.is_(None))
    rows = visit.session.scalars(select(Mailer).where(*mine).order_by(Mailer.name, Mailer.id)).all()
    return render(
        visit,
        "mailers.html",
        rows=rows,
        waiting=_by_mailer(visit, _WAITING),
        hour=_by_mailer(visit, _LAST_HOUR),
        now=datetime.now(UTC),
        standings={row.id: _standing(visit, row) for row in rows},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MailerStanding:
    """Where a mailer's limits and its circuit stand."""

    limits: Sequence[Standing]
    learned: float | None
    """Mails a second since it was found too fast."""
    circuit_open: bool


def _standing(visit: Visit, row: Mailer) -> MailerStanding | None:
    """None while Redis is away."""
    held = visit.services
    try:
        return MailerStanding(
            limits=held.pace.standings(row.id, caps_in_force(row.provider, row.caps, row.base_url)),
            learned=held.pace.learned(row.id),
            circuit_open=row.fallback_id is not None and Circuits(held.redis).is_open(row.id),
        )
    except redis.RedisError:
        return None


def _by_mailer(visit: Visit, statement: Any) -> dict[Any, Any]:
    rows = visit.session.execute(statement, {"workspace_id": visit.operator.caller.workspace_id}).mappings()
    return {row["mailer_id"]: row for row in rows}


def pause(visit: Visit, _: Form) -> str:
    answer = pause_mailer(visit.path_id, visit.session, visit.operator.caller)
    return f"{answer['name']} is paused. What is on the wire is finished, everything else waits."


def resume(visit: Visit, _: Form) -> str:
    answer = resume_mailer(visit.path_id, visit.session, visit.operator.caller)
    return f"{answer['name']} sends again."


def test(visit: Visit, _: Form) -> str:
    answer = test_mailer(visit.path_id, visit.request, visit.session, visit.operator.caller)
    return f"The provider {'answered well' if answer['ok'] else 'refused'}: {answer['detail']}"
