"""How many single mails the API takes in a second, beside endpoints that do nothing on the same server program."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import LiteralString

from deploy.bench import client, mails
from deploy.bench.empty import KINDS, PATH
from deploy.bench.report import Figure, Report, Target, percentile
from deploy.bench.sinks import OwnSink, PostfixSink
from deploy.bench.stack import START_SECONDS, BenchError, BenchStack
from deploy.services import LOOPBACK, free_port

CONNECTIONS = 16
LEAST = Target(">=", 0.5, of_ratio=True)

_FOUND: LiteralString = "select count(*) from message where mailer_id = %s"
_SENT: LiteralString = "select count(*) from message where mailer_id = %s and state = 'sent'"


def measure(stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, seconds: float) -> None:
    empty = {kind: _empty(kind, stack, seconds / 2) for kind in KINDS}
    later = stack.add_mailer("later", sink.port)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    endpoint = client.Endpoint(url=stack.send_url, key=stack.json["api_key"])
    alone = _saturate(endpoint, stack, later, seconds=seconds, send_at=tomorrow)
    half = _half_load(endpoint, stack, later, alone.rate / 2, seconds / 2, send_at=tomorrow)
    kept = len(alone.latencies) + len(half.latencies)
    report.lost += kept - stack.count(_FOUND, later)
    at_once = _deliver_too(endpoint, stack, sink, report, seconds)
    ms = [latency * 1e3 for latency in half.latencies]
    report.add(
        Figure(name="empty_handler", title="an endpoint that does nothing", value=empty["bare"], unit="requests/s"),
        Figure(name="empty_in_app", title="an empty handler in our app, with its authentication",
               value=empty["in-app"], unit="requests/s", ratio=empty["in-app"] / empty["bare"]),
        Figure(name="intake", title="intake of single mails, of the endpoint", value=alone.rate, unit="requests/s",
               ratio=alone.rate / empty["bare"], target=LEAST),
        Figure(name="intake_of_handler", title="  of the handler", value=alone.rate, unit="requests/s",
               ratio=alone.rate / empty["in-app"], target=LEAST),
        Figure(name="storing", title="an endpoint that stores and checks nothing", value=empty["storing"],
               unit="requests/s", ratio=empty["storing"] / empty["bare"]),
        Figure(name="intake_of_storing", title="  intake of this", value=alone.rate, unit="requests/s",
               ratio=alone.rate / empty["storing"]),
        Figure(name="intake_p50", title="  at half of this, p50", value=percentile(ms, 0.5), unit="ms"),
        Figure(name="intake_p99", title="  at half of this, p99", value=percentile(ms, 0.99), unit="ms",
               target=Target("<=", 25.0)),
        Figure(name="intake_while_sending", title="  while the mails are sent as well", value=at_once.rate,
               unit="requests/s", ratio=at_once.rate / empty["bare"]),
    )  # fmt: skip
    if refused := alone.refused + half.refused + at_once.refused:
        report.notes.append(f"{refused:,} requests of the intake were refused.")


def _deliver_too(
    endpoint: client.Endpoint, stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, seconds: float
) -> client.Load:
    mailer_id = stack.add_mailer("at once", sink.port)
    load = _saturate(endpoint, stack, mailer_id, seconds=seconds / 2)
    began = time.monotonic()
    taken = len(load.latencies)
    stack.wait_idle(taken)
    report.lost += taken - stack.count(_SENT, mailer_id)
    rate = taken / (load.seconds + time.monotonic() - began)
    report.add(Figure(name="single_mails", title="single mails, request to record", value=rate, unit="mails/s"))
    return load


def _saturate(
    endpoint: client.Endpoint, stack: BenchStack, mailer_id: str, *, seconds: float, **more: object
) -> client.Load:
    requests = _requests(endpoint, stack, mailer_id, **more)
    return client.run(client.saturate(endpoint.url, requests, count=CONNECTIONS, seconds=seconds))


def _half_load(
    endpoint: client.Endpoint, stack: BenchStack, mailer_id: str, rate: float, seconds: float, **more: object
) -> client.Load:
    source = _requests(endpoint, stack, mailer_id, **more)
    requests = [next(source) for _ in range(max(1, int(rate * seconds)))]
    return client.run(client.pace(endpoint.url, requests, count=CONNECTIONS, rate=rate))


def _requests(endpoint: client.Endpoint, stack: BenchStack, mailer_id: str, **more: object) -> Iterator[bytes]:
    """The same request again and again but for the address, which is put in without making the JSON anew."""
    template = endpoint.request(mails.request(stack.json, ["single000000@example.com"], mailer_id=mailer_id, **more))
    return (template.replace(b"single000000", b"single%06d" % (number % 1_000_000)) for number in count())


def _empty(kind: str, stack: BenchStack, seconds: float) -> float:
    """Requests per second. Raises BenchError where it does not start or refuses them."""
    with _empty_server(kind, stack) as url:
        load = _saturate(client.Endpoint(url=url, key=stack.json["api_key"]), stack, "", seconds=seconds)
    if load.refused:
        raise BenchError(f"{load.refused:,} requests to the empty handler {kind} were refused")
    return load.rate


@contextmanager
def _empty_server(kind: str, stack: BenchStack) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen((sys.executable, "-m", "deploy.bench.empty", kind, str(port)), env=stack.environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError("the endpoint that does nothing did not start")
            time.sleep(0.05)
        yield f"http://{LOOPBACK}:{port}{PATH}"
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
