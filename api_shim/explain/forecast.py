"""When a message will be sent, as far as numbers can tell.

What is before it in its lane goes at the lane's pace: no faster than the mailer's limits allow, and no faster than it
went of late. What waits for a person has no forecast.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from api_shim.explain.cause import Cause
from api_shim.explain.facts import Facts, Lane
from models.message import State
from worker.pace import Standing

ASSUMED_RATE: Final = 100.0
"""Mails per second of a lane of which nothing was measured and that has no limit; far below what a server takes."""
WINDOW: Final = 1.05
"""A limit is counted in twenty slices, so that its allowance comes back after one slice more than its period."""
LEAST_SECONDS: Final = 1.0
"""Bells ring within about a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When it is sent, and what the figure rests on."""

    at: datetime
    seconds: float
    basis: str
    """``schedule``, ``limits``, ``measured`` or ``assumed``: the slowest of them decides."""

    def as_json(self) -> dict[str, Any]:
        return {"at": self.at, "seconds": round(self.seconds, 1), "basis": self.basis}


def forecast(facts: Facts, causes: Iterable[Cause]) -> Forecast | None:
    """None for what is not queued, and for what nobody can tell because a person has to act."""
    due_at = facts.message.due_at
    if facts.message.state != State.QUEUED or due_at is None or facts.lane is None:
        return None
    if any(cause.needs_person for cause in causes):
        return None
    due_in = max(0.0, (due_at - facts.now).total_seconds())
    throttled = max(
        0.0, (facts.mailer.throttled_until - facts.now).total_seconds() if facts.mailer.throttled_until else 0
    )
    work, basis = _work(facts, facts.lane)
    if due_in >= throttled + work:
        work, throttled, basis = due_in, 0.0, "schedule"
    seconds = max(LEAST_SECONDS, throttled + work)
    return Forecast(at=facts.now + timedelta(seconds=seconds), seconds=seconds, basis=basis)


def _work(facts: Facts, lane: Lane) -> tuple[float, str]:
    """Seconds until everything before it and itself is sent."""
    asked = lane.before + 1
    paced = max((_paced(one, facts.message.priority, asked + lane.preferred) for one in facts.limits), default=0.0)
    if lane.rate is None:
        assumed = (asked + lane.in_hand) / ASSUMED_RATE
        return max((paced, "limits"), (assumed, "assumed"))
    measured = (asked + lane.in_hand) / lane.rate
    bursts = any(one.limit.period > 1 and _paced(one, facts.message.priority, asked) for one in facts.limits)
    # Under a limit of a minute or a day mail goes in bursts: what went in the last seconds says nothing about it.
    return (paced, "limits") if bursts else max((paced, "limits"), (measured, "measured"))


def _paced(standing: Standing, priority: int, asked: int) -> float:
    """Seconds until a limit has let so many mails through: an allowance at once, the next when it is back."""
    limit = standing.limit
    allowance = max(1, limit.count - limit.reserved(priority))
    more = asked - max(0, standing.remaining - limit.reserved(priority))
    if more <= 0:
        return 0.0
    full = limit.period * WINDOW
    return min(standing.resets_in or full, full) + (math.ceil(more / allowance) - 1) * full
