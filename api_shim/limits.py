"""Rate limits: per key and per mailer, per second and per day, taken atomically in Redis.

A second counts requests, a day counts mails. All limits of a request are taken together or none is. What a provider
allows is another matter: the worker paces that by delay, and it is never an error.
"""

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from typing import Any, Protocol
from uuid import UUID

import redis
import structlog

from api_shim.auth import Caller
from api_shim.errors import ApiError
from worker.settings import Settings

log = structlog.get_logger()

SECOND, DAY = 1, 86_400
REST_SECONDS = 1.0
"""After Redis failed to answer it is left alone for so long, so that not every request waits for it."""

_SCRIPT = files("api_shim").joinpath("gcra.lua").read_text()


@dataclass(frozen=True, slots=True)
class Limit:
    """So many in a period. ``name`` is what a refusal calls it."""

    name: str
    key: str
    count: int
    period: int
    cost: int


@dataclass(frozen=True)
class Standing:
    """Where a limit stands after a request: what remains, and in how many seconds it is full again."""

    limit: Limit
    remaining: int
    reset: float

    @cached_property  # for a whole group of requests
    def headers(self) -> dict[str, str]:
        """As source B names them, and as the IETF draft (draft-ietf-httpapi-ratelimit-headers) does."""
        limit = self.limit
        reset = math.ceil(self.reset)
        return {
            "X-RateLimit-Limit": str(limit.count),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(reset),
            "RateLimit-Policy": f'"{limit.name}";q={limit.count};w={limit.period}',
            "RateLimit": f'"{limit.name}";r={self.remaining};t={reset}',
        }


def key_limits(caller: Caller, settings: Settings, mails: int) -> list[Limit]:
    """The limits of a caller's key, and those it shares with the keys it comes from."""
    per_second = caller.caps.get("per_second") or settings.key_per_second
    per_day = caller.caps.get("per_day") or settings.key_per_day
    owner = f"key:{caller.key_id}"
    limits = [
        _limit("per_second", owner, per_second, SECOND, min(mails, 1)),
        _limit("per_day", owner, per_day, DAY, mails),
    ]
    for share in caller.shares:
        owner = f"key:{share['key_id']}"
        if share.get("per_second"):
            limits.append(_limit("per_second", owner, share["per_second"], SECOND, min(mails, 1)))
        if share.get("per_day"):
            limits.append(_limit("per_day", owner, share["per_day"], DAY, mails))
    return limits


class Capped(Protocol):
    """What a mailer's limits are made of."""

    @property
    def id(self) -> UUID: ...

    @property
    def caps(self) -> Mapping[str, Any]: ...


def mailer_limits(mailer: Capped | None, mails: int) -> list[Limit]:
    """The limits of a mailer; none without caps."""
    if mailer is None:
        return []
    owner, caps = f"mailer:{mailer.id}", mailer.caps
    limits = []
    if caps.get("per_second"):
        limits.append(_limit("mailer_per_second", owner, caps["per_second"], SECOND, min(mails, 1)))
    if caps.get("per_day"):
        limits.append(_limit("mailer_per_day", owner, caps["per_day"], DAY, mails))
    return limits


def _limit(name: str, owner: str, count: int, period: int, cost: int) -> Limit:
    return Limit(name, f"postroad:limit:{owner}:{period}", count, period, cost)


class Limiter:
    """Takes from limits. With Redis away it lets requests pass or refuses them, as configured."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._script = client.register_script(_SCRIPT)
        self._settings = settings
        self._rests_until = 0.0

    def take(self, limits: Sequence[Limit]) -> Standing | None:
        """Takes all limits or none, and says where the tightest stands. None while Redis is away.

        Raises RATE_LIMITED naming the limit, with Retry-After; UNAVAILABLE where limits must hold without Redis.
        """
        (answer,) = self.take_all([limits])
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def take_all(self, requests: Sequence[Sequence[Limit]]) -> list[Standing | ApiError | None]:
        """`take` for several requests, in their order; those that share all their limits ask Redis together."""
        answers: dict[int, Standing | ApiError | None] = {}
        groups: defaultdict[tuple[tuple[str, int], ...], list[int]] = defaultdict(list)
        for index, limits in enumerate(requests):
            groups[tuple((limit.key, limit.count) for limit in limits)].append(index)
        for members in groups.values():
            shared = [requests[index] for index in members]
            answers |= zip(members, self._take_shared(shared), strict=True)
        return [answers[index] for index in range(len(requests))]

    def _take_shared(self, requests: Sequence[Sequence[Limit]]) -> list[Standing | ApiError | None]:
        """For requests with the same limits; all are told how these stand in the end.

        If not all of them fit, each is asked for by itself.
        """
        sums = [sum(costs) for costs in zip(*([limit.cost for limit in limits] for limits in requests), strict=True)]
        found = self._take([replace(limit, cost=cost) for limit, cost in zip(requests[0], sums, strict=True)])
        if isinstance(found, ApiError) and found.code.name == "RATE_LIMITED" and len(requests) > 1:
            return list(map(self._alone, requests))
        answer = _tightest(found) if isinstance(found, list) else found
        return [answer for _ in requests]

    def _alone(self, limits: Sequence[Limit]) -> Standing | ApiError | None:
        found = self._take(limits)
        return _tightest(found) if isinstance(found, list) else found

    def _take(self, limits: Sequence[Limit]) -> list[Standing] | ApiError | None:
        if time.monotonic() < self._rests_until:
            return self._without_redis()
        arguments = [value for limit in limits for value in (limit.count, limit.period, limit.cost)]
        try:
            refused, *figures = self._script(keys=[limit.key for limit in limits], args=arguments)
        except redis.RedisError as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            log.warning(
                "limits_not_counted", error=type(error).__name__, policy=self._settings.limits_when_redis_is_down
            )
            return self._without_redis()
        standings = [
            Standing(limit, int(figures[3 * index]), float(figures[3 * index + 1]))
            for index, limit in enumerate(limits)
        ]
        return _refusal(standings[refused - 1], float(figures[3 * refused - 1])) if refused else standings

    def _without_redis(self) -> ApiError | None:
        closed = self._settings.limits_when_redis_is_down == "closed"
        return ApiError("UNAVAILABLE", headers={"Retry-After": "1"}) if closed else None


def _tightest(standings: Sequence[Standing]) -> Standing:
    return min(standings, key=lambda standing: standing.remaining / standing.limit.count)


def _refusal(standing: Standing, wait: float) -> ApiError:
    limit = standing.limit
    details = {
        "limit": limit.name,
        "allowed": limit.count,
        "period_seconds": limit.period,
        "retry_after": math.ceil(wait),
    }
    return ApiError(
        "RATE_LIMITED", details=details, headers=standing.headers | {"Retry-After": str(max(1, math.ceil(wait)))}
    )
