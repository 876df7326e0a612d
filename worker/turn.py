"""One lane's turn: its parcels go out over a few connections until they are gone, the time is up or trouble shows."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from worker.postman import Answer

CONNECTIONS = 4
"""Requests that one endpoint gets at the same time."""
FAILURES_IN_A_ROW = 5
"""After so many the endpoint is taken for dead: no more of this turn goes out."""
REPORT_SECONDS = 0.5
"""Results are handed over this often while the turn goes on: what a killed worker would post again."""
GONE = 410


class Delivery(NamedTuple):
    """A claimed row of `models.webhook.WebhookDelivery`. Thousands are made a second, which a tuple is cheapest at."""

    id: UUID
    token: int
    event_id: UUID
    due_at: datetime
    """When it was due before it was claimed."""
    tries: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One request: a single delivery, or several in a JSON array."""

    webhook_id: str
    deliveries: tuple[Delivery, ...]
    body: bytes = field(repr=False)
    traceparents: tuple[str | None, ...] = ()
    """Of the submissions whose events it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """How a parcel was signed, and the answer."""

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
    every: seconds from the start of one request to that of the next, at least.
    """

    def __init__(
        self, parcels: Iterable[Parcel], *, failures: int, seconds: float, ordered: bool, every: float = 0.0
    ) -> None:
        self.failures = failures
        self.gone = False
        """The endpoint answered 410: it wants nothing any more."""
        self.blocked: Result | None = None
        """The failure at which an ordered lane stopped."""
        self._waiting = deque(parcels)
        self._ends_at = time.monotonic() + seconds
        self._ordered = ordered
        self._every = every
        self._next_at = 0.0
        self._stopped = False
        self._fresh: list[Result] = []
        self._lock = threading.Lock()

    def run(self, post: Callable[[Parcel], Posted], report: Callable[[list[Result]], None]) -> None:
        """Posts from several threads (one if ordered); ``report`` is called by this thread with new results."""
        count = 1 if self._ordered else min(CONNECTIONS, len(self._waiting))
        with ThreadPoolExecutor(max(count, 1), "webhook") as threads:
            running: set[Future[None]] = {threads.submit(self._carry, post) for _ in range(count)}
            try:
                while running:
                    done, running = wait(running, REPORT_SECONDS)
                    self._report(report)
                    for each in done:
                        each.result()
            finally:
                self._stopped = True

    def unposted(self) -> list[Delivery]:
        """What nobody took. To be called after `run`."""
        return [delivery for parcel in self._waiting for delivery in parcel.deliveries]

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
        with self._lock:
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
