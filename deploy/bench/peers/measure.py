"""Every peer in turn on one PostgreSQL and one Redis, and our own whole path on the same."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql

from deploy.bench import mails, processes, throughput
from deploy.bench.peers.catalogue import PEERS, Peer
from deploy.bench.peers.environment import NotInstalledError, python_with
from deploy.bench.peers.programs.job import Job
from deploy.bench.peers.trial import Sending, Trial, TrialError
from deploy.bench.report import Cost, Figure, Report
from deploy.bench.sinks import CountingPostfixSink, OwnSink
from deploy.bench.stack import BenchStack

WARM_UP = 100
"""Mails that everybody sends before the clock runs."""
REDIS_DATABASE = 9
"""Of the sixteen that a Redis has; ours is the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What all peers share."""

    redis_url: str
    """A database of a Redis that may be emptied."""
    database_url: str
    """Of a PostgreSQL in which databases may be made."""
    sender: str
    sink: CountingPostfixSink | OwnSink
    folder: Path
    service_seconds: Callable[[], float] = lambda: 0.0
    """Processor time so far of the PostgreSQL and the Redis."""


def measure(
    stack: BenchStack, sink: CountingPostfixSink | OwnSink, report: Report, *, count: int, say: Callable[[str], None]
) -> None:
    ours = _ourselves(stack, sink, report, count)
    with tempfile.TemporaryDirectory(prefix="postroad-peers-") as folder:
        place = Place(
            redis_url=stack.json["redis_url"],
            database_url=stack.json["database_url"],
            sender=stack.json["from"],
            sink=sink,
            folder=Path(folder),
            service_seconds=lambda: _service_seconds(stack),
        )
        compare(PEERS, place, report, ours=ours, count=count, say=say)


def compare(
    peers: Sequence[Peer],
    place: Place,
    report: Report,
    *,
    ours: float,
    count: int,
    say: Callable[[str], None],
    warm_up: int = WARM_UP,
) -> None:
    """Adds a figure for each peer, its ratio being ``ours`` (mails per second) over the peer's.

    A peer that cannot be installed, or does not do its work, is a note.
    """
    report.notes.append("The ratio of a peer: how many mails postroad sends in the time of one of the peer's")
    for peer in peers:
        say(peer.title)
        try:
            python = python_with(peer.requirements, place.folder / "venv")
            sending, service_seconds = _send(peer, python, place, count, warm_up)
        except (NotInstalledError, TrialError) as error:
            report.notes.append(f"{peer.title}: skipped, {error}")
            continue
        rate = count / sending.seconds
        report.add(Figure(name=f"peer_{peer.name}", title=peer.title, value=rate, unit="mails/s", ratio=ours / rate))
        spent = (sending.processor_seconds + service_seconds) / count * 1e6
        report.costs.append(Cost(component=peer.title, microseconds=spent))
        if sending.arrived > count:
            report.notes.append(f"{peer.title}: {sending.arrived - count:,} mails came twice")


def _ourselves(stack: BenchStack, sink: CountingPostfixSink | OwnSink, report: Report, count: int) -> float:
    """Mails per second of the whole path."""
    throughput.whole_path(stack, sink, Report(), count=WARM_UP, tracking=True, name="warm")
    found = Report()
    run = throughput.whole_path(stack, sink, found, count=count, tracking=True, name="peers")
    report.lost += found.lost
    report.doubled += found.doubled
    report.notes += found.notes
    report.add(Figure(name="peers_postroad", title=f"postroad, whole path, {count:,}", value=run.rate, unit="mails/s"))
    report.costs.append(Cost(component=f"postroad, whole path, {count:,}", microseconds=run.microseconds))
    return run.rate


def _send(peer: Peer, python: str, place: Place, count: int, warm_up: int) -> tuple[Sending, float]:
    """What the peer took, and the processor seconds of the services meanwhile."""
    folder = place.folder / peer.name
    folder.mkdir()
    job = Job(
        port=place.sink.port,
        sender=place.sender,
        subject=mails.SUBJECT,
        text=mails.TEXT,
        html=mails.HTML,
        people=[
            (address, mails.variables(number))
            for number, address in enumerate(mails.people(f"{peer.name}-", warm_up + count))
        ],
        keep=peer.keep,
        redis_url=_empty_redis(place.redis_url),
        database_url=_fresh_database(place.database_url, f"peer_{peer.name}"),
        folder=str(folder),
    )
    with Trial(peer, python, job, place.sink) as trial:
        trial.send(0, warm_up)
        before = place.service_seconds()
        sending = trial.send(warm_up, warm_up + count)
        return sending, place.service_seconds() - before


def _empty_redis(url: str) -> str:
    own = urlsplit(url)._replace(path=f"/{REDIS_DATABASE}").geturl()
    with redis.Redis.from_url(own) as client:
        client.flushdb()
    return own


def _fresh_database(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in ("drop database if exists {} with (force)", "create database {}"):
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _service_seconds(stack: BenchStack) -> float:
    used = processes.components(stack.json, stack.database)
    return sum(seconds for name, seconds in used.items() if name == "redis" or name.startswith("postgres for"))
