"""The rows behind webhook deliveries: claiming, results, health of an endpoint. SQL only, nothing of HTTP.

Every function takes the connection of a transaction that its caller ends.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from models.arrays import Ids
from models.event import EventType
from worker.events import NewEvent, append_events
from worker.parcel import Delivery
from worker.settlement import Settlement

ATTEMPTS_KEPT = 20
PUSH_LIMIT = 1000
"""Rows that are put off in one go; a larger backlog of a dead endpoint is not rewritten over and over."""


_CLAIM = text("""
    with due as (
        select id, due_at from webhook_delivery where endpoint_id = :endpoint and due_at <= now()
        order by due_at limit :limit for update skip locked
    ), claimed as (
        update webhook_delivery d set token = d.token + 1, due_at = now() + :lease
        from due where d.id = due.id
        returning d.id, d.token, d.event_id, due.due_at, d.tries, d.created_at)
    select * from claimed order by created_at, id""")

_CLAIM_THESE = text("""
    update webhook_delivery set token = token + 1, due_at = now() + :lease
    where id = any(:ids) returning id, token, event_id, tries, created_at""")

_IN_ORDER = text("""
    select d.id, d.due_at, d.due_at <= now() as is_due from webhook_delivery d join event e on e.id = d.event_id
    where d.endpoint_id = :endpoint and d.due_at is not null order by e.cursor limit :limit""")

_SETTLE = text(f"""
    update webhook_delivery d set
        state = r.state, tries = d.tries + 1,
        due_at = now() + r.wait * interval '1 second',
        delivered_at = case when r.state = 'delivered' then now() end,
        attempts = case when jsonb_array_length(d.attempts) < {ATTEMPTS_KEPT} then d.attempts else d.attempts - 0 end
            || r.attempt
    from jsonb_to_recordset(cast(:settlements as jsonb))
             as r(ids uuid[], tokens int[], state text, wait float8, attempt jsonb)
         cross join lateral unnest(r.ids, r.tokens) as mine (id, token)
    where d.id = mine.id and d.token = mine.token""")  # noqa: S608 -- the only value put in is a number of ours

_HAND_BACK = text("""
    update webhook_delivery d set due_at = coalesce(now() + :hold, r.due_at)
    from unnest(cast(:ids as uuid[]), cast(:tokens as int[]), cast(:due_ats as timestamptz[])) as r(id, token, due_at)
    where d.id = r.id and d.token = r.token""")

_PUT_OFF = text("""
    update webhook_delivery set due_at = now() + :hold where id in (
        select id from webhook_delivery where endpoint_id = :endpoint and due_at <= now()
        order by due_at limit :limit for update skip locked)""")

# Under a lock on the endpoint, so that one which is enabled again at this moment keeps its deliveries due.
_PARK = text("""
    with disabled as (select id from webhook_endpoint where id = :endpoint and status <> 'active' for share)
    update webhook_delivery set due_at = null from disabled where endpoint_id = disabled.id and due_at is not null""")

_RESTS = text("""
    select greatest(extract(epoch from next_post_at - clock_timestamp()), 0)::float8 from webhook_endpoint
    where id = :endpoint for no key update""")
_REST = text("""
    update webhook_endpoint
    set next_post_at = greatest(next_post_at, clock_timestamp()) + make_interval(secs => :seconds)
    where id = :endpoint""")

_FAILING = text("""
    update webhook_endpoint set failing_since =
        case when :recovered then cast(:since as timestamptz) else coalesce(failing_since, :since) end
    where id = :endpoint returning failing_since""")

_DISABLE = text("""
    update webhook_endpoint set status = 'disabled', status_reason = :reason
    where id = :endpoint and status = 'active' returning workspace_id""")


def claim(db: Connection, endpoint: UUID, limit: int, lease: timedelta) -> list[Delivery]:
    """Takes due deliveries in hand and returns them oldest first. Rows in another worker's hand are skipped."""
    rows = db.execute(_CLAIM, {"endpoint": endpoint, "limit": limit, "lease": lease})
    return [Delivery._make(row) for row in rows.all()]


