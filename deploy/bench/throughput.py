"""The whole path: one request, many mails, until every one is sent, logged, on the contact's timeline and an event."""

import time
from collections.abc import Sequence
from statistics import fmean
from typing import LiteralString
from uuid import UUID

from deploy.bench import mails, processes
from deploy.bench.report import Cost, Figure, Report, Target
from deploy.bench.sinks import NOT_INSTALLED, Limit, OwnSink, PostfixSink, find_tool, measure_limit
from deploy.bench.stack import BenchStack

SHARE_OF_LIMIT = 0.25

_TRACES: dict[str, LiteralString] = {
    "sent": "select count(*) from message where submission_id = %s and state = 'sent'",
    "logged": "select count(*) from email_log where submission_id = %s",
    "on the timeline": "select count(*) from activity a join message m on m.id = message_id where submission_id = %s",
    "events": "select count(*) from event where submission_id = %s and type = 'delivered'",
}
"""What each mail leaves behind -> how to count it."""

_SENDING: LiteralString = """
    select extract(epoch from max(m.finished_at) - s.created_at) from submission s
    join message m on m.submission_id = s.id where s.id = %s group by s.id
"""


def measure(stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, count: int, tracking: bool) -> float:
    """Adds the figures; returns the mails per second."""
    before = _limits(sink, count)
    rate, costs = _whole_path(stack, sink, report, count=count, tracking=tracking)
    limits = [*before, *_limits(sink, count)]
    report.costs += costs
    _compare(report, rate, limits)
    return rate


def _whole_path(
    stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, count: int, tracking: bool
) -> tuple[float, list[Cost]]:
    mailer_id = stack.add_mailer("sink", sink.port)
    settings = mails.EVERYTHING if tracking else {}
    body = mails.request(stack.json, mails.people("reader", count), mailer_id=mailer_id, settings=settings)
    used = processes.components(stack.json, stack.database) | {"sink": sink.seconds}
    began = time.monotonic()
    submission = stack.send(body)
    accepted = time.monotonic()
    took = stack.wait_idle(count) - began
    costs = processes.costs(used, processes.components(stack.json, stack.database) | {"sink": sink.seconds}, count)
    _account(stack, report, submission, count)
    report.doubled += sink.doubled
    rate = count / took
    report.add(
        Figure(name="intake_of_one_request", title=f"a request of {count:,} mails", value=accepted - began, unit="s"),
        Figure(name="all_sent", title="until the last is sent", value=_sending(stack, submission), unit="s"),
        Figure(name="all_recorded", title="until the last is recorded", value=took, unit="s"),
    )  # fmt: skip
    return rate, costs


def _account(stack: BenchStack, report: Report, submission: UUID, count: int) -> None:
    for name, query in _TRACES.items():
        missing = count - stack.count(query, submission)
        if missing:
            report.lost += missing
            report.notes.append(f"{missing:,} of {count:,} mails are not {name}")


def _sending(stack: BenchStack, submission: UUID) -> float:
    row = stack.database.execute(_SENDING, (submission,)).fetchone()
    return float(row[0] or 0) if row else 0.0


def _limits(sink: PostfixSink | OwnSink, count: int) -> list[tuple[bool, Limit]]:
    """One measurement as smtp-source does by itself, one on kept connections; none where it is not installed."""
    if isinstance(sink, OwnSink) or find_tool("smtp-source") is None:
        return []
    return [(keep, measure_limit(sink, count, mails.MAIL_BYTES, keep=keep)) for keep in (False, True)]


def _compare(report: Report, rate: float, limits: Sequence[tuple[bool, Limit]]) -> None:
    if not limits:
        report.notes.append(f"No limit to compare with: {NOT_INSTALLED}")
        report.add(Figure(name="throughput", title="whole path", value=rate, unit="mails/s"))
        return
    mean = fmean(limit.rate for keep, limit in limits if not keep)
    target = Target(">=", SHARE_OF_LIMIT, of_ratio=True)
    report.add(
        Figure(name="throughput", title="whole path, of smtp-source", value=rate, unit="mails/s", ratio=rate / mean,
               target=target),
    )  # fmt: skip
    for keep, title in ((False, "smtp-source"), (True, "smtp-source -d")):
        rates = [limit.rate for kept, limit in limits if kept == keep]
        name = "limit_kept_connections" if keep else "limit"
        mean = fmean(rates)
        report.notes.append(f"{title} before and after: {' and '.join(f'{one:,.0f}' for one in rates)} mails/s")
        report.add(Figure(name=name, title=title, value=mean, unit="mails/s", ratio=rate / mean if keep else None))
        cost = fmean(limit.microseconds for kept, limit in limits if kept == keep)
        report.costs.append(Cost(component=f"for comparison: {title}, smtp-sink", microseconds=cost))
