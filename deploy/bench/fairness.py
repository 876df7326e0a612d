"""One tenant with a long backlog, first alone, then with others who want their mail out all the same."""

import threading
import time
from collections.abc import Sequence
from typing import LiteralString

import psutil

from deploy.bench import client, mails
from deploy.bench.report import Figure, Report, Target, percentile
from deploy.bench.sinks import OwnSink, PostfixSink
from deploy.bench.stack import BenchStack

REQUEST_MAILS = 30_000
URGENT_PER_SECOND = 20.0
NORMAL_PER_SECOND = 4.0
URGENT_P99_MS = 1_000.0
NORMAL_P99_MS = 3_000.0
LEAST_SHARE = 0.9
LEAST_ALONE = 0.9
NEIGHBOURS = 3
"""Tenants beside the large one who have a backlog of their own while the shares are measured."""

_SENT: LiteralString = """
    select count(*) from message
    where mailer_id = %s and finished_at between to_timestamp(%s) and to_timestamp(%s)
"""
# A lane is in order if no mail went out while one that was due a batch earlier still waited.
_OUT_OF_ORDER: LiteralString = """
    select count(*) from (
        select finished_at, max(finished_at) over (order by id rows between unbounded preceding and 2000 preceding)
               as earlier
        from message where mailer_id = %s and finished_at is not null
    ) sent where earlier > finished_at
"""


def measure(
    stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, backlog: int, urgent: int, seconds: float
) -> None:
    """``backlog``: mails of the large tenant; ``urgent``: of another, at 20 a second; ``seconds``: the shares' time."""
    large = stack.add_mailer("large", sink.port)
    _fill(stack, large, backlog)
    alone = _alone(stack, report, large, seconds)
    _latencies(stack, report, urgent)
    _shares(stack, sink, report, large, alone, seconds)
    left = stack.count("select count(*) from message where mailer_id = %s and due_at is not null", large)
    if not left:
        report.notes.append("The large tenant's backlog was gone before the end: the fairness is too good.")
    wrong = stack.count(_OUT_OF_ORDER, large)
    report.notes.append(f"{wrong:,} mails of the large tenant overtook one due more than 2,000 places before")


def _fill(stack: BenchStack, mailer_id: str, count: int) -> None:
    for start in range(0, count, REQUEST_MAILS):
        readers = mails.people(f"large{start}-", min(REQUEST_MAILS, count - start))
        stack.send(mails.request(stack.json, readers, mailer_id=mailer_id))


def _alone(stack: BenchStack, report: Report, large: str, seconds: float) -> float:
    """Mails per second while nobody else has any."""
    began, before = time.time(), psutil.cpu_times()
    time.sleep(seconds)
    ended, after = time.time(), psutil.cpu_times()
    spent = sum(after) - sum(before)
    idle = 100 * (after.idle - before.idle) / spent if spent else 0.0
    report.add(Figure(name="idle", title="processors idle while one tenant alone has mail", value=idle, unit="%"))
    return _rate(stack, [large], began, ended)


def _latencies(stack: BenchStack, report: Report, urgent: int) -> None:
    """Urgent and normal mail of a second tenant, at the same time."""
    tenant = stack.add_tenant("small")
    with OwnSink() as arrivals:
        mailer_id = tenant.add_mailer("small", arrivals.port)
        tenant.send(mails.request(tenant.json, ["warm@example.com"], mailer_id=mailer_id, priority=1))
        waits: dict[str, list[float]] = {}
        normal = max(1, int(urgent * NORMAL_PER_SECOND / URGENT_PER_SECOND))
        jobs = [("urgent", urgent, URGENT_PER_SECOND, 1), ("normal", normal, NORMAL_PER_SECOND, 0)]
        threads = [
            threading.Thread(target=_send, args=(tenant, arrivals, mailer_id, waits, report, *job)) for job in jobs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report.doubled += arrivals.doubled
    for kind, bound in (("urgent", URGENT_P99_MS), ("normal", NORMAL_P99_MS)):
        title = f"a small tenant's {kind} mail, to the provider, p99"
        report.add(Figure(name=f"fair_{kind}_p99", title=title, value=percentile(waits[kind], 0.99), unit="ms",
                          target=Target("<=", bound)))  # fmt: skip


def _send(
    tenant: BenchStack, arrivals: OwnSink, mailer_id: str, waits: dict[str, list[float]], report: Report,
    kind: str, count: int, per_second: float, priority: int,
) -> None:  # fmt: skip
    people = mails.people(kind, count)
    endpoint = client.Endpoint(url=tenant.send_url, key=tenant.json["api_key"])
    requests = [
        endpoint.request(mails.request(tenant.json, [address], mailer_id=mailer_id, priority=priority))
        for address in people
    ]
    load = client.run(client.pace(endpoint.url, requests, count=8, rate=per_second))
    deadline = time.monotonic() + 30
    while len(came := _came(arrivals, kind)) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    due = {address: load.began_at + number / per_second for number, address in enumerate(people)}
    waits[kind] = [(came[address] - at) * 1e3 for address, at in due.items() if address in came]
    report.lost += count - len(waits[kind])


def _came(arrivals: OwnSink, kind: str) -> dict[str, float]:
    found = list(arrivals.emulator.received)
    return {mail.recipients[0]: mail.at.timestamp() for mail in found if mail.recipients[0].startswith(kind)}


def _shares(
    stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, large: str, alone: float, seconds: float
) -> None:
    """Several tenants with a backlog: each gets its share, and together they lose nothing."""
    mailers = [large]
    for number in range(NEIGHBOURS):
        tenant = stack.add_tenant(f"neighbour {number}")
        mailers.append(tenant.add_mailer("neighbour", sink.port))
        count = max(200, int(alone * (seconds + 3)))
        readers = mails.people(f"neighbour{number}-", min(count, REQUEST_MAILS))
        tenant.send(mails.request(tenant.json, readers, mailer_id=mailers[-1]))
    time.sleep(0.5)
    began = time.time()
    time.sleep(seconds)
    ended = time.time()
    rates = [_rate(stack, [mailer], began, ended) for mailer in mailers]
    together = sum(rates)
    share = min(rates) / (together / len(rates)) if together else 0.0
    report.add(
        Figure(name="least_share", title=f"least of {len(rates)} tenants, of an equal share", value=min(rates),
               unit="mails/s", ratio=share, target=Target(">=", LEAST_SHARE, of_ratio=True)),
        Figure(name="work_conserving", title="one tenant alone, of all of them together", value=alone, unit="mails/s",
               ratio=alone / together if together else None, target=Target(">=", LEAST_ALONE, of_ratio=True)),
    )  # fmt: skip


def _rate(stack: BenchStack, mailers: Sequence[str], began: float, ended: float) -> float:
    return sum(stack.count(_SENT, mailer, began, ended) for mailer in mailers) / (ended - began)
