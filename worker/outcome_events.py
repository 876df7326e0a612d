"""What an outcome means to the outside: the events of messages that have just reached one."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from models.arrays import Ids
from models.base import uuid7
from models.event import WIRE_NAMES, EventType
from models.message import ACCEPTED
from providers import CONFIRMS_DELIVERY
from worker.events import NewEvent, append_events, appending, since

_EVIDENCE = '{"evidence": "accepted"}'
"""Data of the best news that most providers ever give."""

_ALIKE = f"""m.outcomes is null and m.state in ({", ".join(f"'{state}'" for state in sorted(ACCEPTED))})"""
"""Mail that everybody got at one go: nearly all there is, and an event for it is made without a look at it."""

# Rows of workspaces are locked in one order, and those that the events of other mails need with them, so that two
# recorders cannot deadlock; they stay locked to the end of the transaction (see `worker.events`).
_APPEND_ALIKE = appending(f"""
    with finished as materialized (
        select m.id, m.workspace_id, m.submission_id, m.state, m.recipients, m.finished_at, m.mailer_id,
               {_ALIKE} as alike
        from message m where m.id = any(:ids) and m.finished_at is not null
    ), locked as materialized (
        select id from workspace where id in (select workspace_id from finished) order by id for no key update
    ), outcome as materialized (
        select m.*, mailer.provider = any(:confirm) as confirmed,
               row_number() over (partition by m.workspace_id order by m.id) as position, row_number() over () as number
        from finished m join mailer on mailer.id = m.mailer_id where m.alike
    ), numbered as (
        update workspace w set event_cursor = event_cursor + mine.count
        from locked join (select workspace_id, count(*) as count from outcome group by workspace_id) mine
             on mine.workspace_id = locked.id
        where w.id = locked.id returning w.id, w.event_cursor - mine.count as before
    ), given as (
        select (:event_ids)[o.number] as id, o.workspace_id, numbered.before + o.position as cursor,
               o.id as message_id, o.submission_id, kind.type, kind.wire, o.state, o.recipients, kind.data,
               null::text as digest, o.finished_at as at, null::uuid as endpoint_id
        from outcome o join numbered on numbered.id = o.workspace_id join (values
            (true, '{EventType.ACCEPTED}', '{WIRE_NAMES[EventType.ACCEPTED]}', null::jsonb),
            (false, '{EventType.DELIVERED}', '{WIRE_NAMES[EventType.DELIVERED]}', '{_EVIDENCE}')
        ) kind (confirmed, type, wire, data) on kind.confirmed = o.confirmed
    )
""")  # noqa: S608 -- constants

_OUTCOMES = """
    select m.id, m.workspace_id, m.submission_id, m.state, m.recipients, m.outcomes, m.reason, m.finished_at,
           mailer.provider
    from message m join mailer on mailer.id = m.mailer_id
    where m.id = any(:ids) and m.finished_at is not null {those} order by m.id
"""
_ALL = text(_OUTCOMES.format(those=""))
_OTHERS = text(_OUTCOMES.format(those=f"and not ({_ALIKE})"))


def append_outcomes(connection: Connection, message_ids: Ids) -> set[UUID]:
    """Appends what the outcomes of these messages mean, of those that have one. The caller commits.

    Returns the endpoints that now have something to deliver.
    """
    if not message_ids:
        return set()
    parameters = {
        "ids": message_ids,
        "confirm": sorted(CONFIRMS_DELIVERY),
        "event_ids": Ids(uuid7() for _ in message_ids),
        "since": since(min(message_ids)),
    }
    endpoints = set(connection.execute(_APPEND_ALIKE, parameters).scalars())
    others = connection.execute(_OTHERS, {"ids": message_ids}).all()
    return endpoints | append_events(connection, [event for row in others for event in _events(row)])


def append_repaired(connection: Connection, message_ids: Ids) -> set[UUID]:
    """The same for messages whose log had failed before and is now repaired, which it says, too."""
    rows = connection.execute(_ALL, {"ids": message_ids}).all()
    events = [event for row in rows for event in _events(row)]
    return append_events(connection, [*events, *(_log_event(row, EventType.LOG_REPAIRED) for row in rows)])


def append_unlogged(connection: Connection, message_ids: Ids) -> set[UUID]:
    """Says of those that were sent that their log failed."""
    rows = connection.execute(_ALL, {"ids": message_ids}).all()
    return append_events(connection, [_log_event(row, EventType.LOG_FAILED) for row in rows if row.state == "sent"])


def _events(row: Any) -> list[NewEvent]:
    """What an outcome means to the outside: one event per kind of outcome, naming its recipients."""
    by_type: dict[EventType, list[str]] = {}
    for address in row.recipients:
        outcome = (row.outcomes or {}).get(address, {}).get("outcome")
        by_type.setdefault(_event_type(row, outcome), []).append(address)
    return [_event(row, type_, addresses) for type_, addresses in by_type.items()]


def _event_type(row: Any, outcome: str | None) -> EventType:
    if outcome in ("permanent", "suppressed", "skipped") or row.state not in ACCEPTED:
        composed = not (row.reason or "").startswith("could not be composed")
        return EventType.FAILED if composed else EventType.GENERATION_FAILED
    return EventType.ACCEPTED if row.provider in CONFIRMS_DELIVERY else EventType.DELIVERED


def _event(row: Any, type_: EventType, addresses: Sequence[str]) -> NewEvent:
    data: dict[str, Any] = {}
    if type_ is EventType.DELIVERED:
        data["evidence"] = "accepted"
    if type_ in (EventType.FAILED, EventType.GENERATION_FAILED):
        details = [(row.outcomes or {}).get(address, {}).get("detail") for address in addresses]
        data["reason"] = next((detail for detail in details if detail), row.reason)
        data["status"] = row.state
    return NewEvent(
        workspace_id=row.workspace_id,
        message_id=row.id,
        submission_id=row.submission_id,
        type=type_,
        state=row.state,
        recipients=tuple(addresses),
        at=row.finished_at,
        data=data,
    )


def _log_event(row: Any, type_: EventType) -> NewEvent:
    return NewEvent(
        workspace_id=row.workspace_id,
        message_id=row.id,
        submission_id=row.submission_id,
        type=type_,
        state=row.state,
        recipients=tuple(row.recipients),
        at=row.finished_at,
    )
