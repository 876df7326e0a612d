"""Where slow work goes on while other lanes pass: a receiver that hangs holds a thread, not the worker.

Only work that waits for others belongs here: webhooks and mailboxes. A lane's work is never done twice at the same time
by one process, however often its bell rings.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import structlog

from worker.bell import Lane

log = structlog.get_logger()

PATIENCE_SECONDS = 0.3
"""How long a worker stays with a lane before it goes on to the next."""
TRACKS = 32
"""Lanes worked on at the same time in one process. With all of them taken, a lane waits for one."""


class Siding:
    """One per worker process. ``again`` is called with a lane whose work ended with more to do."""

    def __init__(self, again: Callable[[Lane], object], *, patience: float = PATIENCE_SECONDS) -> None:
        self._again = again
        self._patience = patience
        self._tracks = ThreadPoolExecutor(TRACKS, "siding")
        self._taken: set[Lane] = set()
        self._missed: set[Lane] = set()
        """Lanes whose bell rang while they were worked on."""
        self._lock = threading.Lock()

    def run(self, lane: Lane, work: Callable[[], bool]) -> bool:
        """Does the lane's work. True: there is more, ring again.

        False too for work that is still going on: it rings by itself. Raises what the work raised in time.
        """
        with self._lock:
            if lane in self._taken:
                self._missed.add(lane)
                return False
            self._taken.add(lane)
        done = self._tracks.submit(contextvars.copy_context().run, work)
        wait([done], self._patience)
        if not done.done():
            done.add_done_callback(lambda late: self._arrive(lane, late))
            return False
        return self._leave(lane) | done.result()

    def _leave(self, lane: Lane) -> bool:
        """Whether the lane's bell rang meanwhile."""
        with self._lock:
            missed = lane in self._missed
            self._taken.discard(lane)
            self._missed.discard(lane)
            return missed

    def _arrive(self, lane: Lane, done: Future[bool]) -> None:
        missed = self._leave(lane)
        if done.cancelled():
            return
        if error := done.exception():
            log.error("lane_failed", task=lane.task, lane=lane.subject, exc_info=error)
        elif done.result() or missed:
            self._again(lane)

    def close(self) -> None:
        """Waits for what is going on."""
        self._tracks.shutdown(cancel_futures=True)
