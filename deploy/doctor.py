"""The checks of `postroad doctor`: each says what it found and, where that is wrong, what to do."""

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import redis
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from celery import Celery
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from deploy.check import Check
from deploy.domain_checks import Watched, check_domains, read_domains
from models.migrations import config
from worker.beat import SAMPLE_SECONDS, due_lanes
from worker.bell import QUEUES, Bells, Lane
from worker.heartbeat import SILENT_SECONDS
from worker.pace import Pace
from worker.settings import Settings
from worker.standstill import paused

MAX_SKEW_SECONDS = 2.0
WAITED_SECONDS = 30.0
"""Work that has been due for so long with nobody at it is neglected."""
SECOND_LOOK_SECONDS = 1.0

_HEARD_OF = text("""
    select distinct queue from worker_heartbeat, unnest(queues) queue where seen_at > clock_timestamp() - :silent
""")
_SAMPLED = text("select extract(epoch from clock_timestamp() - max(at)) from queue_sample")
_OVERDUE = {
    "deliver": text("""
        select exists (
            select from message where due_at < statement_timestamp() - :waited
                                  and created_at < statement_timestamp() - :waited
                                  and mailer_id = cast(split_part(:subject, ':', 1) as uuid)
                                  and priority = cast(split_part(:subject, ':', 2) as int)
        ) and not exists (
            select from lease where lease.mailer_id = cast(split_part(:subject, ':', 1) as uuid)
                                and lease.priority = cast(split_part(:subject, ':', 2) as int))
    """),
    "record": text("select min(due_at) < clock_timestamp() - :waited from followup"),
    "apply_reports": text("select min(due_at) < clock_timestamp() - :waited from provider_report"),
    "notify": text("""
        select min(due_at) < clock_timestamp() - :waited from webhook_delivery
        where due_at is not null and endpoint_id = cast(:subject as uuid)
    """),
    "collect": text("""
        select least((select min(due_at) from mailbox_watch where mailer_id = cast(:subject as uuid)),
                     (select min(due_at) from pickup where mailer_id = cast(:subject as uuid)))
               < clock_timestamp() - :waited
    """),
}
"""By the task of a lane: whether what is due in it waits in vain."""


def check_settings(settings: Settings) -> Check:
    """Whether the values are usable; that the required ones are there is known when there are settings at all."""
    from cryptography.fernet import Fernet

    try:
        for key in settings.keys:
            Fernet(key)
    except ValueError:
        return Check(
            name="settings",
            ok=False,
            found="POSTROAD_SECRET_KEYS holds what is no Fernet key",
            fix="Make keys as docs/settings.md shows: 32 bytes in URL-safe base64.",
        )
    if not settings.keys:
        return Check(
            name="settings", ok=False, found="POSTROAD_SECRET_KEYS is empty", fix="Make a key: see docs/settings.md."
        )
    return Check(name="settings", ok=True, found=f"complete; {len(settings.keys)} secret key(s)")


def examine(settings: Settings, engine: Engine) -> Iterator[Check]:
    """Every check in turn. Without a database, or its tables, what needs them is left out."""
    yield check_settings(settings)
    domains: list[Watched] = []
    try:
        with engine.connect() as connection:
            yield Check(name="database", ok=True, found=_version(connection))
            migrations = check_migrations(connection, settings)
            yield migrations
            yield check_clock(connection)
            yield from _check_redises(settings)
            if migrations.ok:
                yield from _check_work(connection, settings)
                domains = read_domains(connection, settings)
    except SQLAlchemyError as error:
        yield Check(
            name="database",
            ok=False,
            found=f"does not answer: {_cause(error)}",
            fix="Check POSTROAD_DATABASE_URL, and that PostgreSQL runs and lets this machine in.",
        )
        yield from _check_redises(settings)
    yield from check_domains(domains, settings.dns_servers)


def _version(connection: Connection) -> str:
    return f"PostgreSQL {connection.execute(text('show server_version')).scalar_one()}"


def _cause(error: SQLAlchemyError) -> str:
    """The driver's first line; it names hosts and users, never passwords."""
    lines = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def check_migrations(connection: Connection, settings: Settings) -> Check:
    heads = set(ScriptDirectory.from_config(config(settings.sqlalchemy_url)).get_heads())
    held = set(MigrationContext.configure(connection).get_current_heads())
    connection.rollback()
    shown = ", ".join(sorted(held)) or "no tables"
    if held == heads:
        return Check(name="migrations", ok=True, found=f"at {shown}")
    wanted = ", ".join(sorted(heads))
    return Check(
        name="migrations", ok=False, found=f"{shown}; this version needs {wanted}", fix="Run: postroad migrate"
    )


def check_clock(connection: Connection) -> Check:
    """Compares the host's clock with the database's, by which everything is timed."""
    before = time.time()
    there = float(connection.execute(text("select extract(epoch from clock_timestamp())")).scalar_one())
    skew = there - (before + time.time()) / 2
    return Check(
        name="clock",
        ok=abs(skew) <= MAX_SKEW_SECONDS,
        found=f"the database's clock is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} this host's",
        fix=""
        if abs(skew) <= MAX_SKEW_SECONDS
        else "Synchronise both clocks (NTP): send_at and signatures rely on them.",
    )


