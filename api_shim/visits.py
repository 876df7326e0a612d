"""Opens and clicks on their way to the database: gathered in memory, written together by a thread of their own.

A pixel or a redirect is answered whatever the database does. What it cannot take for a while is kept, up to a limit;
beyond that, and when the process dies, visits are lost, which the log says.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine

from api_shim.http import UNAVAILABLE
from models.event import EventType
from worker.bell import Lane, endpoint_lane
from worker.visits import SCAN_WINDOW, Visit, append_visits

log = structlog.get_logger()

FLUSH_SECONDS = 0.5
FLUSH_AT = 200
"""Visits that are written at once, without waiting for the time."""
MOST = 20_000
"""Visits kept while the database is away."""


class Visits:
    """The gathered visits of one process. ``ring`` is called for each endpoint that has something to deliver."""

    def __init__(self, engine: Engine, ring: Callable[[Lane], None]) -> None:
        self._engine = engine
        self._ring = ring
        self._waiting: list[Visit] = []
        self._recent: list[Visit] = []
        """Clicks on record whose neighbours may still come."""
        self._lost = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="visits", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, visit: Visit) -> None:
        """Returns at once, and never fails."""
        with self._lock:
            if len(self._waiting) >= MOST:
                self._lost += 1
                return
            self._waiting.append(visit)
            full = len(self._waiting) % FLUSH_AT == 0
        if full:
            self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self.flush()

    def flush(self, *, everything: bool = False) -> None:
        """Writes what is ready. Clicks wait until all clicks are in that could show them to be a machine's."""
        with self._lock:
            ready, self._waiting = self._split(everything)
            lost, self._lost = self._lost, 0
        if lost:
            log.error("visits_lost", visits=lost, why="the database was away for too long")
        if ready:
            self._write(ready)

    def _split(self, everything: bool) -> tuple[list[Visit], list[Visit]]:
        if everything:
            return self._waiting, []
        until = datetime.now(UTC) - SCAN_WINDOW
        ready: list[Visit] = []
        waiting: list[Visit] = []
        for visit in self._waiting:
            (ready if visit.type is EventType.OPENED or visit.at < until else waiting).append(visit)
        return ready, waiting

    def _write(self, ready: list[Visit]) -> None:
        once = {visit.sameness: visit for visit in reversed(ready)}
        visits = sorted(once.values(), key=lambda visit: visit.at)
        try:
            with self._engine.begin() as connection:
                endpoints = append_visits(connection, visits, self._recent)
        except UNAVAILABLE as error:
            log.warning("visits_not_written", visits=len(visits), error=type(error).__name__, next="tried again")
            with self._lock:
                self._waiting = visits + self._waiting
            return
        except Exception as error:  # a bug takes what it met, not the thread and all later visits
            log.exception("visits_lost", visits=len(visits), why=type(error).__name__)
            return
        since = datetime.now(UTC) - 2 * SCAN_WINDOW
        clicks = [visit for visit in visits if visit.type is EventType.CLICKED]
        self._recent = [visit for visit in [*self._recent, *clicks] if visit.at > since]
        for endpoint_id in endpoints:
            self._ring(endpoint_lane(endpoint_id))

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout=10)
        self.flush(everything=True)
        if self._waiting:
            log.error("visits_lost", visits=len(self._waiting), why="the process ended while the database was away")
