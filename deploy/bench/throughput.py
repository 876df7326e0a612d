"""The whole path: one request, many mails, until every one is sent, logged, on the contact's timeline and an event."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import LiteralString
from uuid import UUID

from deploy.bench import mails, processes, writes
from deploy.bench.report import Cost, Figure, Report, Target
from deploy.bench.sinks import NOT_INSTALLED, Limit, OwnSink, PostfixSink, find_tool, measure_limit
from deploy.bench.stack import BenchStack

SHARE_OF_LIMIT = 0.35
MOST_GROWTH = 1.1
REQUEST_MAILS = 30_000
LIMIT_MAILS = 30_000
"""What smtp-source sends to show the limit."""

_TRACES: dict[str, LiteralString] = {
    "sent": "select count(*) from message where submission_id = %s and state = 'sent'",
    "logged": "select count(*) from email_log where submission_id = %s",
    "on the timeline": "select count(*) from activity a join message m on m.id = message_id where submission_id = %s",
    "events": "select count(*) from event where submission_id = %s and type = 'delivered'",
}
"""What each mail leaves behind -> how to count it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the whole path."""

    mails: int
    rate: float
    """Mails per second."""
    microseconds: float
    """Processor time of all components for one mail, without the sink."""


def measure(
    stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, count: int, tracking: bool, name: str
) -> Run:
    """Adds the figures, held against smtp-source before and after. ``name``: prefix of the figures' names."""
    sample = min(count, LIMIT_MAILS)
    before = _limits(sink, sample)
    run = whole_path(stack, sink, report, count=count, tracking=tracking, name=name)
    limits = [*before, *_limits(sink, sample)]
    _compare(report, run, limits, name)
    return run


def compare_cost(report: Report, small: Run, large: Run) -> None:
    """Whether a mail costs more when there are more of them."""
    title = f"cost of a mail of {large.mails:,}, of one of {small.mails:,}"
    target = Target("<=", MOST_GROWTH, of_ratio=True)
    report.add(Figure(name="growth", title=title, value=large.microseconds, unit="µs",
                      ratio=large.microseconds / small.microseconds, target=target))  # fmt: skip


def whole_path(
    stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, count: int, tracking: bool, name: str
) -> Run:
    mailer_id = stack.add_mailer(f"sink of {name}", sink.port)
    settings = mails.EVERYTHING if tracking else {}
    wrote = writes.so_far(stack)
    used = processes.components(stack.json, stack.database) | {"sink": sink.seconds}
    began = time.monotonic()
    submissions = []
    for start in range(0, count, REQUEST_MAILS):
        readers = mails.people(f"{name}{start}-", min(REQUEST_MAILS, count - start))
        body = mails.request(stack.json, readers, mailer_id=mailer_id, settings=settings)
        submissions.append((stack.send(body), len(readers)))
    accepted = time.monotonic()
    took = stack.wait_idle(count) - began
    costs = processes.costs(used, processes.components(stack.json, stack.database) | {"sink": sink.seconds}, count)
    for submission, expected in submissions:
        _account(stack, report, submission, expected)
    report.doubled += sink.doubled
    report.costs += [replace(cost, component=f"{count:,}: {cost.component}") for cost in costs]
    report.add(
        Figure(name=f"{name}_intake", title=f"requests of {count:,} mails", value=accepted - began, unit="s"),
        Figure(name=f"{name}_recorded", title="until the last is sent and recorded", value=took, unit="s"),
        *(replace(figure, name=f"{name}_{figure.name}") for figure in writes.so_far(stack).since(wrote, count)),
        Figure(name=f"{name}_dead", title="dead rows left, of the living", value=writes.dead_rows(stack), unit="%"),
    )
    ours = sum(cost.microseconds for cost in costs if cost.component not in ("sink", "sum"))
    return Run(mails=count, rate=count / took, microseconds=ours)


def _account(stack: BenchStack, report: Report, submission: UUID, count: int) -> None:
    for name, query in _TRACES.items():
        missing = count - stack.count(query, submission)
        if missing:
            report.lost += missing
            report.notes.append(f"{missing:,} of {count:,} mails are not {name}")


def _limits(sink: PostfixSink | OwnSink, count: int) -> list[tuple[bool, Limit]]:
    """One measurement as smtp-source does by itself, one on kept connections; none where it is not installed."""
    if isinstance(sink, OwnSink) or find_tool("smtp-source") is None:
        return []
    return [(keep, measure_limit(sink, count, mails.MAIL_BYTES, keep=keep)) for keep in (False, True)]


def _compare(report: Report, run: Run, limits: Sequence[tuple[bool, Limit]], name: str) -> None:
    if not limits:
        report.notes.append(f"No limit to compare with: {NOT_INSTALLED}")
        report.add(Figure(name=name, title=f"whole path, {run.mails:,}", value=run.rate, unit="mails/s"))
        return
    mean = fmean(limit.rate for keep, limit in limits if not keep)
    target = Target(">=", SHARE_OF_LIMIT, of_ratio=True)
    report.add(
        Figure(name=name, title=f"whole path, {run.mails:,}, of smtp-source", value=run.rate, unit="mails/s",
               ratio=run.rate / mean, target=target),
    )  # fmt: skip
    for keep, title in ((False, "smtp-source"), (True, "smtp-source -d")):
        rates = [limit.rate for kept, limit in limits if kept == keep]
        reference = f"{name}_limit_kept_connections" if keep else f"{name}_limit"
        mean = fmean(rates)
        report.notes.append(f"{title} before and after: {' and '.join(f'{one:,.0f}' for one in rates)} mails/s")
        ratio = run.rate / mean if keep else None
        report.add(Figure(name=reference, title=title, value=mean, unit="mails/s", ratio=ratio))
        cost = fmean(limit.microseconds for kept, limit in limits if kept == keep)
        report.costs.append(Cost(component=f"for comparison: {title}, smtp-sink", microseconds=cost))
