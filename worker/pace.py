"""Pacing: a mailer sends no faster than its provider allows. What is too much waits; it never fails.

    limit                   from                                                  counted
    per_second/minute/day   the mailer's ``caps``, else its adapter's defaults    in Redis, for all workers together
    learned_per_second      halved when the provider says "too fast" without      in Redis, forgotten two hours after
                            a time, a tenth more for each minute without that     the last time

A worker takes an allowance before it claims and gives back what it did not use, so a crash can only make it slower. A
fifth of a minute's and of a day's allowance is kept for high priority. A mailer without limits costs nothing here.

With Redis away each process goes on alone at half of each limit; the bells are silent then too, unless the broker is
another Redis.
"""

import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from uuid import UUID

import redis
import structlog

from models.message import Priority
from worker.bell import Bells, Lane, send_lane
from worker.mailers import LEARNED_SECONDS, OpenMailer

log = structlog.get_logger()

PERIODS = {"per_second": 1, "per_minute": 60, "per_day": 86_400}
"""Limits of a mailer and their periods in seconds."""
LEARNED = "learned_per_second"
RESERVED = {"per_minute": 0.2, "per_day": 0.2}
"""The part of a limit that normal priority leaves to high priority."""
LOOK_AGAIN_SECONDS = 60.0
"""A resting lane is looked at this often, should its limits have been changed."""
PUNCTUAL_SECONDS = 2.0
"""A shorter rest ends by a bell of our own; the beat would add up to a second to it."""
GROWTH_PER_MINUTE = 1.1
SLOWEST = 1.0
UNKNOWN_RATE = 20.0
"""Mails per second that a mailer is taken to have sent when it was throttled before it sent anything."""
ONE_LESSON_SECONDS = 5.0
"""Workers that are throttled together have learned one thing, not several."""
REDIS_REST_SECONDS = 1.0

_SCRIPT = files("worker").joinpath("pace.lua").read_text()


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``count`` mails in any ``period`` seconds."""

    name: str
    key: str
    count: int
    period: int

    def reserved(self, priority: int) -> int:
        """How many of them this priority must leave."""
        return 0 if priority == Priority.HIGH else int(self.count * RESERVED.get(self.name, 0.0))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a limit stands: how many may go now, and in how many seconds it is whole again."""

    limit: Limit
    remaining: int
    resets_in: float


