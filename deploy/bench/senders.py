"""The whole path with more and more processes that send, each number on a stack of its own."""

import os
from collections.abc import Callable

from deploy.bench import mails
from deploy.bench.report import Figure, Report
from deploy.bench.sinks import OwnSink, PostfixSink
from deploy.bench.stack import BenchStack


def measure(
    sink: PostfixSink | OwnSink, report: Report, *, count: int, say: Callable[[str], None], most: int | None = None
) -> None:
    """From one sender to one more than there are cores."""
    first = 0.0
    for senders in range(1, (most or (os.cpu_count() or 2) + 1) + 1):
        say(f"a stack with {senders} senders")
        with BenchStack(senders) as stack:
            rate = _rate(stack, sink, count)
        first = first or rate
        title = f"whole path with {senders} {'sender' if senders == 1 else 'senders'}, of one"
        report.add(Figure(name=f"senders_{senders}", title=title, value=rate, unit="mails/s", ratio=rate / first))


def _rate(stack: BenchStack, sink: PostfixSink | OwnSink, count: int) -> float:
    """A mailer for each sender at least, so that nobody is idle for want of a lane."""
    mailers = [stack.add_mailer(f"sink {number}", sink.port) for number in range(4)]
    for mailer_id in mailers:  # the first mail of a mailer opens its connections
        stack.send(mails.request(stack.json, ["warm@example.com"], mailer_id=mailer_id))
    began = stack.wait_idle(len(mailers))
    for number, mailer_id in enumerate(mailers):
        readers = mails.people(f"reader{number}-", count // len(mailers))
        stack.send(mails.request(stack.json, readers, mailer_id=mailer_id, settings=mails.EVERYTHING))
    return count / (stack.wait_idle(count) - began)
