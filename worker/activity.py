"""How long this process has had nothing in hand: what a liveness probe compares with the work that waits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Counts the tasks at work in this process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._at_work = 0
        self._ended_at = time.monotonic()
        self._lock = threading.Lock()

    @contextmanager
    def task(self) -> Iterator[None]:
        """Something is in hand inside."""
        with self._lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                self._ended_at = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Since the last task ended; 0 while there is one."""
        with self._lock:
            return 0.0 if self._at_work else time.monotonic() - self._ended_at