class Pace:
    """Allowances of all mailers. Nothing here raises for a Redis that is away, but for `standings`."""

    def __init__(self, client: redis.Redis, bells: Bells) -> None:
        self._redis = client
        self._script = client.register_script(_SCRIPT)
        self._bells = bells
        self._alone = _Alone()
        self._rates: dict[UUID, float] = {}
        """Mails per second of this process' latest turn with each mailer."""
        self._redis_rests_until = 0.0
        self._ringing: set[Lane] = set()

    def take(self, mailer: OpenMailer, priority: int, asked: int) -> int:
        """How many of ``asked`` mails may go now. With 0 the lane rests until there is an allowance again."""
        limits = self._limits(mailer)
        if not limits:
            return asked
        granted, wait = self._ask(limits, priority, asked)
        if not granted:
            self._rest(send_lane(mailer.id, priority), wait)
        return granted

    def give_back(self, mailer: OpenMailer, unused: int) -> None:
        """Returns what was granted and is not going to be used."""
        if unused and (limits := self._limits(mailer)):
            self._ask(limits, Priority.HIGH, -unused)

    def observe(self, mailer: OpenMailer, sent: int, seconds: float) -> None:
        """Keeps in mind how fast it went, in case it turns out to have been too fast."""
        if sent and seconds:
            self._rates[mailer.id] = sent / seconds

    def slow_down(self, mailer: OpenMailer) -> None:
        """The provider found us too fast: from now on half of what we did."""
        key = _key(mailer.id, "learned")
        try:
            if not self._redis.set(f"{key}:lesson", 1, nx=True, px=int(ONE_LESSON_SECONDS * 1000)):
                return
            before = self.learned(mailer.id) or self._rates.get(mailer.id, UNKNOWN_RATE)
            rate = max(SLOWEST, before / 2)
            self._redis.hset(key, mapping={"rate": rate, "at": time.time()})
            self._redis.expire(key, LEARNED_SECONDS)
        except redis.RedisError as error:
            log.warning("pace_not_learned", error=type(error).__name__)
        else:
            log.info("pace_learned", mailer_id=str(mailer.id), per_second=rate)

    def learned(self, mailer_id: UUID) -> float | None:
        """Mails per second that experience allows now; None where there was no trouble. Raises redis.RedisError."""
        rate, at = self._redis.hmget(_key(mailer_id, "learned"), "rate", "at")
        if rate is None or at is None:
            return None
        minutes = int(max(0.0, time.time() - float(at)) / 60)
        return float(rate) * GROWTH_PER_MINUTE**minutes

    def standings(self, mailer_id: UUID, caps: Mapping[str, int]) -> list[Standing]:
        """Where a mailer's limits stand, without taking anything. Raises redis.RedisError."""
        limits = _named(mailer_id, caps)
        if not limits:
            return []
        _, _, *figures = self._run(limits, Priority.HIGH, 0)
        return [
            Standing(limit, int(figures[2 * index]), float(figures[2 * index + 1]))
            for index, limit in enumerate(limits)
        ]

    def resting(self, lanes: Collection[Lane]) -> set[Lane]:
        """Those of the lanes that wait for an allowance: to ring for them is in vain. Raises redis.RedisError."""
        asked = [lane for lane in lanes if lane.task == "deliver"]
        found = self._redis.mget([_rest_key(lane) for lane in asked]) if asked else []
        return {lane for lane, rests in zip(asked, found, strict=True) if rests is not None}

    def _limits(self, mailer: OpenMailer) -> list[Limit]:
        limits = _named(mailer.id, mailer.caps) if mailer.caps else []
        if not mailer.learning or time.monotonic() < self._redis_rests_until:
            return limits
        try:
            rate = self.learned(mailer.id)
        except redis.RedisError:
            return limits
        return limits if rate is None else [*limits, Limit(LEARNED, _key(mailer.id, LEARNED), int(rate), 1)]

    def _ask(self, limits: Sequence[Limit], priority: int, asked: int) -> tuple[int, float]:
        """How many are granted, and if none the seconds until one would be."""
        if time.monotonic() >= self._redis_rests_until:
            try:
                granted, wait, *_ = self._run(limits, priority, asked)
                return int(granted), float(wait)
            except redis.RedisError as error:
                self._redis_rests_until = time.monotonic() + REDIS_REST_SECONDS
                log.warning("pace_alone", error=type(error).__name__, next="at half of each limit")
        return self._alone.take(limits, asked), PUNCTUAL_SECONDS

    def _run(self, limits: Sequence[Limit], priority: int, asked: int) -> Any:
        arguments = [value for limit in limits for value in (limit.count, limit.period, limit.reserved(priority))]
        return self._script(keys=[limit.key for limit in limits], args=[asked, *arguments])

    def _rest(self, lane: Lane, wait: float) -> None:
        if time.monotonic() >= self._redis_rests_until:
            self._note_rest(lane, min(wait, LOOK_AGAIN_SECONDS))
        if wait <= PUNCTUAL_SECONDS and lane not in self._ringing:
            self._ringing.add(lane)
            timer = threading.Timer(wait, self._ring, (lane,))
            timer.daemon = True
            timer.start()

    def _note_rest(self, lane: Lane, seconds: float) -> None:
        try:
            self._redis.set(_rest_key(lane), 1, px=max(1, int(seconds * 1000)))
        except redis.RedisError as error:
            log.warning("rest_not_noted", error=type(error).__name__)

    def _ring(self, lane: Lane) -> None:
        self._ringing.discard(lane)
        self._bells.ring(lane)


@dataclass(slots=True)
class _Alone:
    """Paces this process by itself at half of each limit, since it cannot know what the others do."""

    _taken: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def take(self, limits: Sequence[Limit], asked: int) -> int:
        now = time.monotonic()
        granted = asked
        for limit in limits:
            taken = self._taken.setdefault(limit.key, deque())
            while taken and taken[0][0] <= now - limit.period:
                taken.popleft()
            granted = min(granted, max(1, limit.count // 2) - sum(mails for _, mails in taken))
        if granted == 0 or (asked > 0 and granted < 0):
            return 0
        for limit in limits:
            self._taken[limit.key].append((now, granted))
        return granted


def _named(mailer_id: UUID, caps: Mapping[str, int]) -> list[Limit]:
    return [Limit(name, _key(mailer_id, name), caps[name], period) for name, period in PERIODS.items() if name in caps]


def _key(mailer_id: UUID, name: str) -> str:
    return f"postroad:pace:{mailer_id}:{name}"


def _rest_key(lane: Lane) -> str:
    return f"postroad:rests:{lane.subject}"
