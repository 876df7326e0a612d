"""``/v1/ops``: the queues in true numbers, the workers, and stopping a queue."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with, services
from api_shim.text import Line
from models.message import Priority
from worker.beat import due_lanes
from worker.bell import PRIORITIES, QUEUES
from worker.liveness import live_workers
from worker.orphans import reconcile, requeue
from worker.queues import queue_depths
from worker.standstill import pause, resume

router = APIRouter(prefix="/ops", tags=["ops"])
Reader = Annotated[Caller, caller_with("ops:read")]
Operator = Annotated[Caller, caller_with("ops:write")]


class PauseOrder(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "the mail server moves"}})

    reason: Annotated[Line, StringConstraints(min_length=1, max_length=200)] | None = None
    """Shown wherever mail waits for it."""


@router.get("/queues")
def queues(session: SessionDep, _: Reader) -> dict[str, Any]:
    """Depth, age, rates and workers of each queue, counted from the rows at this moment."""
    return {"queues": queue_depths(session)}


@router.get("/workers")
def workers(session: SessionDep, _: Reader) -> dict[str, Any]:
    """The worker processes that were heard of lately, and the batch in the hand of each."""
    return {"data": [worker.as_json() for worker in live_workers(session)], "next_cursor": None}


@router.post("/queues/{queue}/pause")
def pause_queue(queue: str, session: SessionDep, caller: Operator, body: PauseOrder | None = None) -> dict[str, Any]:
    """Takes nothing of a whole queue in hand until it is resumed, for all workspaces; what is in hand goes on."""
    stop_queue(session, caller, queue, body.reason if body else None)
    return {"queue": queue, **queue_depths(session)[queue]}


@router.post("/queues/{queue}/resume")
def resume_queue(queue: str, request: Request, session: SessionDep, caller: Operator) -> dict[str, Any]:
    """Lets a paused queue run again."""
    start_queue(request, session, caller, queue)
    return {"queue": queue, **queue_depths(session)[queue]}


@router.get("/queues/{queue}/reconcile")
def reconcile_queue(queue: str, session: SessionDep, _: Reader) -> dict[str, Any]:
    """Counts ``send.high`` or ``send.normal`` row by row, and says whether its figures add up to that."""
    return {"queue": queue, **reconcile(session, _priority(queue)).as_json()}


@router.post("/queues/{queue}/requeue")
def requeue_queue(queue: str, request: Request, session: SessionDep, caller: Operator) -> dict[str, Any]:
    """Takes back what dead workers hold and what nothing leads to, at once; what may have been sent is asked about."""
    return {"queue": queue, "requeued": requeue_orphans(request, session, caller, queue)}


def stop_queue(session: Session, caller: Caller, queue: str, reason: str | None) -> None:
    """Commits the pause of a queue. Raises NOT_FOUND for a name that is none."""
    pause(session, _known(queue), reason)
    audit(session, caller, "queue.paused", queue, reason=reason)
    session.commit()


def start_queue(request: Request, session: Session, caller: Caller, queue: str) -> None:
    """Commits that a queue runs again, and rings what is due in it."""
    resume(session, _known(queue))
    audit(session, caller, "queue.resumed", queue)
    session.commit()
    _ring(request, session, queue)


def requeue_orphans(request: Request, session: Session, caller: Caller, queue: str) -> int:
    """How many messages came back. Commits, and rings."""
    number = requeue(session.connection(), _priority(queue))
    audit(session, caller, "queue.requeued", queue, messages=number)
    session.commit()
    _ring(request, session, queue)
    return number


def _ring(request: Request, session: Session, queue: str) -> None:
    for lane in due_lanes(session.connection()):
        if lane.queue == queue:
            services(request).ringer.ring(lane)


def _known(queue: str) -> str:
    if queue not in QUEUES:
        raise ApiError("NOT_FOUND", details={"queue": queue, "known": list(QUEUES)})
    return queue


def _priority(queue: str) -> Priority:
    """Of a queue of mail. Raises NOT_FOUND for the others."""
    if queue not in PRIORITIES:
        raise ApiError("NOT_FOUND", details={"queue": queue, "known": list(PRIORITIES)})
    return PRIORITIES[queue]
