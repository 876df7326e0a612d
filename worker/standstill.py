"""Whole queues that an operator has stopped: nothing of them is taken in hand, in any worker, until they are resumed.

Every claim asks in its own statement, so a pause holds from its commit on, and survives restarts because it is a row.
What was in hand goes on to its end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

RUNS: Final = "not exists (select from queue_pause where queue = {queue})"
"""The condition of a claim; ``queue`` is a literal or a bind parameter."""

_PAUSE = text("""
    insert into queue_pause (queue, reason) values (:queue, :reason)
    on conflict (queue) do update set reason = excluded.reason
""")
_RESUME = text("delete from queue_pause where queue = :queue")
_PAUSED = text("select queue, reason, paused_at from queue_pause order by queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Since when a queue stands still, and why in the operator's words."""

    reason: str | None
    paused_at: datetime


def pause(db: Connection | Session, queue: str, reason: str | None) -> None:
    """Stops a queue; a second pause changes the reason alone. The caller commits."""
    db.execute(_PAUSE, {"queue": queue, "reason": reason})


def resume(db: Connection | Session, queue: str) -> None:
    """Lets a queue run again; the beat rings its lanes within a second. The caller commits."""
    db.execute(_RESUME, {"queue": queue})


def paused(db: Connection | Session) -> Mapping[str, Pause]:
    """The queues that stand still."""
    rows = db.execute(_PAUSED)
    return {row.queue: Pause(reason=row.reason, paused_at=row.paused_at) for row in rows}
