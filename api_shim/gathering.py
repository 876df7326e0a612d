"""Group commit: what arrives while others are being stored is stored together, with one transaction for all of them.

A commit costs the same for one row as for fifty. A request that comes by itself goes at once; those that come while it
is being stored make the next group.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")
R = TypeVar("R")

MOST = 100
"""Requests in one group."""

LINGER_SECONDS = 0.001
"""How long a group waits for those who were told their answers a moment ago and come back with more."""

PATIENCE_SECONDS = 0.025
"""After so long a group counts as held up, and the next one no longer waits for it."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T, R]):
    item: T
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[R]"


class Gatherer(Generic[T, R]):
    """Does ``work`` for groups, in threads of its own.

    work: returns a result for each item, in their order; what it raises goes to all of them.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], *, threads: int) -> None:
        self._work = work
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="intake")
        self._lock = Lock()
        self._waiting: list[_Waiting[T, R]] = []
        self._running = 0
        self._fresh_until = 0.0
        self._company = 0
        """Size of the latest group."""
        self._watching: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        """Loops that look again after `PATIENCE_SECONDS`."""

    async def do(self, item: T) -> R:
        """The result for one item."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[T, R] = _Waiting(item, loop, loop.create_future())
        with self._lock:
            is_first = not self._waiting
            self._waiting.append(waiting)
        if is_first:
            self._schedule(loop)
        return await waiting.answer

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins once the loop has read what is there. Where there was company before, more comes in a moment."""
        loop.call_later(LINGER_SECONDS if self._company > 1 else 0, self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._start()
        # One timer is enough, or a backlog would add one with every group, and each would go on as long as it lasts.
        if self._waiting and loop not in self._watching:
            self._watching.add(loop)
            loop.call_later(PATIENCE_SECONDS, self._look_again, loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching.discard(loop)
        self._begin(loop)

    def _start(self) -> None:
        with self._lock:
            held_up = time.monotonic() >= self._fresh_until
            if not self._waiting or (self._running and not held_up) or self._running >= self._threads:
                return
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._running += 1
            self._company = len(group)
            self._fresh_until = time.monotonic() + PATIENCE_SECONDS
        self._pool.submit(self._do, group)

    def _do(self, group: Sequence[_Waiting[T, R]]) -> None:
        try:
            results: Sequence[R | Exception] = self._work([waiting.item for waiting in group])
        except Exception as error:  # noqa: BLE001 -- it is raised where the results are waited for
            results = [error] * len(group)
        with self._lock:
            self._running -= 1
            self._fresh_until = 0.0
        answers: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[R], R | Exception]]]
        answers = defaultdict(list)
        for waiting, result in zip(group, results, strict=True):
            answers[waiting.loop].append((waiting.answer, result))
        for loop, told in answers.items():
            with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
                loop.call_soon_threadsafe(self._tell, loop, told)

    def _tell(
        self, loop: asyncio.AbstractEventLoop, answers: Sequence[tuple["asyncio.Future[R]", R | Exception]]
    ) -> None:
        if self._waiting:
            self._schedule(loop)
        for answer, result in answers:
            if answer.done():
                continue  # its request was given up
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def close(self) -> None:
        """Waits for what is being done."""
        self._pool.shutdown()
