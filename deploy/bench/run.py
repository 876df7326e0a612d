"""The parts of a bench, in the order in which they run."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

import psutil

from deploy.bench import composing, intake, latency, processes, throughput, waiting, webhooks
from deploy.bench.report import Report
from deploy.bench.sinks import OwnSink, PostfixSink, open_sink
from deploy.bench.stack import BenchError, BenchStack

PARTS = ("throughput", "latency", "intake", "waiting", "webhooks", "compose")
QUICK = ("throughput", "latency", "intake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    mails: int = 30_000
    urgent: int = 200
    backlog: int = 30_000
    intake_seconds: float = 5.0
    waiting: int = 200
    webhooks: int = 3_000


def run(parts: Collection[str], size: Size, say: Callable[[str], None], *, tracking: bool = False) -> Report:
    """Measures the named parts of `PARTS`. The first that fails is noted and is the last.

    Raises BenchError where the stack or the sink does not start.
    """
    report = Report()
    report.notes.append(f"{os.cpu_count()} cores, load average before: {psutil.getloadavg()[0]:.1f}")
    if "compose" in parts:
        composing.measure(report)
    if set(parts) - {"compose"}:
        say("starting a stack of its own")
        with BenchStack() as stack, open_sink() as sink:
            _Bench(stack, sink, size, report, tracking=tracking).run(parts, say)
            report.memory = processes.peaks(stack.json)
            say("stopping the stack")
    return report


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
        self._rate = 0.0
        """Mails per second of the whole path, once measured."""

    def run(self, parts: Collection[str], say: Callable[[str], None]) -> None:
        measures = {
            "throughput": self._throughput,
            "latency": self._latency,
            "intake": lambda: intake.measure(self._stack, self._sink, self._report, seconds=self._size.intake_seconds),
            "waiting": lambda: waiting.measure(self._stack, self._report, requests=self._size.waiting),
            "webhooks": lambda: webhooks.measure(self._stack, self._sink, self._report, events=self._size.webhooks),
        }
        for part, measure in measures.items():
            if part in parts and not self._report.failed:
                say(part)
                self._attempt(part, measure)

    def _attempt(self, part: str, measure: Callable[[], None]) -> None:
        try:
            measure()
        except (BenchError, OSError) as error:  # refused, not answered in time, broken off
            self._report.failed = True
            self._report.notes.append(f"{part} could not be measured, and nothing after it: {error}")

    def _throughput(self) -> None:
        self._rate = throughput.measure(
            self._stack, self._sink, self._report, count=self._size.mails, tracking=self._tracking
        )

    def _latency(self) -> None:
        latency.measure(
            self._stack,
            self._sink,
            self._report,
            urgent=self._size.urgent,
            backlog=self._size.backlog,
            rate=self._rate,
        )
