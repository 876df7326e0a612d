"""The follow-up: log rows, CRM activities, threads, events and webhook deliveries, by set-based SQL in one transaction.

It may fail and be repeated for ever without a second mail: what it works from is the outbox row that the outcome's
commit wrote, and that row goes in the commit of the log rows. While the log cannot be written the caller of a waiting
request gets EMAIL_LOG_FAILED, the event says so, and a later try repairs it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from models.arrays import Ids
from models.message import ACCEPTED
from worker.bell import FOLLOWUP_QUEUE, Work, endpoint_lane
from worker.faults import faultpoint
from worker.meter import count_outcomes
from worker.outcome_events import append_outcomes, append_repaired, append_unlogged
from worker.runtime import Runtime
from worker.standstill import RUNS
from worker.traces import MOST

log = structlog.get_logger()

RECORDED_CHANNEL = "postroad_recorded"
"""PostgreSQL notifications for requests that wait for the log row: ``<message id> ok`` or ``<message id> failed``."""

BATCH = 1_000
"""Messages recorded in one transaction, about."""
BATCH_ROWS = 400
"""Outbox rows looked at for it."""
REPAIR_SECONDS = 5.0
"""A task begins no further repair after so long."""
TRUST_STEP = 4
"""A repair after one that succeeded is 2 to this times as large."""
LONGEST_WAIT_SECONDS = 10.0
"""A repair is tried at least this often, so that it follows the end of the trouble closely."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """Outbox rows taken in this transaction, and the messages they name."""

    message_ids: Ids
    tries: int
    """The most that any of them was tried; above 0 the log had failed before."""
    full: bool
    """There may be more like them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What became of one transaction of the follow-up."""

    messages: int
    full: bool
    """There may be more that did not fit."""
    go_on: bool
    """It was a repair, and there may be more to repair."""


# What has failed before is taken in ever smaller groups of its own kind, down to one message, so that one that can
# never be logged is soon alone with its trouble.
_TAKE = text(f"""
    with due as (
        select id, tries, first_value(tries) over by_age as kind,
               sum(cardinality(message_ids)) over by_age - cardinality(message_ids) as before
        from (select id, tries, message_ids from followup
              where due_at <= clock_timestamp() and {RUNS.format(queue=f"'{FOLLOWUP_QUEUE}'")}
              order by tries, id limit {BATCH_ROWS} for update skip locked) as locked
        window by_age as (order by tries, id)
    )
    delete from followup f using due
    where f.id = due.id and due.tries = due.kind
          and due.before < greatest(1, :batch >> greatest(0, 2 * least(due.tries, 10) - :trust))
    returning f.id, f.message_ids, f.tries
""")  # noqa: S608 -- constants

_FINISHED = """
    finished as materialized (
        select m.id, m.workspace_id, m.submission_id, m.priority, m.state, m.subject, m.recipients, m.mailer_id,
               m.rfc_message_id, m.provider_message_id, m.thread_id, m.reason, m.finished_at, m.created_at
        from message m where m.id = any(:ids) and m.finished_at is not null
    ), submitted as materialized (
        select s.id, s.content->>'subject' as subject, s.content->'sender'->>'email' as sender_email, s.total,
               s.content->'in_reply_to' is not null as is_reply, s.campaign_id,
               s.contact_id, s.deal_id, s.customer_id,
               s.sender_user_id, s.awaited,
               array(select item->>'email' from jsonb_array_elements(coalesce(s.content->'cc', '[]')) item) as cc,
               s.content->'attachments'->0->>'filename' as attachment_filename
        from submission s where s.id in (select submission_id from finished)
    )
