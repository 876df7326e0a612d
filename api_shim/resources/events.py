"""``/v1/events``: everything that happened in the workspace, in order and without gaps, to be read for ever."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import ColumnElement, select

from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Limit
from models.access import Workspace
from models.base import from_ulid
from models.event import WIRE_NAMES, Event, EventType
from worker.wire import FACTS, body

router = APIRouter(prefix="/events", tags=["events"])
Reader = Annotated[Caller, caller_with("events:read")]

BY_NAME = {**{name: type_ for type_, name in WIRE_NAMES.items()}, **{type_.value: type_ for type_ in EventType}}
"""Events by both of their names: ``MAIL_DELIVERED`` and ``delivered``."""

LARGEST_CURSOR = 2**63 - 1


@router.get("")
def list_events(
    *,
    session: SessionDep,
    caller: Reader,
    after: Annotated[
        Annotated[int, Field(ge=0, le=LARGEST_CURSOR)] | Literal["latest"],
        Query(description="next_cursor of the answer before; 0 begins at the beginning, latest with what comes next."),
    ] = 0,
    type: Annotated[  # noqa: A002 -- the parameter's name
        str | None, Query(max_length=50, description="MAIL_DELIVERED or delivered, and so on.")
    ] = None,
    ref_id: Annotated[str | None, Query(max_length=26, description="Events of this submission.")] = None,
    message_id: Annotated[UUID | None, Query(description="Events of this message, by its id.")] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Events as webhooks carry them, oldest first.

    ``next_cursor`` is always there: asked again with it as ``after``, this answers what has happened since, so a
    client that polls misses nothing. Cursors count up without gaps.
    """
    conditions = [*_of_type(type), *_of_submission(ref_id)]
    if after == "latest":
        newest = select(Workspace.event_cursor).where(Workspace.id == caller.workspace_id)
        return {"data": [], "next_cursor": str(session.scalar(newest))}
    if message_id is not None:
        conditions.append(Event.message_id == message_id)
    query = FACTS.where(Event.workspace_id == caller.workspace_id, Event.cursor > after, *conditions)
    rows = session.execute(query.order_by(Event.cursor).limit(limit)).mappings().all()
    return {"data": [body(row) for row in rows], "next_cursor": str(rows[-1]["cursor"] if rows else after)}


def _of_type(name: str | None) -> list[ColumnElement[bool]]:
    if name is None:
        return []
    if name not in BY_NAME:
        fault = Fault("type", f"{name!r} is no event; known are {', '.join(WIRE_NAMES.values())}")
        raise ApiError("VALIDATION_ERROR", faults=[fault])
    return [Event.type == BY_NAME[name]]


def _of_submission(ref_id: str | None) -> list[ColumnElement[bool]]:
    if ref_id is None:
        return []
    key = from_ulid(ref_id)
    if key is None:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("ref_id", f"{ref_id!r} is not a ULID of 26 characters")])
    return [Event.submission_id == key]
