"""The body of an event as the outside sees it: in webhooks and wherever else events are shown."""

import functools
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, select, type_coerce
from sqlalchemy.types import NullType

from models.base import ulid
from models.event import Event, EventType, wire_name
from models.mailer import Mailer
from models.message import Message, Submission

FACTS: Select[Any] = (
    select(
        Event.id,
        Event.cursor,
        Event.seq,
        Event.type,
        Event.state,
        type_coerce(Event.recipients, NullType()).label("recipients"),  # a list already; SQLAlchemy would copy it
        Event.data,
        Event.at,
        Event.message_id,
        Event.submission_id,
        Submission.campaign_id,
        Submission.custom_args,
        Submission.traceparent,
        Message.rfc_message_id,
        Message.thread_id,
        Message.provider_thread_id,
        Mailer.provider,
    )
    .outerjoin(Submission, Submission.id == Event.submission_id)
    .outerjoin(Message, Message.id == Event.message_id)
    .outerjoin(Mailer, Mailer.id == Message.mailer_id)
)
"""Everything `body` reads, one row per event. Callers add which events: by id, and always within one workspace."""

Facts = RowMapping | Mapping[str, Any]
"""A row of `FACTS`."""

_INCOMING = {
    "message-id": "message_id",
    "in-reply-to": "in_reply_to",
    "thread-id": "thread_id",
    "references": "references",
    "from": "from",
    "subject": "subject",
    "mailer-service": "mailer_service",
}
"""Wire key -> key in the ``data`` of a received event. ``references`` may be a list there."""

_INTERNAL = frozenset({"provider_thread_id"})
"""Keys of ``data`` that are shown under another name."""


def body(row: Facts) -> dict[str, Any]:
    """The JSON object for one event; row is a mapping with the columns of `FACTS`.

    ``{"event", "details", "type", "id", "timestamp", "sequence", "cursor", "state"}``: the first two are the
    documented body, the others stand beside them. ``sequence`` counts within the message and ``cursor`` within the
    workspace; ``timestamp`` is RFC 3339. Ids are `UUID`, which orjson writes faster than ``str`` does.
    """
    kind = row["type"]
    return {
        "event": wire_name(kind),
        "details": _DETAILS.get(kind, _mail)(row),
        "type": kind,
        "id": row["id"],
        "timestamp": row["at"].isoformat(),
        "sequence": row["seq"],
        "cursor": row["cursor"],
        "state": row["state"],
    }


def _mail(row: Facts) -> dict[str, Any]:
    """What is known of the mail, and beside it whatever the event itself says: evidence, reason, url, is_bot, ..."""
    return {
        **_said(row),
        "ref_id": None if row["submission_id"] is None else _ref_id(row["submission_id"]),
        "email": list(row["recipients"]),
        "message_id": row["rfc_message_id"],
        "thread_id": _thread(row),
        "campaign_id": row["campaign_id"],
        "custom_args": row["custom_args"] or {},
    }


def _incoming(row: Facts) -> dict[str, Any]:
    data = {"thread_id": _thread(row), "mailer_service": row["provider"], **row["data"]}
    if data.get("provider_thread_id"):
        data["thread_id"] = data["provider_thread_id"]
    if isinstance(data.get("references"), list):
        data["references"] = " ".join(data["references"])
    return {wire: data.get(key) for wire, key in _INCOMING.items()}


def _said(row: Facts) -> dict[str, Any]:
    return {key: value for key, value in row["data"].items() if key not in _INTERNAL}


def _thread(row: Facts) -> str | UUID | None:
    """Gmail's conversation id where there is one, else ours."""
    known: str | UUID | None = (
        row["data"].get("provider_thread_id")
        or row["provider_thread_id"]
        or row["data"].get("thread_id")
        or row["thread_id"]
    )
    return known


@functools.lru_cache(maxsize=1024)
def _ref_id(submission: UUID) -> str:
    """Remembered because the events of a campaign share it."""
    return ulid(submission)


_DETAILS: Mapping[str, Callable[[Facts], dict[str, Any]]] = {
    EventType.RECEIVED: _incoming,
    # Operators' events concern no mail.
    EventType.MAILER_RECONNECT_REQUIRED: _said,
    EventType.ENDPOINT_DISABLED: _said,
    EventType.ENDPOINT_TEST: _said,
}
