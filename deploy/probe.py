"""Liveness probes: `postroad worker --check` and `postroad beat --check`.

A worker that is seen can still be of no use, for instance because it no longer hears its broker. So what counts is
work: it fails when mail of its queues has waited in vain while it had nothing in hand. While the database is away
nobody can work, and no restart would help: then the probes are content.
"""

import socket
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from deploy.doctor import WAITED_SECONDS, check_beat, neglected_lanes
from worker.heartbeat import SILENT_SECONDS
from worker.settings import Settings

_IDLE = text("""
    select min(coalesce(idle_seconds, 0)) from worker_heartbeat
    where split_part(name, ':', 1) = :host and queues && :queues and seen_at > clock_timestamp() - :silent
""")


def probe_worker(settings: Settings, queues: Sequence[str], host: str | None = None) -> str | None:
    """What is wrong with the worker of these queues on this host; None if nothing is."""
    try:
        with _engine(settings).connect() as connection:
            return _examined(connection, settings, queues, host or socket.gethostname())
    except SQLAlchemyError:
        return None


def _examined(connection: Connection, settings: Settings, queues: Sequence[str], host: str) -> str | None:
    silent = timedelta(seconds=SILENT_SECONDS)
    idle = connection.execute(_IDLE, {"host": host, "queues": list(queues), "silent": silent}).scalar_one()
    if idle is None:
        return f"No worker of {', '.join(queues)} on {host} was heard of for {SILENT_SECONDS:g} s."
    if idle < WAITED_SECONDS:
        return None
    waiting = {lane.queue for lane in neglected_lanes(connection, settings)} & set(queues)
    if not waiting:
        return None
    return (
        f"Due work of {', '.join(sorted(waiting))} waits, and the worker on {host} has done nothing for {idle:.0f} s."
    )


def probe_beat(settings: Settings) -> str | None:
    """What is wrong with the beat, wherever it runs; None if nothing is."""
    try:
        with _engine(settings).connect() as connection:
            check = check_beat(connection)
    except SQLAlchemyError:
        return None
    return None if check.ok else f"The beat {check.found}."


def _engine(settings: Settings) -> Engine:
    timeouts = {"connect_timeout": 5, "options": "-c statement_timeout=10s"}
    return create_engine(settings.sqlalchemy_url, poolclass=NullPool, hide_parameters=True, connect_args=timeouts)
