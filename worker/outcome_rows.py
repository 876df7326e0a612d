"""How verdicts are written down: one statement for a whole slice, guarded by the state, the attempt and the lease, with
the follow-up's outbox row in the same commit.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from models.arrays import Ids
from models.database import fetch
from models.message import OPEN, TRANSITIONS, UNTIL_SOMEBODY_ACTS, State
from worker.lease import Held
from worker.outcome import Verdict
from worker.storable import storable

OUTCOME_CHANNEL = "postroad_outcome"
"""PostgreSQL notifications for requests that wait, sent with the commit of an outcome: the message id and, where a
provider's answer led to it and there is room, a blank and the row's columns that an answer is made of, as JSON.
"""

LONGEST_TOLD = 7_900
"""Bytes: a notification has room for 7,999 (PostgreSQL, NOTIFY), and 37 go to the id."""

TOLD = """json_build_object(
        'state', m.state, 'rfc_message_id', m.rfc_message_id, 'provider_message_id', m.provider_message_id,
        'thread_id', m.thread_id, 'provider', (select provider from mailer where id = m.mailer_id),
        'reason', m.reason, 'last', m.attempts->-1->>'outcome')::text"""

FROM_OUTSIDE = ("attempt", "provider_message_id", "rfc_message_id", "provider_thread_id", "outcomes", "reason")
"""Fields of a verdict with a provider's own words in them, which may hold what PostgreSQL does not take."""

# A slice's verdicts travel as one JSON array. A worker that comes back after its lease was ended may still report on
# the very attempt it made (the message is uncertain, no later attempt has begun): what it knows is better than asking.
# The same statement puts the attempts of the next slice on record: one commit while nothing is on the wire. Those that
# it finds begun already, under our own lease, were begun by the same statement before its answer was lost.
_RECORD = f"""
    with verdict as materialized (
        select v.*, {{campaign}} as campaign from json_to_recordset(cast(%(verdicts)s as json)) as v(
            message_id uuid, was message_state, state message_state, tries int, due_at timestamptz, attempt jsonb,
            provider_message_id text, rfc_message_id text, provider_thread_id text, outcomes jsonb, subject text,
            reason text, awaited bool, finished bool)
    ), written as (
        update message m
        set state = case when v.campaign = 'cancelled' then
                case when exists (select from jsonb_each(v.outcomes) one where one.value->>'outcome' = 'accepted')
                     then 'sent' else 'cancelled' end::message_state else v.state end,
            due_at = case v.campaign when 'paused' then %(held)s when 'cancelled' then null else v.due_at end,
            attempts = case when v.attempt is null then m.attempts else m.attempts || v.attempt end,
            provider_message_id = coalesce(v.provider_message_id, m.provider_message_id),
            rfc_message_id = coalesce(v.rfc_message_id, m.rfc_message_id),
            provider_thread_id = coalesce(v.provider_thread_id, m.provider_thread_id),
            outcomes = v.outcomes, subject = coalesce(v.subject, m.subject),
            reason = case when v.campaign = 'cancelled' then 'its campaign was cancelled' else v.reason end,
            finished_at = case when v.finished or v.campaign = 'cancelled' then clock_timestamp() end
        from verdict v
        where m.id = v.message_id and m.tries = v.tries
          and (m.lease_id = %(lease_id)s and m.state = v.was or v.was = 'sending' and m.state = 'uncertain')
        returning m.id, v.finished or coalesce(v.campaign = 'cancelled', false) as finished,
                  case when v.awaited and (v.finished or v.campaign = 'cancelled') then {TOLD} end as told
    ), outbox as (
        insert into followup (message_ids)
        select array_agg(id) from written where finished having count(*) > 0
    ), begun as (
        update message set state = 'sending', tries = tries + 1
        where id = any(%(begin)s) and lease_id = %(lease_id)s and state = 'claimed'
        returning id
    )
    select id, false as begun, case when told is not null then pg_notify('{OUTCOME_CHANNEL}',
           case when octet_length(told) < {LONGEST_TOLD} then id || ' ' || told else id::text end)::text end
    from written
    union all select id, true, null from begun
    union all select id, true, null from message
    where id = any(%(begin)s) and lease_id = %(lease_id)s and state = 'sending'
"""  # noqa: S608 -- a constant

_RECORD_OUTCOMES = _RECORD.format(campaign="null::text")

# What would go back to the queue asks its campaign first, under a lock that a pause or a cancellation waits for: after
# those nothing of the campaign can become due.
_RECORD_RETURNS = _RECORD.format(
    campaign="""case when v.state = 'queued' then (
        select c.status from message m join submission s on s.id = m.submission_id
        join campaign c on c.workspace_id = s.workspace_id and c.id = s.campaign_id
        where m.id = v.message_id for share of c) end"""
)

_LATE = """
    update message m set attempts = m.attempts || jsonb_build_array(v.attempt || '{"late": true}')
    from jsonb_to_recordset(cast(%(verdicts)s as jsonb)) as v(message_id uuid, attempt jsonb)
    where m.id = v.message_id and v.attempt is not null and not m.attempts @> jsonb_build_array(v.attempt)
"""


def record_verdicts(
    connection: Connection, lease_id: int, verdicts: Sequence[Verdict], begin: Sequence[Held] = ()
) -> set[UUID]:
    """Writes a slice's verdicts, and puts attempts on record for the messages to ``begin``. One atomic statement.

    Returns the ids of those begun that are still ours; the others must not be sent. A verdict that was overtaken
    changes no state, but stays on the message as evidence.
    """
    rows = [_row(verdict) for verdict in verdicts]
    parameters = {"verdicts": orjson.dumps(rows).decode(), "lease_id": lease_id, "begin": Ids(one.id for one in begin)}
    returns = any(verdict.state is State.QUEUED for verdict in verdicts)
    statement = _RECORD_RETURNS if returns else _RECORD_OUTCOMES
    done = fetch(connection, statement, parameters | {"held": UNTIL_SOMEBODY_ACTS})
    written = {id_ for id_, begun, _ in done if not begun}
    if late := {verdict.message_id for verdict in verdicts} - written:
        overtaken = [row for row in rows if row["message_id"] in late]
        fetch(connection, _LATE, {"verdicts": orjson.dumps(overtaken).decode()})
    return {id_ for id_, begun, _ in done if begun}


def _row(verdict: Verdict) -> dict[str, Any]:
    """What is written, without the fields that are null."""
    if verdict.state is not verdict.was and verdict.state not in TRANSITIONS[verdict.was]:
        raise ValueError(f"a message may not go from {verdict.was} to {verdict.state}")
    row = {name: value for name, value in zip(Verdict._fields, verdict, strict=True) if value is not None}
    row |= {name: storable(row[name]) for name in FROM_OUTSIDE if name in row}
    row["finished"] = verdict.state not in OPEN
    return row