def _check_redises(settings: Settings) -> Iterator[Check]:
    yield check_redis("redis", settings.redis_url)
    if settings.broker != settings.redis_url and settings.broker.startswith(("redis://", "rediss://", "unix://")):
        yield check_redis("broker", settings.broker)


def check_redis(name: str, url: str) -> Check:
    """Eviction must be off. Persistence is shown only: the beat rings again what a restart forgets."""
    variable = "POSTROAD_REDIS_URL" if name == "redis" else "POSTROAD_BROKER_URL"
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            policy = _configured(client, "maxmemory-policy")
            append_only = _configured(client, "appendonly")
    except (redis.RedisError, OSError, ValueError) as error:
        found = f"does not answer ({type(error).__name__}); mail is accepted, and sent when it is back"
        return Check(name=name, ok=False, found=found, fix=f"Check {variable}, and that Redis runs.")
    found = f"maxmemory-policy {policy}, appendonly {append_only}"
    if policy in ("noeviction", "unknown"):
        return Check(name=name, ok=True, found=found)
    return Check(
        name=name,
        ok=False,
        found=f"{found}: bells can be evicted",
        fix="Run: redis-cli CONFIG SET maxmemory-policy noeviction",
    )


def _configured(client: redis.Redis, parameter: str) -> str:
    """A parameter of the server; hosted ones may not tell."""
    try:
        found: Mapping[str, Any] = client.config_get(parameter)  # type: ignore[assignment]
    except redis.ResponseError:
        return "unknown"
    return str(found.get(parameter, "unknown"))


def _check_work(connection: Connection, settings: Settings) -> Iterator[Check]:
    heard_of = set(connection.execute(_HEARD_OF, {"silent": timedelta(seconds=SILENT_SECONDS)}).scalars())
    for queue in QUEUES:
        yield check_worker(queue, heard_of)
    yield from check_paused(connection)
    yield check_beat(connection)
    yield check_lanes(connection, settings)


def check_worker(queue: str, heard_of: set[str]) -> Check:
    if queue in heard_of:
        return Check(name=f"worker {queue}", ok=True, found="alive")
    found = f"none heard of for {SILENT_SECONDS:g} s"
    return Check(name=f"worker {queue}", ok=False, found=found, fix=f"Start one: postroad worker --queues {queue}")


def check_paused(connection: Connection) -> Iterator[Check]:
    """A line for each queue that an operator stopped."""
    for queue, pause in paused(connection).items():
        said = f": {pause.reason}" if pause.reason else ""
        found = f"paused since {pause.paused_at:%Y-%m-%d %H:%M} UTC{said}"
        yield Check(name=f"queue {queue}", ok=False, found=found, fix=f"Run: postroad queue resume {queue}")


def check_beat(connection: Connection) -> Check:
    age = connection.execute(_SAMPLED).scalar_one()
    if age is not None and age <= 3 * SAMPLE_SECONDS:
        return Check(name="beat", ok=True, found=f"measured the queues {max(0.0, float(age)):.0f} s ago")
    found = "has never measured the queues" if age is None else f"measured the queues last {float(age):.0f} s ago"
    return Check(name="beat", ok=False, found=found, fix="Start it: postroad beat")


def check_lanes(connection: Connection, settings: Settings) -> Check:
    """Looks for due work with nobody at it, twice: between two batches a lane is in nobody's hands for a moment."""
    neglected = neglected_lanes(connection, settings)
    if neglected:
        time.sleep(SECOND_LOOK_SECONDS)
        neglected &= neglected_lanes(connection, settings)
    if not neglected:
        return Check(name="due work", ok=True, found="all of it is in somebody's hands or newer than 30 s")
    named = ", ".join(sorted(f"{lane.queue} {lane.subject}" for lane in neglected)[:10])
    fix = "Look at the workers of these queues and their logs; restart one that does nothing."
    return Check(name="due work", ok=False, found=f"{len(neglected)} lane(s) wait in vain: {named}", fix=fix)


def neglected_lanes(connection: Connection, settings: Settings) -> set[Lane]:
    """Lanes with work that has been due for `WAITED_SECONDS` and that nobody holds at this moment."""
    due = set(due_lanes(connection))
    due -= _resting(settings, due)
    waited = timedelta(seconds=WAITED_SECONDS)
    found = {
        lane
        for lane in due
        if connection.execute(_OVERDUE[lane.task], {"waited": waited, "subject": lane.subject}).scalar_one()
    }
    connection.rollback()
    return found


def _resting(settings: Settings, lanes: set[Lane]) -> set[Lane]:
    """Lanes that wait for an allowance of their mailer; none where Redis cannot say."""
    try:
        with redis.Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            return Pace(client, Bells(Celery(), client)).resting(lanes)
    except (redis.RedisError, OSError, ValueError):
        return set()
