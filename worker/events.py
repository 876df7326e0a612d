"""The event log: the one place that numbers events and addresses them to endpoints."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, TextClause, text

from models.base import uuid7
from models.event import WIRE_NAMES, EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to be appended."""

    workspace_id: UUID
    type: EventType
    at: datetime
    message_id: UUID | None = None
    submission_id: UUID | None = None
    state: str | None = None
    """The state of the message that it led to."""
    recipients: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    natural_key: str | None = None
    endpoint_id: UUID | None = None
    """Addressed to this endpoint alone, whatever it asked for; None: to all that want it."""
    id: UUID = field(default_factory=uuid7)


# The row lock on the workspace is held to the end of the transaction: numbers are given in the order of commits and a
# rolled-back transaction leaves no gap.
_NUMBERS = text("update workspace set event_cursor = event_cursor + :count where id = :id returning event_cursor")

_APPEND = """
    {given}, appended as (
        insert into event (id, workspace_id, cursor, message_id, submission_id, seq, type, state, recipients, data, at)
        select g.id, g.workspace_id, g.cursor, g.message_id, g.submission_id,
               coalesce(earlier.last, 0) + row_number() over (partition by g.message_id order by g.cursor),
               g.type, g.state, g.recipients, coalesce(g.data, '{{}}'), g.at
        from given g
        left join lateral (select max(seq) as last from event
                           where event.message_id = g.message_id and event.id >= :since) earlier on true
    ), known as (
        insert into event_key (digest, event_id) select decode(g.digest, 'hex'), g.id from given g
        where g.digest is not null
    ), deliveries as (
        insert into webhook_delivery (id, workspace_id, endpoint_id, event_id, due_at, created_at)
        select gen_random_uuid(), g.workspace_id, endpoint.id, g.id, clock_timestamp(), clock_timestamp()
        from given g join webhook_endpoint endpoint on endpoint.workspace_id = g.workspace_id
                  and endpoint.status = 'active' and (g.endpoint_id is null or g.endpoint_id = endpoint.id)
             left join submission s on s.id = g.submission_id
        where g.endpoint_id is not null
           or endpoint.events && array['*', g.wire]
              and (endpoint.campaign_id is null or endpoint.campaign_id = s.campaign_id)
              and (endpoint.ref_id is null or endpoint.ref_id = g.submission_id)
        returning endpoint_id
    )
    select distinct endpoint_id from deliveries
"""


def appending(given: str) -> TextClause:
    """The statement that appends the events of ``given`` and addresses them; its rows are the endpoints.

    given: ``with`` and the query named ``given``, whose columns are those of an event, less ``seq``, and ``wire``,
    ``digest`` and ``endpoint_id``. Parameters: what it asks for, and ``since`` (see `since`).
    """
    return text(_APPEND.format(given=given))


_APPEND_ROWS = appending("""
    with given as (
        select e.*, cast(:workspace_id as uuid) as workspace_id, :cursor + e.position as cursor
        from jsonb_to_recordset(cast(:events as jsonb)) as e(
            id uuid, message_id uuid, submission_id uuid, position int, type text, wire text, state text,
            recipients text[], data jsonb, digest text, at timestamptz, endpoint_id uuid)
    )
""")


def append_events(connection: Connection, events: Sequence[NewEvent]) -> set[UUID]:
    """Appends events in this order and addresses them to the endpoints that want them. The caller commits.

    Returns the endpoints that now have something to deliver. Natural keys must be new (see `unseen`).
    """
    by_workspace: defaultdict[UUID, list[NewEvent]] = defaultdict(list)
    for event in events:
        by_workspace[event.workspace_id].append(event)
    endpoints: set[UUID] = set()
    for workspace_id in sorted(by_workspace):  # one order for all, so that two recorders cannot deadlock
        endpoints |= _append(connection, workspace_id, by_workspace[workspace_id])
    return endpoints


_KNOWN = text("select digest from event_key where digest = any(:digests)")


def unseen(connection: Connection, events: Sequence[NewEvent]) -> list[NewEvent]:
    """Those that are not in the log by their natural key, each key once, in the same order.

    Whoever appends the same event at the same time makes one of the two appends fail; it may simply be repeated.
    """
    digests = {digest for event in events if (digest := _digest(event)) is not None}
    known = set(connection.execute(_KNOWN, {"digests": list(digests)}).scalars()) if digests else set()
    fresh = []
    for event in events:
        digest = _digest(event)
        if digest is None or digest not in known:
            fresh.append(event)
            known.add(digest)
    return fresh


def _digest(event: NewEvent) -> bytes | None:
    return None if event.natural_key is None else hashlib.sha256(event.natural_key.encode()).digest()


def _append(connection: Connection, workspace_id: UUID, events: Sequence[NewEvent]) -> set[UUID]:
    last = connection.execute(_NUMBERS, {"id": workspace_id, "count": len(events)}).scalar_one()
    rows = [_row(position, event) for position, event in enumerate(events, start=1)]
    parameters = {"events": orjson.dumps(rows).decode(), "workspace_id": workspace_id, "cursor": last - len(events)}
    oldest = min((event.message_id for event in events if event.message_id is not None), default=UUID(int=0))
    return set(connection.execute(_APPEND_ROWS, parameters | {"since": since(oldest)}).scalars())


def since(oldest: UUID) -> UUID:
    """No event of this message or a later one has a lower id: an event is younger than its message, by clocks an hour
    apart at most. It spares the months before.
    """
    return UUID(int=max(0, oldest.int - (3_600_000 << 80)))


def _row(position: int, event: NewEvent) -> dict[str, Any]:
    digest = _digest(event)
    return {
        "id": event.id,
        "message_id": event.message_id,
        "submission_id": event.submission_id,
        "position": position,
        "type": event.type.value,
        "wire": WIRE_NAMES[event.type],
        "state": event.state,
        "recipients": event.recipients,
        "data": dict(event.data),
        "digest": digest and digest.hex(),
        "at": event.at,
        "endpoint_id": event.endpoint_id,
    }
