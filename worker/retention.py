"""How long things are kept: months of logs go at once, everything else in small batches, beside the work of the day.

Run by the beat. Several may do it at once: what one holds the other passes over.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from models.append_only import RETENTION
from models.partition import drop_parts, first_id, make_parts, partitioned
from worker.erasure import erase_pending
from worker.runtime import Runtime
from worker.settings import Settings

log = structlog.get_logger()

EVERY_SECONDS = 600.0
ERASURE_SECONDS = 2.0
"""Requests to forget a person are looked for this often."""
BATCH = 1_000
REST_SECONDS = 0.05
"""Between two batches, so that those who send mail never queue behind those who forget it."""

_ALLOWED = text(f"set local {RETENTION} = 'on'")

MONTHLY: Mapping[str, str] = {"email_log": "log", "activity": "log", "event": "event"}
"""Table in parts -> the kind of retention it is under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Rows of one table that go a batch at a time. ``statement`` takes before, before_id and limit."""

    table: str
    kind: str
    statement: TextClause


# The open ones stay, however old: those that wait for a person, and those whose follow-up is still to be written.
_MESSAGES = text("""
    delete from message where id in (
        select id from message where id < :before_id and finished_at < :before and due_at is null
          and id not in (select unnest(message_ids) from followup)
        order by id limit :limit for update skip locked)
""")
_SUBMISSIONS = text("""
    delete from submission where id in (
        select id from submission s where id < :before_id
          and not exists (select from message m where m.submission_id = s.id)
        order by id limit :limit for update skip locked)
""")

# Whoever still refers to bytes that were last taken in before then is as old as they are, so few are asked.
_BLOBS = text("""
    delete from blob where (workspace_id, sha256) in (
        select b.workspace_id, b.sha256 from blob b where b.used_at < :before
          and not exists (
            select from submission s where s.workspace_id = b.workspace_id and s.id < :before_id
              and s.content->'attachments' @> jsonb_build_array(jsonb_build_object('sha256', b.sha256)))
          and not exists (
            select from inbound_message i where i.workspace_id = b.workspace_id and i.attachments <> '[]'
              and i.attachments @> jsonb_build_array(jsonb_build_object('sha256', b.sha256)))
        limit :limit for update skip locked)
      and used_at < :before
""")
_DELIVERIES = text("""
    delete from webhook_delivery where id in (
        select id from webhook_delivery where created_at < :before limit :limit for update skip locked)
""")
_EVENT_KEYS = text("""
    delete from event_key where digest in (
        select digest from event_key where event_id < :before_id order by event_id limit :limit for update skip locked)
""")
_THREADS = text("""
    with old as (
        select id from thread where id < :before_id and last_message_at < :before
        order by id limit :limit for update skip locked
    ), mails as (delete from inbound_message where thread_id in (select id from old))
    delete from thread where id in (select id from old)
""")
_AUDIT = text("""
    delete from audit_entry where id in (
        select id from audit_entry where id < :before_id order by id limit :limit for update skip locked)
""")

SWEEPS = (
    Sweep(table="message", kind="message", statement=_MESSAGES),
    Sweep(table="submission", kind="message", statement=_SUBMISSIONS),
    Sweep(table="blob", kind="message", statement=_BLOBS),
    Sweep(table="webhook_delivery", kind="event", statement=_DELIVERIES),
    Sweep(table="event_key", kind="event", statement=_EVENT_KEYS),
    Sweep(table="thread", kind="log", statement=_THREADS),
    Sweep(table="audit_entry", kind="audit", statement=_AUDIT),
    *(
        Sweep(
            table=f"{table}_other",
            kind=MONTHLY[table],
            statement=text(f"""
                delete from "{table}_other" where {column} in (
                    select {column} from "{table}_other" where {column} < :before_id limit :limit)
            """),  # noqa: S608 -- names of our own
        )
        for table, column in partitioned().items()
    ),
)
"""In this order: bytes go after the last submission that names them."""


def keep(engine: Engine, settings: Settings, now: datetime, stop: threading.Event) -> dict[str, int]:
    """Makes the months to come and removes what is older than it may be. Returns what went: table -> rows, or months.

    Ends early, after a batch, when ``stop`` is set.
    """
    gone: dict[str, int] = {}
    with engine.begin() as connection:
        make_parts(connection, now)
        for table, kind in MONTHLY.items():
            if (before := _before(settings, kind, now)) and (dropped := drop_parts(connection, table, before)):
                gone[table] = len(dropped)
    for sweep in SWEEPS:
        before = _before(settings, sweep.kind, now)
        if before is not None and (count := _sweep(engine, sweep, before, stop)):
            gone[sweep.table] = count
    return gone


def keep_until(runtime: Runtime, stop: threading.Event) -> None:
    """Forgets whom it is asked to forget, and what is too old, until ``stop`` is set.

    Raises nothing: what is left goes the next time.
    """
    next_keeping = 0.0
    while not stop.is_set():
        try:
            erase_pending(runtime.engine, runtime.vault)
            if time.monotonic() >= next_keeping:
                if gone := keep(runtime.engine, runtime.settings, datetime.now(UTC), stop):
                    log.info("retention_done", **gone)
                next_keeping = time.monotonic() + EVERY_SECONDS
        except SQLAlchemyError as error:
            log.warning("retention_failed", error=type(error).__name__, next=f"again in {ERASURE_SECONDS:g} s")
        stop.wait(ERASURE_SECONDS)


def _before(settings: Settings, kind: str, now: datetime) -> datetime | None:
    """What is older than this goes; None: all of it stays."""
    days: int = getattr(settings, f"retention_{kind}_days")
    return now - timedelta(days=days) if days else None


def _sweep(engine: Engine, sweep: Sweep, before: datetime, stop: threading.Event) -> int:
    total = 0
    while not stop.is_set():
        with engine.begin() as connection:
            connection.execute(_ALLOWED)
            count = _batch(connection, sweep.statement, before)
        total += count
        if count < BATCH:
            break
        stop.wait(REST_SECONDS)
    return total


def _batch(connection: Connection, statement: TextClause, before: datetime) -> int:
    parameters = {"before": before, "before_id": first_id(before), "limit": BATCH}
    return connection.execute(statement, parameters).rowcount
