"""``GET /v1/messages/{message_id}/explain``: why a message is where it is, and when it will be sent."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request

from api_shim.explain import explain
from api_shim.http import SessionDep, services
from api_shim.resources.submissions import Reader, find_message

router = APIRouter(tags=["submissions"])


@router.get("/messages/{message_id}/explain")
def explain_message(message_id: UUID, request: Request, session: SessionDep, caller: Reader) -> dict[str, Any]:
    """What the message waits for, or what became of it: causes in the order in which they have to end.

    ``eta`` is null where a person has to act first, and for what is not queued.
    """
    held = services(request)
    return explain(session, find_message(session, caller, message_id), held.pace, held.redis).as_json()