"""

# A message that was put back into the queue since (a person's retry) has no outcome now; its next one is recorded.
_LOG = text(f"""
    with {_FINISHED}
    insert into email_log (message_id, workspace_id, submission_id, priority, type, status, subject, sender_email,
        recipient_email, recipients, cc, provider, mailer_id, rfc_message_id, provider_message_id, thread_id,
        sender_user_id, contact_id, deal_id, customer_id, campaign_id, attachment_filename, error, finished_at,
        created_at)
    select m.id, m.workspace_id, m.submission_id, m.priority,
           case when s.is_reply then 'reply' when s.total > 1 then 'campaign'
                when cardinality(m.recipients) > 1 then 'shared' else 'single' end,
           m.state, coalesce(m.subject, s.subject, ''), s.sender_email, m.recipients[1], m.recipients, s.cc,
           mailer.provider, m.mailer_id, m.rfc_message_id, m.provider_message_id, m.thread_id, s.sender_user_id,
           contact.id, deal.id, customer.id, s.campaign_id, s.attachment_filename,
           m.reason, m.finished_at, m.created_at
    from finished m join submitted s on s.id = m.submission_id join mailer on mailer.id = m.mailer_id
         left join contact on contact.id = s.contact_id and contact.workspace_id = m.workspace_id
         left join deal on deal.id = s.deal_id and deal.workspace_id = m.workspace_id
         left join customer on customer.id = s.customer_id and customer.workspace_id = m.workspace_id
    on conflict (message_id) do update set status = excluded.status, error = excluded.error, subject = excluded.subject,
        rfc_message_id = excluded.rfc_message_id, provider_message_id = excluded.provider_message_id,
        finished_at = excluded.finished_at
""")  # noqa: S608 -- constants

# One line per linked entity that still exists, for mails that reached somebody.
_ACTIVITIES = text("""
    insert into activity (id, workspace_id, entity_type, entity_id, message_id, kind, direction, subject, created_at)
    select gen_random_uuid(), l.workspace_id, link.kind, link.id, l.message_id, 'email_sent', 'outbound', l.subject,
           l.finished_at
    from email_log l,
         lateral (values ('contact', l.contact_id), ('deal', l.deal_id), ('customer', l.customer_id)) link (kind, id)
    where l.message_id = any(:ids) and link.id is not null and l.status = any(:accepted)
    on conflict do nothing
""")

# A thread appears with its first mail that reached somebody; later mails add their people and move it up.
_THREADS = text("""
    insert into thread as t (id, workspace_id, subject, participants, last_direction, has_outbound, provider_thread_id,
        contact_id, deal_id, customer_id, last_message_at)
    select distinct on (m.thread_id) m.thread_id, l.workspace_id, l.subject,
           array(select distinct lower(address) from unnest(l.recipients || l.cc || l.sender_email) address order by 1),
           'outbound', true, m.provider_thread_id, l.contact_id, l.deal_id, l.customer_id, l.finished_at
    from message m join email_log l on l.message_id = m.id
    where m.id = any(:ids) and m.thread_id is not null and l.status = any(:accepted)
    order by m.thread_id, l.finished_at desc
    on conflict (id) do update set
        participants = array(
            select distinct address from unnest(t.participants || excluded.participants) address order by 1),
        last_direction = 'outbound', has_outbound = true,
        provider_thread_id = coalesce(t.provider_thread_id, excluded.provider_thread_id),
        contact_id = coalesce(t.contact_id, excluded.contact_id), deal_id = coalesce(t.deal_id, excluded.deal_id),
        customer_id = coalesce(t.customer_id, excluded.customer_id),
        last_message_at = greatest(t.last_message_at, excluded.last_message_at)
""")

_ANNOUNCE = text("""
    with mine as materialized (select id, submission_id from message where id = any(:ids)),
    awaited as materialized (
        select id from submission s where s.id in (select submission_id from mine) and s.awaited
    )
    select pg_notify(:channel, mine.id || ' ' || :word) from mine join awaited on awaited.id = mine.submission_id
""")

_TRACED = text("""
    select distinct s.traceparent from message m join submission s on s.id = m.submission_id
    where m.id = any(:ids) and s.traceparent is not null limit :most
""")

_POSTPONE = text("""
    insert into followup (message_ids, tries, due_at, error)
    select array[id], :tries, clock_timestamp() + :wait, :error from unnest(:ids) as id
