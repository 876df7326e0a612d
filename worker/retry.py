"""When to try again. Decisions are values; nothing here touches a clock or a database."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

THROTTLED_SECONDS = 30.0
"""Pause of a mailer whose provider says "too fast" without saying for how long."""
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between attempts, in seconds; used up means give up."""

    delays: Sequence[float]
    jitter: float = 0.2

    def delay(self, failures: int) -> float | None:
        """Seconds to wait after the ``failures``-th failure (counted from 1), or None to give up."""
        if failures > len(self.delays):
            return None
        return self.delays[failures - 1] * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 -- not a secret


def pause(retry_after: float | None) -> float:
    """Seconds a throttled mailer waits: what the provider asked for, within reason."""
    return (
        THROTTLED_SECONDS
        if retry_after is None
        else min(max(retry_after, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    )
