"""Urgent mail under a backlog: from the start of its request to its arrival at the SMTP server."""

import math
from typing import LiteralString

from deploy.bench import client, mails
from deploy.bench.report import Figure, Report, Target, percentile
from deploy.bench.sinks import OwnSink, PostfixSink
from deploy.bench.stack import BenchStack

URGENT_PER_SECOND = 20.0
CONNECTIONS = 8
LONGEST_P99_MS = 1000.0
REQUEST_MAILS = 30_000

_WAITING: LiteralString = "select exists (select from message where priority = 0 and due_at is not null)"


def measure(
    stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, urgent: int, backlog: int, rate: float
) -> None:
    """``backlog``: normal mails at least; more if at ``rate`` mails a second they would be gone before the urgent."""
    with OwnSink() as arrivals:
        mailer_id = stack.add_mailer("urgent", arrivals.port)
        _warm_up(stack, mailer_id)
        size = max(backlog, math.ceil(rate * (urgent / URGENT_PER_SECOND + 2)))
        _submit_backlog(stack, stack.add_mailer("backlog", sink.port), size)
        load = _send_urgent(stack, mailer_id, urgent)
        if not stack.count(_WAITING):
            report.notes.append("The backlog was gone before the last urgent mail: the latency is too good.")
        stack.wait_idle(size)
        came = {mail.recipients[0]: mail.at.timestamp() for mail in arrivals.emulator.received}
        report.doubled += arrivals.doubled
    due = {address: load.began_at + number / URGENT_PER_SECOND for number, address in enumerate(_people(urgent))}
    waits = [(came[address] - at) * 1e3 for address, at in due.items() if address in came]
    report.lost += urgent - len(waits)
    report.add(*_figures(waits, load, size))


def _people(urgent: int) -> list[str]:
    return mails.people("urgent", urgent)


def _warm_up(stack: BenchStack, mailer_id: str) -> None:
    """A mailer's first mail opens its connections."""
    stack.send(mails.request(stack.json, ["warm@example.com"], mailer_id=mailer_id, priority=1))
    stack.wait_idle(1)


def _submit_backlog(stack: BenchStack, mailer_id: str, size: int) -> None:
    for start in range(0, size, REQUEST_MAILS):
        readers = mails.people(f"backlog{start}-", min(REQUEST_MAILS, size - start))
        stack.send(mails.request(stack.json, readers, mailer_id=mailer_id))


def _send_urgent(stack: BenchStack, mailer_id: str, urgent: int) -> client.Load:
    endpoint = client.Endpoint(url=stack.send_url, key=stack.json["api_key"])
    requests = [
        endpoint.request(mails.request(stack.json, [address], mailer_id=mailer_id, priority=1))
        for address in _people(urgent)
    ]
    return client.run(client.pace(endpoint.url, requests, count=CONNECTIONS, rate=URGENT_PER_SECOND))


def _figures(waits: list[float], load: client.Load, backlog: int) -> list[Figure]:
    title = f"urgent mail over {backlog:,} normal"
    answered = [seconds * 1e3 for seconds in load.latencies]
    return [
        Figure(name="urgent_p50", title=f"{title}, p50", value=percentile(waits, 0.5), unit="ms"),
        Figure(name="urgent_p95", title=f"{title}, p95", value=percentile(waits, 0.95), unit="ms"),
        Figure(name="urgent_p99", title=f"{title}, p99", value=percentile(waits, 0.99), unit="ms",
               target=Target("<=", LONGEST_P99_MS)),
        Figure(name="urgent_answer_p99", title="  until the answer, p99", value=percentile(answered, 0.99), unit="ms"),
    ]  # fmt: skip
