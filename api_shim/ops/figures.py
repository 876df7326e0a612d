"""The figures of the four queues as the dashboard shows them, now and over the last hour. They are of the whole
system, whoever looks.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.ops import words
from worker.bell import QUEUES
from worker.liveness import beat_silence
from worker.queues import COUNTS, Depths, queue_depths

TITLES = dict(zip(QUEUES, ("High priority", "Normal priority", "Follow-up", "Webhooks"), strict=True))

PROMISES = dict(zip(QUEUES, (30.0, 3600.0, 300.0, 900.0), strict=True))
"""Seconds after which the oldest due work of a queue is late; the alert rules say the same."""
OPEN = ("ready", "scheduled", "uncertain", "in_flight")
"""Counts that add up to what is not finished; the others are parts of these, or the past."""

WINDOWS = {
    "1h": timedelta(hours=1), "6h": timedelta(hours=6), "24h": timedelta(days=1), "7d": timedelta(days=7),
}  # fmt: skip
"""What the charts can show; samples are kept for a week."""
STEPS = 120
"""Points of a chart."""
SILENT_SECONDS = 30
"""Beat or workers that were not heard of for so long are worth a banner."""

_HISTORY = text("""
    select queue, cast(floor(extract(epoch from at - :start) / :step) as int) as step, avg(in_per_second) as came,
           avg(out_per_second) as went, max(oldest_age_seconds) as oldest, max(failed) as failed
    from queue_sample where at >= :start group by 1, 2 order by 1, 2
""")
_SILENCE = text("""
    select queue.name, extract(epoch from clock_timestamp() - max(worker.seen_at)) as silent
    from unnest(cast(:queues as text[])) as queue(name)
         left join worker_heartbeat worker on queue.name = any(worker.queues)
    group by queue.name
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One queue over a part of the window."""

    came: float
    """Work that came in, a second."""
    went: float
    oldest: float
    """Seconds."""
    failed: float
    """Failures that were added, a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A window of every queue, in `STEPS`. A step that nobody measured is None."""

    end: datetime
    window: timedelta
    queues: Mapping[str, Sequence[Step | None]]


def live_texts(depths: Depths) -> dict[str, str]:
    """Every figure of the cards as text, by ``queue/name``."""
    return {
        f"{queue}/{name}": text_
        for queue, figures in depths.items()
        for name, text_ in (_texts(figures) | {"promise": promise(queue, figures)}).items()
    }


def promise(queue: str, figures: Mapping[str, Any]) -> str:
    """Whether the oldest due work is younger than it should be."""
    longest = PROMISES[queue]
    kept = figures["oldest_age_seconds"] <= longest
    return f"{'kept' if kept else 'broken'}, {words.span(longest)}"


def _texts(figures: Mapping[str, Any]) -> dict[str, str]:
    counts = {name: words.count(figures[name]) for name in COUNTS}
    return counts | {
        "open": words.count(sum(figures[name] for name in OPEN)),
        "oldest": words.span(figures["oldest_age_seconds"]) if figures["oldest_age_seconds"] else "–",
        "in": words.rate(figures["in_per_second"]),
        "out": words.rate(figures["out_per_second"]),
        "workers": str(figures["workers"]),
        "clears": clears_in(figures),
        "stands": "paused" if figures["paused"] else "",
    }


def clears_in(figures: Mapping[str, Any]) -> str:
    """When the queue is empty if things go on as they do."""
    if not figures["ready"]:
        return "empty"
    if figures["paused"]:
        return "paused"
    surplus = figures["out_per_second"] - figures["in_per_second"]
    if surplus > 0:
        return words.span(figures["ready"] / surplus)
    return "standing" if not figures["out_per_second"] else "growing"


def current(session: Session) -> dict[str, str]:
    return live_texts(queue_depths(session))


def silences(session: Session) -> list[str]:
    """A sentence for the beat and for each queue whose workers were not heard of for `SILENT_SECONDS`."""
    said = []
    beat = beat_silence(session)
    if beat is None or beat > SILENT_SECONDS:
        since = "has not been heard of yet" if beat is None else f"has been silent for {words.span(beat)}"
        said.append(f"The beat {since}: retries, schedules and recovery wait for it. Start `postroad beat`.")
    for queue, silent in session.execute(_SILENCE, {"queues": list(QUEUES)}):
        if silent is None or silent > SILENT_SECONDS:
            since = "" if silent is None else f" for {words.span(float(silent))}"
            said.append(f"No worker of {queue}{since}. Start `postroad worker --queues {queue}`.")
    return said


def history(session: Session, window: timedelta = WINDOWS["1h"]) -> History:
    """What the beat measured in the window."""
    step = window.total_seconds() / STEPS
    now = datetime.now(UTC)
    end = now + timedelta(seconds=step - now.timestamp() % step)
    rows: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for row in session.execute(_HISTORY, {"start": end - window, "step": step}):
        rows[row.queue][row.step] = row
    return History(end=end, window=window, queues={queue: _steps(rows[queue], step) for queue in QUEUES})


def _steps(rows: Mapping[int, Any], seconds: float) -> list[Step | None]:
    return [_step(rows.get(number), rows.get(number - 1), seconds) for number in range(STEPS)]


def _step(row: Any, before: Any, seconds: float) -> Step | None:
    if row is None:
        return None
    added = 0 if before is None else max(0, row.failed - before.failed)
    return Step(came=float(row.came), went=float(row.went), oldest=float(row.oldest), failed=added * 60 / seconds)
