"""One lane's turn: its parcels go out over a few connections until they are gone, the time is up or trouble shows."""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime

from worker.parcel import Delivery, Parcel
from worker.postman import Answer

CONNECTIONS = 4
"""Requests that one endpoint gets at the same time."""
FAILURES_IN_A_ROW = 5
"""After so many the endpoint is taken for dead: no more of this turn goes out."""
REPORT_SECONDS = 0.1
"""Results are handed over this often while the turn goes on: what a killed worker would post again."""
GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What went out, how it was signed, and the answer."""

    webhook_id: str
    body: bytes = field(repr=False)
    timestamp: int
    signature: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a parcel that was posted at ``at``."""

    parcel: Parcel
    at: datetime
    posted: Posted
    jitter: float
    """0.8 to 1.2, by which the wait for the next try is multiplied; the same for all that failed together."""

    @property
    def answer(self) -> Answer:
        return self.posted.answer


class Turn:
    """Hands out parcels to threads and collects what became of them.

    failures: failures in a row so far, over earlier turns too; updated as results come in.
    seconds: no request is begun later than that after the first could be.
    every: seconds from the start of one request to that of the next, at least.
    """

    def __init__(self, *, failures: int, seconds: float, ordered: bool, every: float = 0.0) -> None:
        self.failures = failures
        self.gone = False
        """The endpoint answered 410: it wants nothing any more."""
        self.blocked: Result | None = None
        """The failure at which an ordered lane stopped."""
        self.taken = 0
        """Deliveries that it was given."""
        self._waiting: deque[Parcel] = deque()
        self._all_here = False
        self._seconds = seconds
        self._ends_at = math.inf
        self._ordered = ordered
        self._every = every
        self._next_at = 0.0
        self._stopped = False
        self._fresh: list[Result] = []
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        """More is waiting, or nothing more comes."""

    def run(
        self,
        portions: Iterable[Sequence[Parcel]],
        post: Callable[[Parcel], Posted],
        report: Callable[[list[Result]], None],
    ) -> None:
        """Posts from several threads (one if ordered); ``report`` is called by this thread with new results.

        The first of the portions goes out while the next is fetched, and is reported while that is. After a stop none
        is fetched.
        """
        most = 1 if self._ordered else CONNECTIONS
        coming = iter(portions)
        first = next(coming, ())
        self._add(first)
        with ThreadPoolExecutor(most + 1, "webhook") as threads:
            running: set[Future[None]] = {threads.submit(self._carry, post) for _ in first[:most]}
            running.add(threads.submit(self._fetch, coming))
            try:
                while running:
                    done, running = wait(running, REPORT_SECONDS)
                    self._report(report)
                    for each in done:
                        each.result()
            finally:
                self._stopped = True
                self._close()

    def unposted(self) -> list[Delivery]:
        """What nobody took. To be called after `run`."""
        return [delivery for parcel in self._waiting for delivery in parcel.deliveries]

    def _fetch(self, portions: Iterator[Sequence[Parcel]]) -> None:
        try:
            for portion in portions:
                self._add(portion)
                if self._stopped:
                    break
        finally:
            self._close()

    def _add(self, parcels: Sequence[Parcel]) -> None:
        with self._news:
            self._ends_at = min(self._ends_at, time.monotonic() + self._seconds)
            self.taken += sum(len(each.deliveries) for each in parcels)
            self._waiting.extend(parcels)
            self._news.notify_all()

    def _close(self) -> None:
        """Nothing more comes."""
        with self._news:
            self._all_here = True
            self._news.notify_all()

    def _report(self, report: Callable[[list[Result]], None]) -> None:
        with self._lock:
            fresh, self._fresh = self._fresh, []
        if fresh:
            report(fresh)

    def _carry(self, post: Callable[[Parcel], Posted]) -> None:
        while (parcel := self._take()) is not None:
            self._pace()
            at = datetime.now(UTC)
            self._note(Result(parcel=parcel, at=at, posted=post(parcel), jitter=random.uniform(0.8, 1.2)))  # noqa: S311

    def _take(self) -> Parcel | None:
        with self._news:
            while not (self._waiting or self._all_here or self._stopped):
                self._news.wait()
            if self._stopped or not self._waiting or time.monotonic() > self._ends_at:
                return None
            return self._waiting.popleft()

    def _pace(self) -> None:
        """Waits for this request's time."""
        if self._every:
            with self._lock:
                mine = max(self._next_at, time.monotonic())
                self._next_at = mine + self._every
            time.sleep(max(0.0, mine - time.monotonic()))

    def _note(self, result: Result) -> None:
        with self._lock:
            self._fresh.append(result)
            if result.answer.accepted:
                self.failures = 0
                return
            self.failures += 1
            self.gone = self.gone or result.answer.status == GONE
            if self._ordered:
                self.blocked = result
            if self.gone or self._ordered or self.failures >= FAILURES_IN_A_ROW:
                self._stopped = True
