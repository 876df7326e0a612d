"""The parts of a bench, in the order in which they run."""

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from deploy.bench import (
    composing,
    endurance,
    fairness,
    intake,
    latency,
    processes,
    senders,
    throughput,
    waiting,
    webhooks,
)
from deploy.bench.peers.measure import measure as measure_peers
from deploy.bench.report import Report
from deploy.bench.sinks import OwnSink, PostfixSink, open_counting_sink, open_sink
from deploy.bench.stack import BenchError, BenchStack

PARTS = (
    "throughput", "latency", "intake", "waiting", "webhooks", "large", "million", "fairness", "senders", "peers",
    "compose",
)  # fmt: skip
_TOGETHER = frozenset(PARTS) - {"compose", "senders", "peers"}
"""On one stack."""
HOURS = ("endurance",)
"""Runs only where it is named: it takes as long as it is told to."""
QUICK = ("throughput", "latency", "intake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    mails: int = 30_000
    urgent: int = 200
    backlog: int = 30_000
    intake_seconds: float = 5.0
    waiting: int = 200
    webhooks: int = 10_000
    large: int = 300_000
    million: int = 1_000_000
    crowd: int = 1_000_000
    """Mails of the tenant beside whom others want theirs out."""
    crowd_urgent: int = 1_000
    shares_seconds: float = 10.0
    most_senders: int | None = None
    peer_mails: int = 2_000
    minutes: float = 60.0
    """Of the constant load."""
    load: float = 300.0
    """Its mails per second."""


def run(parts: Collection[str], size: Size, say: Callable[[str], None], *, tracking: bool = True) -> Report:
    """Measures the named parts of `PARTS` and `HOURS`. The first that fails is noted and is the last.

    Raises BenchError where the stack or the sink does not start.
    """
    report = Report()
    report.notes.append(f"{os.cpu_count()} cores, load average before: {psutil.getloadavg()[0]:.1f}")
    if "compose" in parts:
        composing.measure(report)
    if "senders" in parts:
        with open_sink() as sink:
            senders.measure(sink, report, count=size.mails, say=say, most=size.most_senders)
    if "peers" in parts:
        _beside_peers(size, report, say)
    if "endurance" in parts:
        _endure(size, report, say)
    if set(parts) & _TOGETHER:
        say("starting a stack of its own")
        with BenchStack() as stack, open_sink() as sink:
            _Bench(stack, sink, size, report, tracking=tracking).run(parts, say)
            report.memory = processes.peaks(stack.json)
            report.add(processes.redis_peak(stack.json))
            say("stopping the stack")
    return report


def _beside_peers(size: Size, report: Report, say: Callable[[str], None]) -> None:
    """On a stack of their own: what they leave in PostgreSQL and Redis is not ours."""
    say("a stack beside which peers send")
    with (
        tempfile.TemporaryDirectory(prefix="postroad-sink-") as folder,
        BenchStack() as stack,
        open_counting_sink(Path(folder)) as sink,
    ):
        measure_peers(stack, sink, report, count=size.peer_mails, say=say)


def _endure(size: Size, report: Report, say: Callable[[str], None]) -> None:
    """On a stack of its own: every row in it is of this load."""
    say(f"a stack for a load of {size.load:g} mails/s, {size.minutes:g} minutes")
    with (
        tempfile.TemporaryDirectory(prefix="postroad-sink-") as folder,
        BenchStack() as stack,
        open_counting_sink(Path(folder)) as sink,
    ):
        load = partial(endurance.measure, stack, sink, report, minutes=size.minutes, rate=size.load, say=say)
        _attempt(report, "endurance", load)


def _attempt(report: Report, part: str, measure: Callable[[], None]) -> None:
    try:
        measure()
    except (BenchError, OSError) as error:  # refused, not answered in time, broken off
        report.failed = True
        report.notes.append(f"{part} could not be measured, and nothing after it: {error}")


class _Bench:
    """The parts that need a stack."""

    def __init__(
        self, stack: BenchStack, sink: PostfixSink | OwnSink, size: Size, report: Report, *, tracking: bool
    ) -> None:
        self._stack = stack
        self._sink = sink
        self._size = size
        self._report = report
        self._tracking = tracking
        self._run: throughput.Run | None = None
        """The run of the ordinary size, once measured."""

    def run(self, parts: Collection[str], say: Callable[[str], None]) -> None:
        measures = {
            "throughput": self._throughput,
            "latency": self._latency,
            "intake": lambda: intake.measure(self._stack, self._sink, self._report, seconds=self._size.intake_seconds),
            "waiting": lambda: waiting.measure(self._stack, self._report, requests=self._size.waiting),
            "webhooks": lambda: webhooks.measure(self._stack, self._sink, self._report, events=self._size.webhooks),
            "large": lambda: self._grown("large", self._size.large),
            "million": lambda: self._grown("million", self._size.million),
            "fairness": self._fairness,
        }
        for part, measure in measures.items():
            if part in parts and not self._report.failed:
                say(part)
                _attempt(self._report, part, measure)

    def _throughput(self) -> None:
        self._run = self._path("throughput", self._size.mails)

    def _path(self, name: str, count: int) -> throughput.Run:
        return throughput.measure(
            self._stack, self._sink, self._report, count=count, tracking=self._tracking, name=name
        )

    def _grown(self, name: str, count: int) -> None:
        small = self._run or self._path("throughput", self._size.mails)
        throughput.compare_cost(self._report, small, self._path(name, count))

    def _latency(self) -> None:
        latency.measure(
            self._stack,
            self._sink,
            self._report,
            urgent=self._size.urgent,
            backlog=self._size.backlog,
            rate=self._run.rate if self._run else 0.0,
        )

    def _fairness(self) -> None:
        fairness.measure(
            self._stack,
            self._sink,
            self._report,
            backlog=self._size.crowd,
            urgent=self._size.crowd_urgent,
            seconds=self._size.shares_seconds,
        )