def claim_in_order(
    db: Connection, endpoint: UUID, limit: int, lease: timedelta
) -> tuple[list[Delivery], datetime | None]:
    """Takes the due head of an ordered lane in hand, in the order of the events.

    With an empty list comes the time until which the head blocks the lane: it waits for its next try or is in
    another worker's hand. The endpoint's row is locked, so that two claims cannot each take a part.
    """
    db.execute(text("select from webhook_endpoint where id = :endpoint for no key update"), {"endpoint": endpoint})
    waiting = db.execute(_IN_ORDER, {"endpoint": endpoint, "limit": limit}).all()
    head = []
    for row in waiting:
        if not row.is_due:
            break
        head.append(row)
    if not head:
        return [], waiting[0].due_at if waiting else None
    due_at = {row.id: row.due_at for row in head}
    claimed = {
        row["id"]: Delivery(**row, due_at=due_at[row["id"]])
        for row in db.execute(_CLAIM_THESE, {"ids": list(due_at), "lease": lease}).mappings()
    }
    return [claimed[key] for key in due_at if key in claimed], None


def settle(db: Connection, settlements: Sequence[Settlement]) -> None:
    """Writes results down. A delivery that somebody else has claimed since is left alone."""
    if settlements:
        db.execute(_SETTLE, {"settlements": orjson.dumps([_settled(each) for each in settlements]).decode()})


def _settled(settlement: Settlement) -> dict[str, Any]:
    return {
        "ids": [each.id for each in settlement.deliveries],
        "tokens": [each.token for each in settlement.deliveries],
        "state": settlement.state,
        "wait": settlement.wait,
        "attempt": settlement.attempt,
    }


def hand_back(db: Connection, unposted: Sequence[Delivery], hold: timedelta | None) -> None:
    """Gives claimed deliveries back untried: due as they were, or in ``hold``."""
    if unposted:
        values = {
            "ids": Ids(each.id for each in unposted),
            "tokens": [each.token for each in unposted],
            "due_ats": [each.due_at for each in unposted],
            "hold": hold,
        }
        db.execute(_HAND_BACK, values)


def put_off(db: Connection, endpoint: UUID, hold: timedelta) -> bool:
    """Makes what is due now due in ``hold``. True if that was all of it; False beyond PUSH_LIMIT rows."""
    done = db.execute(_PUT_OFF, {"endpoint": endpoint, "hold": hold, "limit": PUSH_LIMIT})
    return done.rowcount < PUSH_LIMIT


def rests(db: Connection, endpoint: UUID) -> float:
    """Seconds that an endpoint with a limit has to be left alone; 0 if not. Its row is locked until the commit."""
    return float(db.execute(_RESTS, {"endpoint": endpoint}).scalar() or 0.0)


def rest(db: Connection, endpoint: UUID, seconds: float) -> None:
    """Reserves the next ``seconds`` for what was claimed."""
    db.execute(_REST, {"endpoint": endpoint, "seconds": seconds})


def park(db: Connection, endpoint: UUID) -> None:
    """Nothing of a disabled endpoint is due; it stays pending until the endpoint is enabled again."""
    db.execute(_PARK, {"endpoint": endpoint})


def note_health(db: Connection, endpoint: UUID, outcomes: Iterable[tuple[bool, datetime]]) -> datetime | None:
    """Brings ``failing_since`` up to date with (accepted, at) in the order they happened; returns it."""
    recovered, since = False, None
    for accepted, at in outcomes:
        if accepted:
            recovered, since = True, None
        elif since is None:
            since = at
    values = {"endpoint": endpoint, "recovered": recovered, "since": since}
    failing: datetime | None = db.execute(_FAILING, values).scalar()
    return failing


def disable(db: Connection, endpoint: UUID, reason: str) -> bool:
    """Disables the endpoint, parks its deliveries and reports it as an event, to other endpoints too.

    False if it is disabled already. The workspace's row is locked until the transaction ends.
    """
    workspace = db.execute(_DISABLE, {"endpoint": endpoint, "reason": reason}).scalar()
    if workspace is None:
        return False
    park(db, endpoint)
    data = {"endpoint_id": str(endpoint), "reason": reason}
    event = NewEvent(workspace_id=workspace, type=EventType.ENDPOINT_DISABLED, at=datetime.now(UTC), data=data)
    append_events(db, [event])
    return True
