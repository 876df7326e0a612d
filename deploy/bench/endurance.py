"""A constant load for a long time: whether the last mail costs, waits and takes as much room as the first."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import LiteralString

from deploy.bench import bloat, mails, processes
from deploy.bench.receiver import CountingReceiver
from deploy.bench.report import Figure, Report
from deploy.bench.samples import COLUMNS, SAMPLES, Reading, Sample, conclude, row
from deploy.bench.sinks import CountingPostfixSink, OwnSink
from deploy.bench.stack import BenchStack
from models.partition import first_id

SUBMISSION_SECONDS = 0.25
"""Each submission carries the mails of so long a time; its content is stored once for them."""
PATIENCE_SECONDS = 60.0

_BACKLOG: LiteralString = "select count(*) from message where due_at < clock_timestamp() + interval '1 day'"
_WAL: LiteralString = "select pg_current_wal_insert_lsn() - '0/0'"
_SIZE: LiteralString = "select pg_database_size(current_database())"
_AGES: LiteralString = """
    select percentile_cont(array[0.5, 0.99]::float[]) within group
           (order by extract(epoch from coalesce(finished_at, clock_timestamp()) - created_at)::float)
    from message where id >= %s and id < %s
"""
_KEPT: dict[str, LiteralString] = {
    "sent": "select count(*) from message where state in ('sent', 'delivered')",
    "logged": "select count(*) from email_log",
    "on the timeline": "select count(distinct message_id) from activity",
    "events": "select count(*) from event where type = 'delivered'",
}
"""What each mail leaves behind -> how to count it."""


@dataclass(slots=True)
class _Load:
    """Mails at an even pace until it is told to stop."""

    stack: BenchStack
    mailer_id: str
    rate: float
    submitted: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Raises BenchError or OSError where a request is not taken."""
        size = max(1, round(self.rate * SUBMISSION_SECONDS))
        due = time.monotonic()
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            readers = [f"reader{self.submitted + number}@example.com" for number in range(size)]
            body = mails.request(self.stack.json, readers, mailer_id=self.mailer_id, settings=mails.EVERYTHING)
            self.stack.send(body)
            self.submitted += size
            due += size / self.rate


def measure(
    stack: BenchStack,
    sink: CountingPostfixSink | OwnSink,
    report: Report,
    *,
    minutes: float,
    rate: float,
    say: Callable[[str], None],
) -> None:
    """``rate`` mails a second for ``minutes``, each with an event to a webhook. Nobody else may use the stack."""
    mailer_id = stack.add_mailer("endurance", sink.port)
    with CountingReceiver() as receiver:
        stack.post("/v1/webhook-endpoints", {"url": receiver.url, "events": ["MAIL_DELIVERED"], "max_batch": 100})
        load = _Load(stack, mailer_id, rate)
        with _running(load) as running:
            readings, samples = _watch(stack, sink, load, running, minutes * 60, say)
        stack.wait_idle(load.submitted)
        receiver.wait_for(load.submitted, PATIENCE_SECONDS)
        _account(stack, sink, receiver, report, load.submitted)
    conclude(report, readings, samples)
    size = stack.count(_SIZE) / 1024**2
    report.add(
        Figure(name="endurance_database", title=f"  database after {load.submitted:,} mails", value=size, unit="MB")
    )


@contextmanager
def _running(load: _Load) -> Iterator[Future[None]]:
    with ThreadPoolExecutor(1, "load") as pool:
        running = pool.submit(load.run)
        try:
            yield running
        finally:
            load.stop.set()
    running.result()


def _watch(
    stack: BenchStack, sink: CountingPostfixSink | OwnSink, load: _Load, running: Future[None], seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Reading], list[Sample]]:  # fmt: skip
    began = time.monotonic()
    readings, samples = [_read(stack, sink, load)], list[Sample]()
    for number in range(1, SAMPLES + 1):
        wait((running,), timeout=max(0.0, began + seconds * number / SAMPLES - time.monotonic()))
        if running.done():
            running.result()
        readings.append(_read(stack, sink, load))
        samples.append(_sample(stack, readings[-2], readings[-1]))
        say("  ".join(f"{name} {value}" for name, value in zip(COLUMNS, row(number, samples[-1]), strict=True)))
    return readings, samples


def _read(stack: BenchStack, sink: CountingPostfixSink | OwnSink, load: _Load) -> Reading:
    return Reading(
        at=time.time(),
        submitted=load.submitted,
        arrived=sink.arrived,
        used=processes.components(stack.json, stack.database),
        memory=processes.resident(stack.json),
        tables=bloat.tables(stack.database),
        wal=stack.count(_WAL),
        backlog=stack.count(_BACKLOG),
    )


def _sample(stack: BenchStack, before: Reading, after: Reading) -> Sample:
    seconds, arrived = after.at - before.at, max(1, after.arrived - before.arrived)
    between = [first_id(datetime.fromtimestamp(reading.at, UTC)) for reading in (before, after)]
    ages = stack.database.execute(_AGES, between).fetchone()
    p50, p99 = ages[0] if ages and ages[0] else (float("nan"), float("nan"))
    return Sample(
        taken=(after.submitted - before.submitted) / seconds,
        sent=(after.arrived - before.arrived) / seconds,
        costs=processes.costs(before.used, after.used, arrived),
        p50=p50 * 1e3,
        p99=p99 * 1e3,
        wal=(after.wal - before.wal) / arrived,
        room=(bloat.total_size(after.tables) - bloat.total_size(before.tables)) / arrived,
        dead=after.tables["message"].dead_share,
        backlog=after.backlog,
    )


def _account(
    stack: BenchStack, sink: CountingPostfixSink | OwnSink, receiver: CountingReceiver, report: Report, count: int
) -> None:
    """By numbers, not by name: a mail that is lost and another that comes twice would go unseen at the sink."""
    kept = {name: stack.count(query) for name, query in _KEPT.items()}
    for name, found in (kept | {"at the sink": sink.arrived, "at the webhook": len(receiver.came)}).items():
        report.lost += max(0, count - found)
        report.doubled += max(0, found - count)
        if found != count:
            report.notes.append(f"{found:,} {name} of {count:,} mails")
    report.doubled += receiver.came.total() - len(receiver.came)
