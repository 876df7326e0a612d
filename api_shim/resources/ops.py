"""``/v1/ops``: the queues in true numbers."""

from typing import Annotated, Any

from fastapi import APIRouter

from api_shim.auth import Caller
from api_shim.http import SessionDep, caller_with
from worker.queues import queue_depths

router = APIRouter(prefix="/ops", tags=["ops"])


@router.get("/queues")
def queues(session: SessionDep, _: Annotated[Caller, caller_with("ops:read")]) -> dict[str, Any]:
    """Depth, age, rates and workers of each queue, counted from the rows at this moment."""
    return {"queues": queue_depths(session)}
