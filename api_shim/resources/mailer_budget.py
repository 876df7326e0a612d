"""``GET /v1/mailers/{id}/budget``: what a mailer may still send, and how fast."""

from typing import Annotated, Any
from uuid import UUID

import redis
from fastapi import APIRouter, Request

from api_shim.auth import Caller
from api_shim.http import SessionDep, caller_with, services, unavailable
from api_shim.resources.mailers import find
from worker.mailers import caps_in_force
from worker.pace import Standing

router = APIRouter(prefix="/mailers", tags=["mailers"])
Reader = Annotated[Caller, caller_with("mailers:read")]


@router.get("/{id}/budget")
def show_budget(id: UUID, request: Request, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002
    """Where the limits stand that pace a mailer; mail over them waits. Learned: since it was found too fast."""
    row = find(session, caller, id)
    session.commit()
    pace = services(request).pace
    try:
        standings = pace.standings(id, caps_in_force(row.provider, row.caps, row.base_url))
        learned = pace.learned(id)
    except redis.RedisError as error:
        raise unavailable() from error
    return {
        "limits": [_shown(standing) for standing in standings],
        "learned_per_second": None if learned is None else round(learned, 2),
        "throttled_until": row.throttled_until,
    }


def _shown(standing: Standing) -> dict[str, Any]:
    return {
        "name": standing.limit.name,
        "limit": standing.limit.count,
        "remaining": standing.remaining,
        "resets_in_seconds": round(standing.resets_in, 3),
    }
