"""``/v1/email/threads/:id/messages``: what was written in a conversation, by both sides."""

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import nh3
from fastapi import APIRouter
from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, decode, page
from models.base import ulid
from models.record import EmailLog, InboundMessage, Thread

router = APIRouter(prefix="/email/threads", tags=["threads"])
Reader = Annotated[Caller, caller_with("email:read")]


@router.get("/{thread_id}/messages")
def list_thread_messages(
    thread_id: UUID, session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """The mails of a conversation, sent and received, the oldest first. HTML of received ones is sanitised."""
    of_caller = select(Thread.id).where(Thread.workspace_id == caller.workspace_id, Thread.id == thread_id)
    if session.scalar(of_caller) is None:
        raise ApiError("NOT_FOUND", details={"id": str(thread_id)})
    sent = _sent(session, caller, thread_id, limit=limit, cursor=cursor)
    received = _received(session, caller, thread_id, limit=limit, cursor=cursor)
    merged = list(heapq.merge(sent, received, key=lambda mail: (mail["at"], mail["id"])))
    return page(merged[: limit + 1], limit, lambda mail: mail, lambda mail: [mail["at"], mail["id"]])


def _later(
    at: InstrumentedAttribute[datetime], id_: InstrumentedAttribute[UUID], cursor: str | None
) -> list[ColumnElement[bool]]:
    return [] if cursor is None else [tuple_(at, id_) > tuple_(*decode(cursor, [datetime.fromisoformat, UUID]))]


def _sent(
    session: Session, caller: Caller, thread_id: UUID, *, limit: int, cursor: str | None
) -> Iterator[dict[str, Any]]:
    query = (
        select(EmailLog)
        .where(EmailLog.workspace_id == caller.workspace_id, EmailLog.thread_id == thread_id)
        .where(*_later(EmailLog.finished_at, EmailLog.message_id, cursor))
        .order_by(EmailLog.finished_at, EmailLog.message_id)
        .limit(limit + 1)
    )
    return map(_show_sent, session.scalars(query))


def _received(
    session: Session, caller: Caller, thread_id: UUID, *, limit: int, cursor: str | None
) -> Iterator[dict[str, Any]]:
    query = (
        select(InboundMessage)
        .where(InboundMessage.workspace_id == caller.workspace_id, InboundMessage.thread_id == thread_id)
        .where(*_later(InboundMessage.received_at, InboundMessage.id, cursor))
        .order_by(InboundMessage.received_at, InboundMessage.id)
        .limit(limit + 1)
    )
    return map(_show_received, session.scalars(query))


def _show_sent(row: EmailLog) -> dict[str, Any]:
    return {
        "id": row.message_id,
        "direction": "outbound",
        "at": row.finished_at,
        "subject": row.subject,
        "from": row.sender_email,
        "recipients": row.recipients,
        "cc": row.cc,
        "status": row.status,
        "error": row.error,
        "ref_id": ulid(row.submission_id),
        "message_id": row.rfc_message_id,
        "provider_message_id": row.provider_message_id,
        "provider": row.provider,
        "sender_user_id": row.sender_user_id,
        "has_attachment": row.attachment_filename is not None,
        "attachment_filename": row.attachment_filename,
    }


def _show_received(row: InboundMessage) -> dict[str, Any]:
    return {
        "id": row.id,
        "direction": "inbound",
        "at": row.received_at,
        "subject": row.subject,
        "from": row.from_email,
        "from_name": row.from_name,
        "recipients": row.to,
        "cc": row.cc,
        "status": "received",
        "message_id": row.rfc_message_id,
        "in_reply_to": row.in_reply_to,
        "references": row.references,
        "is_spam": row.is_spam,
        "is_automatic": row.is_automatic,
        "text": row.text,
        "html": None if row.html is None else nh3.clean(row.html),
        "attachments": [
            {name: file.get(name) for name in ("name", "mimeType", "size")}
            | {"url": f"/v1/email/messages/{row.id}/attachments/{number}" if file.get("sha256") else None}
            for number, file in enumerate(row.attachments)
        ],
    }
