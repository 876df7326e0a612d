"""What a try made of the deliveries that it carried: delivered, due again or dead; and what is kept of the try."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from models.webhook import DeliveryState
from worker.parcel import Delivery
from worker.turn import GONE, Result

PATIENCE_SECONDS = 60.0
"""Least wait after a timeout or a 429: an overloaded receiver gets time to breathe."""
TOO_MANY_REQUESTS = 429
REQUEST_CAP = 2048
"""Characters kept of the body of a request that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The same for several deliveries. ``wait``: seconds to the next try; None with a pending one holds it back."""

    deliveries: Sequence[Delivery]
    state: str
    wait: float | None
    attempt: dict[str, Any]


def settlements(result: Result, delays: Sequence[float]) -> Iterator[Settlement]:
    """One for all that have been tried as often as each other. ``delays``: the schedule, in seconds."""
    attempt = _attempt(result)
    tried = sorted(result.parcel.deliveries, key=_tries)
    for _, alike in groupby(tried, key=_tries):
        deliveries = tuple(alike)
        state, wait = _outcome(result, deliveries[0], delays)
        yield Settlement(deliveries=deliveries, state=state, wait=wait, attempt=attempt)


def _tries(delivery: Delivery) -> int:
    return delivery.tries


def _outcome(result: Result, delivery: Delivery, delays: Sequence[float]) -> tuple[str, float | None]:
    if result.answer.accepted:
        return DeliveryState.DELIVERED, None
    if result.answer.status == GONE:
        return DeliveryState.PENDING, None
    wait = next_wait(result, delivery, delays)
    return (DeliveryState.DEAD if wait is None else DeliveryState.PENDING), wait


def next_wait(result: Result, delivery: Delivery, delays: Sequence[float]) -> float | None:
    """Seconds to the next try, or None if this was the last.

    Retry-After counts within reason: from the schedule's wait to twice that.
    """
    if delivery.tries >= len(delays):
        return None
    base, answer = delays[delivery.tries], result.answer
    wait = base if answer.retry_after is None else min(max(answer.retry_after, base), 2 * base)
    wait *= result.jitter
    return max(wait, PATIENCE_SECONDS) if answer.timed_out or answer.status == TOO_MANY_REQUESTS else wait


def _attempt(result: Result) -> dict[str, Any]:
    answer, posted = result.answer, result.posted
    text = answer.body.decode("utf-8", "replace").replace("\0", "")  # PostgreSQL's JSON knows no NUL
    return {
        "at": result.at.isoformat(),
        "status": answer.status,
        "error": answer.error,
        "milliseconds": answer.milliseconds,
        "request": {
            "webhook_id": posted.webhook_id,
            "timestamp": posted.timestamp,
            "signature": posted.signature,
            # What was accepted is what the delivery's payload shows.
            "body": None if answer.accepted else posted.body.decode()[:REQUEST_CAP],
        },
        "response": text,
    }


def lost(delivery: Delivery) -> Settlement:
    """There is nothing left to deliver."""
    attempt = {
        "at": datetime.now(UTC).isoformat(),
        "status": None,
        "error": "the event is no longer kept",
        "milliseconds": 0,
        "request": None,
        "response": "",
    }
    return Settlement(deliveries=(delivery,), state=DeliveryState.DEAD, wait=None, attempt=attempt)
