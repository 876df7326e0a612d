"""The beat: every second it ends dead workers' leases and rings every lane that has due work and no bell outstanding.

This is what makes a lost bell cost a second. Several beats may run: everything here may be done twice.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import redis
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from worker import gauges, lease
from worker.bell import FOLLOWUP_LANE, REPORTS_LANE, Lane, endpoint_lane, inbox_lane, send_lane
from worker.domain_check import check_until
from worker.fallback import Fallbacks
from worker.faults import faultpoint
from worker.invariants import sampled_violations
from worker.meter import fold
from worker.queues import queue_depths
from worker.retention import keep_until
from worker.runtime import Runtime
from worker.series import INVARIANTS
from worker.standstill import paused

log = structlog.get_logger()

TICK_SECONDS = 1.0
AGAIN_SECONDS = 30.0
"""Until work that met a bug is begun again."""
LOST_AFTER_SECONDS = 2.0
"""A lane that stays due while its queue is empty has lost its bell."""

# Walks from lane to lane through the index of due messages, one step per lane, however long the lanes are.
_SEND_LANES = text("""
    with recursive lane as (
        (select mailer_id, priority, due_at from message where due_at is not null
         order by mailer_id, priority, due_at limit 1)
        union all
        select next.mailer_id, next.priority, next.due_at from lane, lateral (
            select mailer_id, priority, due_at from message
            where due_at is not null and (mailer_id, priority) > (lane.mailer_id, lane.priority)
            order by mailer_id, priority, due_at limit 1) next
    )
    select lane.mailer_id, lane.priority from lane join mailer on mailer.id = lane.mailer_id
    where lane.due_at <= statement_timestamp() and mailer.status = 'active'
      and coalesce(mailer.throttled_until <= statement_timestamp(), true)
""")

_ENDPOINT_LANES = text("""
    with recursive lane as (
        (select endpoint_id, due_at from webhook_delivery where due_at is not null order by endpoint_id, due_at limit 1)
        union all
        select next.endpoint_id, next.due_at from lane, lateral (
            select endpoint_id, due_at from webhook_delivery where due_at is not null and endpoint_id > lane.endpoint_id
            order by endpoint_id, due_at limit 1) next
    )
    select lane.endpoint_id from lane join webhook_endpoint endpoint on endpoint.id = lane.endpoint_id
    where lane.due_at <= statement_timestamp() and endpoint.status = 'active'
""")

_FOLLOWUP_DUE = text("select exists (select from followup where due_at <= statement_timestamp())")
_REPORTS_DUE = text("select exists (select from provider_report where due_at <= statement_timestamp())")

_INBOX_LANES = text("""
    select mailer_id from mailbox_watch where due_at <= statement_timestamp()
    union
    select mailer_id from (select mailer_id from pickup where due_at <= statement_timestamp()
                           order by due_at limit 1000) as due
""")

SAMPLE_SECONDS = 10

# The figures of the dashboard's queues (`GET /v1/ops/queues`) as history. Samples stand on whole steps of the clock, so
# that several beats write each once.
_SAMPLE = text("""
    insert into queue_sample (queue, at, ready, scheduled, in_flight, uncertain, failed, oldest_age_seconds,
                              in_per_second, out_per_second, retry_waiting, parked)
    values (:queue, date_bin(:every, clock_timestamp(), timestamptz '2020-01-01 00:00:00+00'), :ready, :scheduled,
            :in_flight, :uncertain, :failed, :oldest_age_seconds, :in_per_second, :out_per_second, :retry_waiting,
            :parked)
    on conflict do nothing
