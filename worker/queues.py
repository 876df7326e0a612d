"""The four queues in numbers that come from the rows themselves."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from models.message import Priority
from worker.bell import FOLLOWUP_QUEUE, QUEUES, SEND_QUEUES, WEBHOOK_QUEUE
from worker.heartbeat import SILENT_SECONDS
from worker.standstill import paused

RATE_SECONDS = 10
"""Rates are averages over so long."""

# The statement's time, not the clock's: what may change from row to row (volatile) is never looked up in an index, and
# ten seconds of the log would be told from all of it by reading all of it.
#
# Everything that waits is in the partial index of due messages; what is in hand is named by the leases.
_WAITING = text("""
    select priority,
           count(*) filter (where state = 'queued' and due_at <= statement_timestamp()) as ready,
           count(*) filter (where state = 'queued' and due_at > statement_timestamp()) as scheduled,
           count(*) filter (where state = 'queued' and tries > 0
                            and due_at > statement_timestamp() and due_at < '9999-01-01') as retry_waiting,
           count(*) filter (where state = 'queued' and due_at >= '9999-01-01') as parked,
           count(*) filter (where state = 'uncertain') as uncertain,
           extract(epoch from statement_timestamp() - min(greatest(due_at, created_at)) filter (where state = 'queued'))
               as oldest_age
    from message where due_at is not null group by priority
""")
_IN_HAND = text("""
    select m.priority, count(*) filter (where m.state in ('claimed', 'sending')) as in_flight,
           count(*) filter (where m.state = 'uncertain') as uncertain
    from lease cross join unnest(lease.message_ids) as held(id)
         join message m on m.id = held.id and m.lease_id = lease.id and m.due_at is null
    group by m.priority
""")
_FAILED = text("select priority, count(*) as failed from email_log where status = 'failed' group by priority")
_SEND_RATES = text("""
    select priority, sum(came) as came, sum(went) as went from (
        select priority, sum(total) as came, 0 as went from submission
        where created_at > statement_timestamp() - :window group by priority
        union all
        select priority, 0, count(*) from email_log
        where finished_at > statement_timestamp() - :window group by priority
    ) both_ways group by priority
""")
_FOLLOWUP = text("""
    select coalesce(sum(cardinality(message_ids)) filter (where due_at <= statement_timestamp()), 0) as ready,
           coalesce(sum(cardinality(message_ids)) filter (where due_at > statement_timestamp()), 0) as scheduled,
           coalesce(sum(cardinality(message_ids)) filter (where due_at > statement_timestamp() and tries > 0), 0)
               as retry_waiting,
           coalesce(sum(cardinality(message_ids)) filter (where tries > 0), 0) as failed,
           extract(epoch from statement_timestamp() - min(created_at)) as oldest_age,
           (select count(*) from email_log where finished_at > statement_timestamp() - :window) as came,
           (select count(*) from email_log where recorded_at > statement_timestamp() - :window) as went
    from followup
""")
_WEBHOOKS = text("""
    select count(*) filter (where due_at <= statement_timestamp()) as ready,
           count(*) filter (where due_at > statement_timestamp()) as scheduled,
           count(*) filter (where due_at > statement_timestamp() and tries > 0) as retry_waiting,
           extract(epoch from statement_timestamp() - min(created_at) filter (where due_at <= statement_timestamp()))
               as oldest_age,
           (select count(*) from webhook_delivery where state = 'dead') as failed,
           (select count(*) from webhook_delivery where created_at > statement_timestamp() - :window) as came,
           (select count(*) from webhook_delivery where delivered_at > statement_timestamp() - :window) as went
    from webhook_delivery where due_at is not null
""")
_WORKERS = text("""
    select queue, count(*) as workers from worker_heartbeat, unnest(queues) queue
    where seen_at > statement_timestamp() - :silent group by queue
""")

COUNTS = ("ready", "scheduled", "retry_waiting", "parked", "in_flight", "uncertain", "failed")
"""What is counted. Of the scheduled, retry_waiting have failed before and parked wait for their campaign."""

Depths = dict[str, dict[str, Any]]


def queue_depths(db: Connection | Session) -> Depths:
    """For each queue: every count of `COUNTS`, oldest_age_seconds, in_ and out_per_second, workers, paused."""
    window = {"window": timedelta(seconds=RATE_SECONDS)}
    depths: Depths = {queue: _empty() for queue in QUEUES}
    for statement in (_WAITING, _IN_HAND, _FAILED):
        for row in db.execute(statement):
            _add(depths[SEND_QUEUES[Priority(row.priority)]], row._mapping)
    for row in db.execute(_SEND_RATES, window):
        _add(depths[SEND_QUEUES[Priority(row.priority)]], row._mapping)
    _add(depths[FOLLOWUP_QUEUE], db.execute(_FOLLOWUP, window).one()._mapping)
    _add(depths[WEBHOOK_QUEUE], db.execute(_WEBHOOKS, window).one()._mapping)
    for queue, workers in workers_of(db).items():
        depths[queue]["workers"] = workers
    for queue in paused(db):
        depths[queue]["paused"] = True
    return depths


def workers_of(db: Connection | Session) -> dict[str, int]:
    """How many workers of each queue were heard of lately; a queue without any is missing."""
    rows = db.execute(_WORKERS, {"silent": timedelta(seconds=SILENT_SECONDS)})
    return {row.queue: row.workers for row in rows if row.queue in QUEUES}


def _empty() -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    rates = {"oldest_age_seconds": 0.0, "in_per_second": 0.0, "out_per_second": 0.0}
    return counts | rates | {"workers": 0, "paused": False}


def _add(depth: dict[str, Any], row: Any) -> None:
    for name in COUNTS:
        depth[name] += int(row.get(name, 0))
    if "oldest_age" in row:
        depth["oldest_age_seconds"] = max(0.0, round(float(row["oldest_age"] or 0), 3))
    if "came" in row:
        depth["in_per_second"] = round(float(row["came"]) / RATE_SECONDS, 2)
        depth["out_per_second"] = round(float(row["went"]) / RATE_SECONDS, 2)
