"""Proof of life of a worker process: a row that is refreshed, and an advisory lock that the kernel frees when it
dies.
"""

import os
import threading
import zlib
from collections.abc import Sequence

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from models.database import connect
from worker.lease import let_go
from worker.runtime import Runtime

log = structlog.get_logger()

BEAT_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
SILENT_SECONDS = 15.0
"""A worker that was not heard of for so long counts as gone."""

_BEAT = text("""
    insert into worker_heartbeat (name, queues, lock_key, idle_seconds) values (:name, :queues, :key, :idle)
    on conflict (name) do update set seen_at = clock_timestamp(), queues = excluded.queues,
        lock_key = excluded.lock_key, idle_seconds = excluded.idle_seconds
""")


class Heartbeat:
    """Beats from a thread of its own on a connection of its own, until closed or the process ends."""

    def __init__(self, runtime: Runtime, queues: Sequence[str]) -> None:
        self._runtime = runtime
        self._queues = list(queues)
        self._key = os.getpid() << 32 | zlib.crc32(runtime.name.encode())
        self._engine = connect(runtime.settings.sqlalchemy_url, pool_size=1, application="postroad heartbeat")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._alive = threading.Event()

    def start(self) -> None:
        """Returns when the first beat is in the database, or after 10 s without one."""
        self._thread.start()
        self._alive.wait(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._engine.connect() as connection:
                    self._hold(connection)
            except SQLAlchemyError as error:
                log.warning("heartbeat_failed", error=type(error).__name__, next=f"again in {RECONNECT_SECONDS} s")
                self._stop.wait(RECONNECT_SECONDS)

    def _hold(self, connection: Connection) -> None:
        """Beats on one connection, which holds the lock, until it breaks."""
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": self._key})
        while not self._stop.is_set():
            beat = {"name": self._runtime.name, "queues": self._queues, "key": self._key}
            connection.execute(_BEAT, beat | {"idle": self._runtime.activity.idle_seconds})
            connection.commit()
            self._let_go(connection)
            self._alive.set()
            self._stop.wait(BEAT_SECONDS)
        connection.execute(text("delete from worker_heartbeat where name = :name"), {"name": self._runtime.name})
        connection.commit()

    def _let_go(self, connection: Connection) -> None:
        """Ends a lease of ours that nobody works on; the work waits with its next batch until that is said."""
        if self._runtime.hands.acquire(blocking=False):
            try:
                let_go(connection, self._runtime.name)
                connection.commit()
            finally:
                self._runtime.hands.release()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        self._engine.dispose()
