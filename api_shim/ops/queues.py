"""Queues: what waits where, who works on it, whether the figures add up to the rows; stopping a queue."""

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from sqlalchemy import text
from starlette.responses import Response

from api_shim.errors import ApiError
from api_shim.ops import figures
from api_shim.ops.pages import Form, Visit, render
from api_shim.ops.words import number_of
from api_shim.resources.ops import requeue_orphans, start_queue, stop_queue
from worker.bell import PRIORITIES, QUEUES, Bells
from worker.liveness import LiveWorker, live_workers
from worker.orphans import reconcile
from worker.queues import queue_depths
from worker.standstill import paused

# Tenants share the queues; what is told by name is the workspace's own.
_LANES = text("""
    select mailer.id, mailer.name, mailer.provider, mailer.status, mailer.throttled_until,
           count(*) filter (where m.due_at <= clock_timestamp() and m.state = 'queued') as ready,
           count(*) filter (where m.due_at > clock_timestamp() and m.state = 'queued') as later,
           count(*) filter (where m.state = 'uncertain') as uncertain,
           min(greatest(m.due_at, m.created_at)) filter (where m.state = 'queued') as oldest
    from message m join mailer on mailer.id = m.mailer_id
    where m.due_at is not null and m.workspace_id = :workspace_id and m.priority = :priority
    group by mailer.id order by mailer.name
""")


def queues(visit: Visit) -> Response:
    """``GET /ops/queues``."""
    session = visit.session
    depths = queue_depths(session)
    return render(
        visit,
        "queues.html",
        titles=figures.TITLES,
        depths=depths,
        live=figures.live_texts(depths),
        bells=_bells(visit),
        stopped=paused(session),
        workers=live_workers(session),
        silences=figures.silences(session),
    )


def queue(visit: Visit) -> Response:
    """``GET /ops/queues/{queue}``; with ``?check=1`` its figures are reconciled with its rows."""
    name = visit.request.path_params["queue"]
    if name not in QUEUES:
        raise ApiError("NOT_FOUND")
    session = visit.session
    depths = queue_depths(session)
    priority = PRIORITIES.get(name)
    checked = priority is not None and visit.asked("check") == "1"
    return render(
        visit,
        "queue.html",
        queue=name,
        title=figures.TITLES[name],
        depth=depths[name],
        live=figures.live_texts(depths),
        bells=_bells(visit)[name],
        stopped=paused(session).get(name),
        workers=_working_on(name, live_workers(session)),
        lanes=_lanes(visit, priority),
        can_check=priority is not None,
        reconciled=reconcile(session, priority) if checked and priority is not None else None,
    )


def _working_on(name: str, workers: Sequence[LiveWorker]) -> list[LiveWorker]:
    return [worker for worker in workers if name in worker.queues]


def _lanes(visit: Visit, priority: int | None) -> Sequence[Any]:
    if priority is None:
        return ()
    mine = {"workspace_id": visit.operator.caller.workspace_id, "priority": int(priority)}
    return visit.session.execute(_LANES, mine).all()


def _bells(visit: Visit) -> Mapping[str, int | None]:
    """Bells in Redis that no worker has taken yet; None while Redis is away."""
    held = visit.services
    bells = Bells(held.celery, held.redis)
    try:
        return {name: bells.waiting(name) for name in QUEUES}
    except redis.RedisError:
        return dict.fromkeys(QUEUES)


def pause(visit: Visit, form: Form) -> str:
    name = visit.request.path_params["queue"]
    stop_queue(visit.session, visit.operator.caller, name, form.get("reason", "").strip()[:200] or None)
    return f"{name} is paused: nothing more of it is taken in hand. What is in hand goes on."


def resume(visit: Visit, _: Form) -> str:
    name = visit.request.path_params["queue"]
    start_queue(visit.request, visit.session, visit.operator.caller, name)
    return f"{name} goes on."


def requeue(visit: Visit, _: Form) -> str:
    name = visit.request.path_params["queue"]
    number = requeue_orphans(visit.request, visit.session, visit.operator.caller, name)
    return f"Taken back: {number_of(number, 'mail')}." if number else "There was nothing to take back."
