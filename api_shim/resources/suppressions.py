"""``/v1/suppressions``: addresses that get no more mail from a workspace, or from one of its lists."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field
from sqlalchemy import ColumnElement, delete, select, text
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.suppression_rows import COLUMNS, Reason, SuppressionNew, read_rows
from api_shim.text import EmailKey, Line
from models.base import uuid7
from models.mailer import Suppression
from worker.wishes import TRACKING

router = APIRouter(prefix="/suppressions", tags=["suppressions"])
Reader = Annotated[Caller, caller_with("suppressions:read")]
Writer = Annotated[Caller, caller_with("suppressions:write")]

ByAddress = Annotated[EmailKey | None, Query(description="The whole address, in either case.")]
ByReason = Annotated[Reason | None, Query()]
ByList = Annotated[Line | None, Query(description="One list; empty for the whole workspace's.")]

EXPORT_ROWS = 5000
"""Rows read at a time; between two reads no connection is held, however slowly the receiver takes them."""


async def _raw_body(request: Request) -> bytes:
    return await request.body()


def _wanted(
    caller: Caller, address: str | None, reason: str | None, list_id: str | None
) -> tuple[ColumnElement[bool], ...]:
    given = (
        (Suppression.address, address),
        (Suppression.reason, reason),
        (Suppression.list_id, list_id),
    )
    asked = (column == value for column, value in given if value is not None)
    return (Suppression.workspace_id == caller.workspace_id, *asked)


@router.get("")
def list_suppressions(
    *,
    session: SessionDep,
    caller: Reader,
    address: ByAddress = None,
    reason: ByReason = None,
    list_id: ByList = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Suppressed addresses, newest first."""
    wanted = (*_wanted(caller, address, reason, list_id), *after_id(Suppression.id, cursor))
    rows = session.scalars(select(Suppression).where(*wanted).order_by(Suppression.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show, lambda row: [row.id])


@router.post("", status_code=201)
def add_suppressions(
    body: SuppressionNew | Annotated[list[SuppressionNew], Field(min_length=1, max_length=1000)],
    session: SessionDep,
    caller: Writer,
    response: Response,
) -> dict[str, Any]:
    """Adds one address (answers it) or up to 1000 (answers how many were new). What is there already stays as it is."""
    rows = body if isinstance(body, list) else [body]
    added = _add(session, caller, rows)
    response.status_code = 201 if added else 200
    if isinstance(body, list):
        audit(session, caller, "suppressions.added", f"{len(rows)} addresses", added=added)
        session.commit()
        return {"added": added, "known": len(rows) - added}
    row = session.scalars(select(Suppression).where(*_wanted(caller, body.address, None, body.list_id))).one()
    if added:
        audit(session, caller, "suppression.added", str(row.id), reason=body.reason, list_id=body.list_id)
    session.commit()
    return show(row)


@router.delete("", status_code=204)
def remove_address(
    session: SessionDep,
    caller: Writer,
    address: Annotated[EmailKey, Query(description="The whole address, in either case.")],
    list_id: ByList = None,
) -> None:
    """Lets an address get mail again: from one list with ``list_id``, from all without.

    That its opens and clicks are not to be measured (list ``$tracking``) is only taken back by name.
    """
    mail = () if list_id == TRACKING else (Suppression.list_id != TRACKING,)
    _remove(session, caller, *_wanted(caller, address, None, list_id), *mail, named={"address": address})


@router.post(
    "/import",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "text/csv": {"example": "address,reason\ngrace@example.com,unsubscribe\n"},
                "application/json": {"example": ["grace@example.com", {"address": "ada@example.com"}]},
            },
        }
    },
)
def import_suppressions(
    body: Annotated[bytes, Depends(_raw_body)], request: Request, session: SessionDep, caller: Writer
) -> dict[str, Any]:
    """Adds up to 100 000 addresses of a CSV file or a JSON list: all of them, or none if a row is wrong."""
    rows = read_rows(body, request.headers.get("content-type", ""))
    added = _add(session, caller, rows)
    audit(session, caller, "suppressions.imported", f"{len(rows)} rows", added=added)
    session.commit()
    return {"rows": len(rows), "added": added, "known": len(rows) - added}


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}, "text/csv": {}}}},
)
def export_suppressions(
    *,
    request: Request,
    session: SessionDep,
    caller: Reader,
    format: Annotated[Literal["ndjson", "csv"], Query()] = "ndjson",  # noqa: A002 -- the parameter's name outside
    address: ByAddress = None,
    reason: ByReason = None,
    list_id: ByList = None,
) -> StreamingResponse:
    """Every suppressed address, oldest first, as a stream of JSON lines or as CSV that the import takes back."""
    audit(session, caller, "suppressions.exported", str(caller.workspace_id), format=format)
    session.commit()  # the stream reads in sessions of its own
    wanted = _wanted(caller, address, reason, list_id)
    encode, head, media_type = FORMATS[format]
    batches = _batches(services(request).sessions, wanted)
    stream = (encode(rows) for rows in batches)
    headers = {"Content-Disposition": f'attachment; filename="suppressions.{format}"'}
    return StreamingResponse(_after(head, stream), media_type=media_type, headers=headers)