""")


def record(runtime: Runtime) -> Work:
    """Records what reached an outcome, about `BATCH` messages, which are counted.

    A failure of the log is written down and tried again by itself; any other database error is raised. A repair that
    succeeds is followed by ever larger ones, so that a backlog of small groups is soon worked off.
    """
    recorded, trust = 0, 0
    ends_at = time.monotonic() + REPAIR_SECONDS
    while True:
        group = _record_group(runtime, trust)
        recorded += group.messages
        if not group.go_on or time.monotonic() > ends_at:
            return Work(recorded, more=group.full or group.go_on)
        trust = trust + TRUST_STEP if group.messages else 0


def _record_group(runtime: Runtime, trust: int) -> Group:
    """trust: by how many halvings fewer than usual what had failed before is taken; a larger group that fails is put
    back as it was.
    """
    since = time.time_ns()
    with runtime.engine.connect() as connection:
        outbox = _take(connection, trust)
        if not outbox.message_ids:
            connection.commit()  # a rollback would cost the connection its prepared statements
            return Group(messages=0, full=False, go_on=False)
        go_on = outbox.tries > 0
        try:
            with connection.begin_nested():
                endpoints = _write(connection, outbox)
        except SQLAlchemyError as error:
            if trust:
                return Group(messages=0, full=False, go_on=True)
            go_on = False
            endpoints = _postpone(connection, outbox, error)
        traced = _traced(connection, outbox) if runtime.traces is not None else ()
        faultpoint("following_up")
        connection.commit()
    if runtime.traces is not None:
        runtime.traces.note("record", traced, {"mails": len(outbox.message_ids)}, since)
    for endpoint_id in endpoints:
        runtime.bells.ring(endpoint_lane(endpoint_id))
    return Group(messages=len(outbox.message_ids), full=outbox.full, go_on=go_on)


def _take(connection: Connection, trust: int) -> Outbox:
    rows = connection.execute(_TAKE, {"batch": BATCH, "trust": trust}).all()
    ids = Ids(sorted({message_id for row in rows for message_id in row.message_ids}))
    full = len(ids) >= BATCH or len(rows) == BATCH_ROWS
    return Outbox(ids, max((row.tries for row in rows), default=0), full)


def _traced(connection: Connection, outbox: Outbox) -> Sequence[str]:
    """The spans that the submissions came from."""
    return connection.execute(_TRACED, {"ids": outbox.message_ids, "most": MOST}).scalars().all()


def _write(connection: Connection, outbox: Outbox) -> set[UUID]:
    """Everything that follows from an outcome. Returns the endpoints that have something to deliver."""
    parameters = {"ids": outbox.message_ids, "accepted": sorted(state.value for state in ACCEPTED)}
    connection.execute(_LOG, parameters)
    connection.execute(_THREADS, parameters)
    connection.execute(_ACTIVITIES, parameters)
    count_outcomes(connection, outbox.message_ids)
    append = append_repaired if outbox.tries else append_outcomes
    endpoints = append(connection, outbox.message_ids)
    _announce(connection, outbox, "ok")
    return endpoints


def _postpone(connection: Connection, outbox: Outbox, error: SQLAlchemyError) -> set[UUID]:
    """Back to the outbox, one row per message: one that can never be logged must not hold up the others."""
    reason = type(error.__cause__ or error).__name__
    log.error(
        "log_failed",
        messages=len(outbox.message_ids),
        tries=outbox.tries + 1,
        error=reason,
        next="tried again by itself",
    )
    wait = min(0.5 * 2**outbox.tries, LONGEST_WAIT_SECONDS)
    parameters = {"ids": outbox.message_ids, "tries": min(outbox.tries + 1, 1_000)}
    connection.execute(_POSTPONE, parameters | {"wait": timedelta(seconds=wait), "error": reason})
    _announce(connection, outbox, "failed")
    if outbox.tries:
        return set()
    return append_unlogged(connection, outbox.message_ids)


def _announce(connection: Connection, outbox: Outbox, word: str) -> None:
    connection.execute(_ANNOUNCE, {"channel": RECORDED_CHANNEL, "ids": outbox.message_ids, "word": word})
