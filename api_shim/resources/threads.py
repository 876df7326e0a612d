"""``/v1/email/threads``: the conversations of the inbox, and what can be done with them."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from sqlalchemy import ColumnClause, ColumnElement, Row, Select, and_, func, literal_column, select, update
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.errors import ApiError, Missing
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after, page
from api_shim.resources.linked import LinkedTo
from api_shim.text import Line
from models.crm import Contact, Customer, Deal
from models.record import EmailLog, InboundMessage, Thread

router = APIRouter(prefix="/email/threads", tags=["threads"])
Reader = Annotated[Caller, caller_with("email:read")]
Writer = Annotated[Caller, caller_with("email:write")]
Status = Literal["active", "archived", "spam"]
Direction = Literal["inbound", "outbound"]
Found = Row[Thread, Contact | None, Deal | None, Customer | None, int]

MOST_IDS = 1_000
"""Threads that one call of mark-read may name."""


class ThreadChange(BaseModel):
    """What is absent or null stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"is_read": True, "status": "archived"}})

    is_read: StrictBool | None = None
    status: Status | None = None


class MarkRead(BaseModel):
    """Either ``thread_ids`` or ``all``."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"thread_ids": ["0193e0a2-9a4b-7c3d-8e5f-0123456789ab"]}}
    )

    thread_ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_IDS)] | None = None
    everything: StrictBool | None = Field(default=None, alias="all", description="Every unread thread.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.thread_ids is not None) == bool(self.everything):
            raise ValueError('send either thread_ids with a list of ids, or "all": true')
        return self


def _direction(direction: Direction | None) -> list[ColumnElement[bool]]:
    if direction is None:
        return []
    return [Thread.has_inbound.is_(True) if direction == "inbound" else Thread.has_outbound.is_(True)]


_PLAIN_WORDS = re.compile(r"[\w\s]+")
_SIMPLE: ColumnClause[Any] = literal_column("'simple'::regconfig")
"""The configuration that `Thread.subject_words` was made with."""


def _about(search: str) -> ColumnElement[bool]:
    """Subjects with these words, the last of which may still be being typed.

    Quotes, ``or`` and ``-`` mean what they mean in a web search; then every word counts as it stands.
    """
    *words, last = search.split() or [""]
    if not _PLAIN_WORDS.fullmatch(search) or not last or "or" in (word.lower() for word in (*words, last)):
        return Thread.subject_words.bool_op("@@")(func.websearch_to_tsquery(_SIMPLE, search))
    whole = func.websearch_to_tsquery(_SIMPLE, " ".join(words))
    return Thread.subject_words.bool_op("@@")(whole.op("&&")(func.to_tsquery(_SIMPLE, f"{last}:*")))


def _threads(workspace_id: UUID) -> Select[Thread, Contact | None, Deal | None, Customer | None, int]:
    """Threads of the workspace with what they belong to, as far as it still exists, in one query."""
    mails = [
        select(func.count()).where(table.thread_id == Thread.id).correlate(Thread).scalar_subquery()
        for table in (EmailLog, InboundMessage)
    ]
    query = select(Thread, Contact, Deal, Customer, (mails[0] + mails[1]).label("message_count"))
    for table, column in ((Contact, Thread.contact_id), (Deal, Thread.deal_id), (Customer, Thread.customer_id)):
        query = query.outerjoin(table, and_(table.id == column, table.workspace_id == Thread.workspace_id))
    return query.where(Thread.workspace_id == workspace_id)


@router.get("")
def list_threads(
    *,
    session: SessionDep,
    caller: Reader,
    linked: LinkedTo,
    search: Annotated[Line | None, Query(description="Words of the subject; the last one may be incomplete.")] = None,
    participant: Annotated[Line | None, Query(description="The whole address of somebody who took part.")] = None,
    direction: Annotated[Direction | None, Query(description="With at least one mail of this direction.")] = None,
    status: Status | None = None,
    is_read: bool | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Conversations with the contact, deal and customer they belong to, the latest activity first."""
    query = _threads(caller.workspace_id).where(
        *linked.conditions(Thread),
        *_direction(direction),
        *after([Thread.last_message_at, Thread.id], cursor, [datetime.fromisoformat, UUID]),
    )
    if search is not None:
        query = query.where(_about(search))
    if participant is not None:
        query = query.where(Thread.participants.contains([participant.strip().lower()]))
    if status is not None:
        query = query.where(Thread.status == status)
    if is_read is not None:
        query = query.where(Thread.is_read.is_(is_read))
    rows = session.execute(query.order_by(Thread.last_message_at.desc(), Thread.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, _show, lambda row: [row[0].last_message_at, row[0].id])


@router.get("/{thread_id}")
def get_thread(thread_id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:
    """One conversation with the contact, deal and customer it belongs to."""
    return _get(session, caller, thread_id)


@router.patch("/{thread_id}")
def change_thread(thread_id: UUID, body: ThreadChange, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Marks a conversation read or unread, or moves it to the archive, to spam or back."""
    changes = body.model_dump(exclude_none=True)
    if changes:
        session.execute(
            update(Thread).where(Thread.workspace_id == caller.workspace_id, Thread.id == thread_id).values(changes)
        )
        session.commit()
    return _get(session, caller, thread_id)


@router.post("/mark-read")
def mark_read(body: MarkRead, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Marks conversations read. ``updated`` counts those that were unread; if one id is unknown, none is marked."""
    unread = update(Thread).where(Thread.workspace_id == caller.workspace_id, Thread.is_read.is_(False))
    if body.thread_ids is not None:
        _require(session, caller, body.thread_ids)
        unread = unread.where(Thread.id.in_(body.thread_ids))
    marked = session.execute(unread.values(is_read=True).returning(Thread.id)).all()
    session.commit()
    return {"updated": len(marked)}


def _require(session: Session, caller: Caller, ids: list[UUID]) -> None:
    known = select(Thread.id).where(Thread.workspace_id == caller.workspace_id, Thread.id.in_(ids))
    found = set(session.scalars(known))
    missing = [Missing("thread_ids", str(id_)) for id_ in dict.fromkeys(ids) if id_ not in found]
    if missing:
        raise ApiError("VALIDATION_ERROR", missing=missing)


def _get(session: Session, caller: Caller, thread_id: UUID) -> dict[str, Any]:
    row = session.execute(_threads(caller.workspace_id).where(Thread.id == thread_id)).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(thread_id)})
    return _show(row)


def _show(row: Found) -> dict[str, Any]:
    thread, contact, deal, customer, message_count = row
    return {
        "id": thread.id,
        "subject": thread.subject,
        "participants": thread.participants,
        "status": thread.status,
        "is_read": thread.is_read,
        "direction": thread.last_direction,
        "has_inbound": thread.has_inbound,
        "has_outbound": thread.has_outbound,
        "message_count": message_count,
        "contact": contact and {"id": contact.id, "name": contact.name, "email": contact.email},
        "deal": deal and {"id": deal.id, "name": deal.name},
        "customer": customer and {"id": customer.id, "name": customer.name, "domain": customer.domain},
        "last_message_at": thread.last_message_at,
        "created_at": thread.created_at,
    }