@router.get("/{id}")
def get_suppression(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One suppressed address."""
    mine = (Suppression.id == id, Suppression.workspace_id == caller.workspace_id)
    row = session.scalars(select(Suppression).where(*mine)).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(id)})
    return show(row)


@router.delete("/{id}", status_code=204)
def remove_suppression(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Lets an address get mail again."""
    mine = (Suppression.id == id, Suppression.workspace_id == caller.workspace_id)
    _remove(session, caller, *mine, named={"id": str(id)})


_ADD = text("""
    insert into suppression (workspace_id, id, address, reason, list_id)
    select :workspace_id, new.id, new.address, new.reason, new.list_id
    from unnest(cast(:ids as uuid[]), cast(:addresses as text[]), cast(:reasons as text[]), cast(:lists as text[]))
         as new(id, address, reason, list_id)
    on conflict do nothing returning id
""")


def _add(session: Session, caller: Caller, rows: Sequence[SuppressionNew]) -> int:
    """Stores the rows that are new; returns how many. In one order, so that two imports never wait for each other."""
    ordered = sorted(rows, key=lambda row: (row.address, row.list_id))
    parameters = {
        "workspace_id": caller.workspace_id,
        "ids": [uuid7() for _ in ordered],
        "addresses": [row.address for row in ordered],
        "reasons": [row.reason for row in ordered],
        "lists": [row.list_id for row in ordered],
    }
    return len(session.execute(_ADD, parameters).all())


def _remove(session: Session, caller: Caller, *conditions: ColumnElement[bool], named: dict[str, str]) -> None:
    gone = delete(Suppression).where(*conditions).returning(Suppression.id, Suppression.reason, Suppression.list_id)
    rows = session.execute(gone).all()
    if not rows:
        raise ApiError("NOT_FOUND", details=named)
    for row in rows:
        audit(session, caller, "suppression.removed", str(row.id), reason=row.reason, list_id=row.list_id)
    session.commit()


def _batches(sessions: Callable[[], Session], wanted: Sequence[ColumnElement[bool]]) -> Iterator[Sequence[Any]]:
    """The rows in order of their ids, read as plain rows: there may be millions."""
    last: UUID | None = None
    while True:
        query = select(*Suppression.__table__.columns).where(*wanted)
        beyond = query if last is None else query.where(Suppression.id > last)
        with sessions() as session:
            rows = session.execute(beyond.order_by(Suppression.id).limit(EXPORT_ROWS)).all()
        if rows:
            yield rows
        if len(rows) < EXPORT_ROWS:
            return
        last = rows[-1].id


def _after(head: bytes, stream: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from stream


def _ndjson(rows: Sequence[Any]) -> bytes:
    return b"".join(orjson.dumps(show(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _csv(rows: Sequence[Any]) -> bytes:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([getattr(row, column) for column in COLUMNS] for row in rows)
    return lines.getvalue().encode()


FORMATS: dict[str, tuple[Callable[[Sequence[Any]], bytes], bytes, str]] = {
    "ndjson": (_ndjson, b"", "application/x-ndjson"),
    "csv": (_csv, (",".join(COLUMNS) + "\r\n").encode(), "text/csv; charset=utf-8"),
}
"""How a batch of rows is written, what comes before the first, and what it is called."""


def show(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "address": row.address,
        "reason": row.reason,
        "list_id": row.list_id,
        "message_id": row.message_id,
        "created_at": row.created_at,
    }
