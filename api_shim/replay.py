"""Deliveries that are to go out again: the same ids, due now. SQL only; the worker signs and posts them as ever."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

FIRST_CHUNK, CHUNK = 1_000, 10_000
"""Deliveries made due in one transaction, from the first to the largest: each has twice as many as the one before it,
so that the first go out early and a large replay takes few looks."""
_FIRST = UUID(int=0)

_UNPARK = text("""
    update webhook_delivery set due_at = clock_timestamp()
    where endpoint_id = :endpoint_id and state = 'pending' and due_at is null
""")

# Walks along the events, so that a delivery that is posted while the walk goes on is not found a second time.
_REPLAY = text("""
    with chunk as (
        select id from webhook_delivery
        where endpoint_id = :endpoint_id and event_id > :after
          and (cast(:delivery_id as uuid) is null or id = :delivery_id)
          and (cast(:since as timestamptz) is null or created_at >= :since)
          and (cast(:until as timestamptz) is null or created_at <= :until)
          and (cast(:state as text) is null or state = :state)
        order by event_id limit :chunk for no key update
    ), replayed as (
        update webhook_delivery d set state = 'pending', due_at = clock_timestamp(), tries = 0, delivered_at = null
        from chunk where d.id = chunk.id
        returning d.event_id
    )
    select count(*) as replayed, (select event_id from replayed order by event_id desc limit 1) as last from replayed
""")


def unpark(session: Session, endpoint_id: UUID) -> None:
    """Makes due what has waited since the endpoint was disabled. The caller commits."""
    session.execute(_UNPARK, {"endpoint_id": endpoint_id})


def replay(
    session: Session,
    endpoint_id: UUID,
    *,
    delivery_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    state: str | None = None,
) -> Iterator[int]:
    """Makes deliveries due again with all their tries before them; yields how many with each transaction.

    They are chosen by everything that is given. The caller commits after each number.
    """
    chosen: dict[str, Any] = {"delivery_id": delivery_id, "since": since, "until": until, "state": state}
    after, chunk = _FIRST, FIRST_CHUNK
    while True:
        parameters = {"endpoint_id": endpoint_id, "after": after, "chunk": chunk, **chosen}
        done = session.execute(_REPLAY, parameters).one()
        yield done.replayed
        if done.replayed < chunk:
            return
        after, chunk = done.last, min(2 * chunk, CHUNK)
