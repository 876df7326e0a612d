"""Counting: in memory where it happens, and from time to time added to the database, where the exporter finds it.

A process that is killed takes the counts of its last seconds with it. What must be exact is counted in the transaction
that makes it true: submissions in `api_shim.intake`, outcomes by `count_outcomes`.
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from models.message import ACCEPTED
from providers.base import Outcome, Result
from worker.series import DELIVERY, ERRORS, FINISHED, REQUEST, Series

log = structlog.get_logger()

FLUSH_SECONDS = 5.0
INFINITE = float("inf")


class Cell(NamedTuple):
    """Where a count belongs: a row of `models.metric.MetricCount`."""

    name: str
    labels: tuple[str, ...]
    bucket: float | None = None


_ADD = text("""
    insert into metric_count (name, labels, bucket, value)
    select name, array(select json_array_elements_text(labels)), cast(bucket as float8), value
    from json_to_recordset(cast(:counts as json)) as c(name text, labels json, bucket text, value float8)
""")

# A provider's later word (delivered, bounced) may have come before the log row; the outcome was "sent" all the same.
_OUTCOMES = text(f"""
    with finished as (
        select case m.priority when 1 then 'send.high' else 'send.normal' end as lane, mailer.provider,
               case when m.state = any(cast(:accepted as message_state[])) then 'sent'
                    else m.state::text end as outcome,
               extract(epoch from m.finished_at - greatest(m.created_at, s.send_at)) as seconds
        from message m join submission s on s.id = m.submission_id join mailer on mailer.id = m.mailer_id
        where m.id = any(:ids) and m.finished_at is not null
    ), timed as (
        select lane, seconds,
               (cast(:bounds as float8[]) || 'infinity'::float8)[width_bucket(seconds, cast(:bounds as float8[])) + 1]
                   as bucket
        from finished where outcome = 'sent'
    )
    insert into metric_count (name, labels, bucket, value)
    select '{FINISHED.name}', array[lane, provider, outcome], null, count(*)
    from finished group by lane, provider, outcome
    union all
    select '{DELIVERY.name}', array[lane], bucket, count(*) from timed group by lane, bucket
    union all
    select '{DELIVERY.name}', array[lane], null, sum(seconds) from timed group by lane
""")  # noqa: S608 -- constants


def count_outcomes(connection: Connection, message_ids: Sequence[UUID]) -> None:
    """Counts messages that have just reached an outcome and how long they took, in the caller's transaction."""
    accepted = [state.value for state in ACCEPTED]
    bounds = [float(bound) for bound in DELIVERY.buckets]
    connection.execute(_OUTCOMES, {"ids": message_ids, "accepted": accepted, "bounds": bounds})


# Rows that somebody else adds up at this moment are his: he has deleted them, so they are not returned to us.
_FOLD = text("""
    with gone as (delete from metric_count returning name, labels, bucket, value)
    insert into metric_count (name, labels, bucket, value)
    select name, labels, bucket, sum(value) from gone group by name, labels, bucket
""")


def fold(connection: Connection) -> None:
    """Makes one row of all that belong to the same cell. Changes no sum."""
    connection.execute(_FOLD)


class Meter:
    """The counts of one process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._counts: defaultdict[Cell, float] = defaultdict(float)
        self._lock = threading.Lock()

    def count(self, series: Series, *labels: str, by: float = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self._counts[Cell(series.name, labels)] += by

    def observe(self, series: Series, seconds: float, *labels: str) -> None:
        """Adds one observation to a histogram."""
        with self._lock:
            self._counts[Cell(series.name, labels, bucket_of(series, seconds))] += 1
            self._counts[Cell(series.name, labels)] += seconds

    def take(self) -> dict[Cell, float]:
        """What was counted since the last time."""
        with self._lock:
            taken, self._counts = self._counts, defaultdict(float)
        return taken

    def flush(self, engine: Engine) -> None:
        """Adds what was counted to the database. While that is away it is kept; raises nothing."""
        if not (taken := self.take()):
            return
        try:
            with engine.begin() as connection:
                add(connection, taken.items())
        except SQLAlchemyError as error:
            with self._lock:
                for cell, value in taken.items():
                    self._counts[cell] += value
            log.warning("counts_not_written", error=type(error).__name__, next=f"again in {FLUSH_SECONDS} s")


SEVERITY = (
    Result.ACCEPTED, Result.PERMANENT, Result.TRANSIENT, Result.THROTTLED, Result.CREDENTIALS, Result.UNCERTAIN
)  # fmt: skip
"""From the best to the worst."""


def count_call(meter: Meter, provider: str, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Counts one call of a provider that carried at least one mail: what it came to, and how long it took."""
    results = Counter(outcome.result for outcome in outcomes)
    meter.observe(REQUEST, seconds, provider, max(results, key=SEVERITY.index).value)
    for result, mails in results.items():
        if result is not Result.ACCEPTED:
            meter.count(ERRORS, provider, result.value, by=mails)


def bucket_of(series: Series, seconds: float) -> float:
    """Upper bound of the bucket that an observation falls into."""
    position = bisect_left(series.buckets, seconds)
    return series.buckets[position] if position < len(series.buckets) else INFINITE


def add(connection: Connection, counts: Iterable[tuple[Cell, float]]) -> None:
    """Adds counts in the caller's transaction: they are made if it is committed."""
    rows = [
        {"name": cell.name, "labels": cell.labels, "bucket": _bound(cell.bucket), "value": value}
        for cell, value in counts
    ]
    if rows:
        connection.execute(_ADD, {"counts": orjson.dumps(rows).decode()})


def _bound(bucket: float | None) -> str | None:
    """As PostgreSQL reads it; JSON knows no infinity."""
    return None if bucket is None else "infinity" if bucket == INFINITE else repr(bucket)


class Flusher:
    """Flushes a meter from a thread of its own, until closed."""

    def __init__(self, meter: Meter, engine: Engine) -> None:
        self._meter = meter
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._meter.flush(self._engine)

    def close(self) -> None:
        """Flushes what is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._meter.flush(self._engine)