""")

_HOUSEKEEPING = (
    text("delete from idempotency_key where expires_at < statement_timestamp()"),
    text("delete from worker_heartbeat where seen_at < statement_timestamp() - interval '1 hour'"),
    text("delete from provider_report where due_at is null and created_at < statement_timestamp() - interval '7 days'"),
    text("delete from pickup where due_at is null and created_at < statement_timestamp() - interval '7 days'"),
    text("delete from queue_sample where at < statement_timestamp() - interval '7 days'"),
)


@dataclass(slots=True)
class Ticker:
    """One beat's memory between ticks: since when a lane has been seen due without its bell being heard."""

    runtime: Runtime
    waiting_since: dict[Lane, float] = field(default_factory=dict)
    missed_at: float = -math.inf
    """When the database was away last, by `time.monotonic`: no worker could be heard of either."""
    fallbacks: Fallbacks = field(init=False)

    def __post_init__(self) -> None:
        self.fallbacks = Fallbacks(self.runtime)

    def tick(self) -> None:
        """Recovers leases, then rings. Raises nothing: a database or a broker that is away is waited for."""
        try:
            with self.runtime.engine.begin() as connection:
                listened = time.monotonic() - self.missed_at > lease.UNHEARD_SECONDS
                if recovered := lease.recover(connection, listened=listened):
                    log.warning("leases_recovered", messages=recovered)
                    faultpoint("recovering")
            with self.runtime.engine.connect() as connection:
                due = set(due_lanes(connection))
            self._ring(due - self.runtime.pace.resting(due))
            self.fallbacks.divert()
        except (SQLAlchemyError, redis.RedisError) as error:
            if isinstance(error, SQLAlchemyError):
                self.missed_at = time.monotonic()
            log.warning("tick_failed", error=type(error).__name__, next=f"again in {TICK_SECONDS} s")

    def _ring(self, due: set[Lane]) -> None:
        now = time.monotonic()
        self.waiting_since = {lane: self.waiting_since.get(lane, now) for lane in due}
        for lane, since in self.waiting_since.items():
            lost = now - since >= LOST_AFTER_SECONDS and self.runtime.bells.waiting(lane.queue) == 0
            if self.runtime.bells.ring(lane, replace=lost):
                self.waiting_since[lane] = now

    def sample(self) -> None:
        """Measures for charts and metrics. Raises nothing: a gap in a chart is no reason to stop ringing."""
        try:
            with self.runtime.engine.begin() as connection:
                depths = queue_depths(connection)
                every = timedelta(seconds=SAMPLE_SECONDS)
                rows = [{"queue": queue, "every": every, **figures} for queue, figures in depths.items()]
                connection.execute(_SAMPLE, rows)
                gauges.measure(connection)
                fold(connection)
            self._check_invariants()
        except SQLAlchemyError as error:
            log.warning("sample_failed", error=type(error).__name__, next=f"again in {SAMPLE_SECONDS} s")

    def _check_invariants(self) -> None:
        findings = sampled_violations(self.runtime.engine)
        if broken := {finding.name: finding.broken for finding in findings if finding.broken}:
            log.error("invariants_broken", **broken, next="postroad doctor --invariants counts all rows")
        with self.runtime.engine.begin() as connection:
            gauges.set_gauge(connection, INVARIANTS, (((finding.name,), finding.broken) for finding in findings))

    def housekeeping(self) -> None:
        """Removes what has expired. Raises nothing: what is left is removed the next time."""
        try:
            with self.runtime.engine.begin() as connection:
                for statement in _HOUSEKEEPING:
                    connection.execute(statement)
        except SQLAlchemyError as error:
            log.warning("housekeeping_failed", error=type(error).__name__, next="again in a minute")


def due_lanes(connection: Connection) -> Iterable[Lane]:
    """Every lane with work that is due now, but for those of paused queues."""
    stopped = paused(connection)
    return (lane for lane in _due_lanes(connection) if lane.queue not in stopped)


def _due_lanes(connection: Connection) -> Iterable[Lane]:
    for mailer_id, priority in connection.execute(_SEND_LANES):
        yield send_lane(mailer_id, priority)
    if connection.execute(_FOLLOWUP_DUE).scalar_one():
        yield FOLLOWUP_LANE
    if connection.execute(_REPORTS_DUE).scalar_one():
        yield REPORTS_LANE
    for mailer_id in connection.execute(_INBOX_LANES).scalars():
        yield inbox_lane(mailer_id)
    for endpoint_id in connection.execute(_ENDPOINT_LANES).scalars():
        yield endpoint_lane(endpoint_id)


def run(runtime: Runtime, stop: threading.Event) -> None:
    """Ticks until ``stop`` is set."""
    ticker = Ticker(runtime)
    # Measuring, keeping and asking the DNS take their time; ringing does not wait for them.
    others = [
        threading.Thread(target=_outlive, args=(work, stop), name=name, daemon=True)
        for name, work in (
            ("sampler", partial(_sample_until, ticker, stop)),
            ("keeper", partial(keep_until, runtime, stop)),
            ("domains", partial(check_until, runtime, stop)),
        )
    ]
    for thread in others:
        thread.start()
    next_housekeeping = time.monotonic()
    while not stop.is_set():
        started = time.monotonic()
        ticker.tick()
        if started >= next_housekeeping:
            next_housekeeping = started + 60
            ticker.housekeeping()
        stop.wait(max(0.0, TICK_SECONDS - (time.monotonic() - started)))
    for thread in others:
        thread.join()


def _outlive(work: Callable[[], None], stop: threading.Event) -> None:
    """Does the work until ``stop`` is set, over any bug in it: a thread that ended would be missed by nobody."""
    while not stop.is_set():
        try:
            work()
        except Exception:
            name = threading.current_thread().name
            log.exception("beat_work_failed", work=name, next=f"again in {AGAIN_SECONDS:g} s")
            stop.wait(AGAIN_SECONDS)


def _sample_until(ticker: Ticker, stop: threading.Event) -> None:
    while not stop.is_set():
        ticker.sample()
        stop.wait(SAMPLE_SECONDS - time.time() % SAMPLE_SECONDS)
