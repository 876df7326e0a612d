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
from worker.queues import Depths, queue_depths

TITLES = dict(zip(QUEUES, ("High priority", "Normal priority", "Follow-up", "Webhooks"), strict=True))

HOUR = timedelta(hours=1)
STEP_SECONDS = 30
STEPS = 3600 // STEP_SECONDS
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
_BEAT = text("select extract(epoch from clock_timestamp() - max(at)) from queue_sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One queue over half a minute."""

    came: float
    """Work that came in, a second."""
    went: float
    oldest: float
    """Seconds."""
    failed: float
    """Failures that were added, a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last hour of every queue. A step that nobody measured is None."""

    end: datetime
    queues: Mapping[str, Sequence[Step | None]]


def live_texts(depths: Depths) -> dict[str, str]:
    """Every figure of the cards as text, by ``queue/name``."""
    return {f"{queue}/{name}": text_ for queue, figures in depths.items() for name, text_ in _texts(figures).items()}


def _texts(figures: Mapping[str, Any]) -> dict[str, str]:
    counts = {name: words.count(figures[name]) for name in ("ready", "scheduled", "in_flight", "uncertain", "failed")}
    return counts | {
        "oldest": words.span(figures["oldest_age_seconds"]) if figures["oldest_age_seconds"] else "–",
        "in": words.rate(figures["in_per_second"]),
        "out": words.rate(figures["out_per_second"]),
        "workers": str(figures["workers"]),
        "clears": clears_in(figures),
    }


def clears_in(figures: Mapping[str, Any]) -> str:
    """When the queue is empty if things go on as they do."""
    if not figures["ready"]:
        return "empty"
    surplus = figures["out_per_second"] - figures["in_per_second"]
    if surplus > 0:
        return words.span(figures["ready"] / surplus)
    return "standing" if not figures["out_per_second"] else "growing"


def current(session: Session) -> dict[str, str]:
    return live_texts(queue_depths(session))


def silences(session: Session) -> list[str]:
    """A sentence for the beat and for each queue whose workers were not heard of for `SILENT_SECONDS`."""
    said = []
    beat = session.execute(_BEAT).scalar_one()
    if beat is None or beat > SILENT_SECONDS:
        since = "has not been heard of yet" if beat is None else f"has been silent for {words.span(float(beat))}"
        said.append(f"The beat {since}: retries, schedules and recovery wait for it. Start `postroad beat`.")
    for queue, silent in session.execute(_SILENCE, {"queues": list(QUEUES)}):
        if silent is None or silent > SILENT_SECONDS:
            since = "" if silent is None else f" for {words.span(float(silent))}"
            said.append(f"No worker of {queue}{since}. Start `postroad worker --queues {queue}`.")
    return said


def history(session: Session) -> History:
    """What the beat measured in the last hour, in steps of half a minute."""
    now = datetime.now(UTC)
    end = now + timedelta(seconds=STEP_SECONDS - now.timestamp() % STEP_SECONDS)
    rows: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for row in session.execute(_HISTORY, {"start": end - HOUR, "step": STEP_SECONDS}):
        rows[row.queue][row.step] = row
    return History(end=end, queues={queue: _steps(rows[queue]) for queue in QUEUES})


def _steps(rows: Mapping[int, Any]) -> list[Step | None]:
    return [_step(rows.get(number), rows.get(number - 1)) for number in range(STEPS)]


def _step(row: Any, before: Any) -> Step | None:
    if row is None:
        return None
    added = 0 if before is None else max(0, row.failed - before.failed)
    return Step(came=float(row.came), went=float(row.went), oldest=float(row.oldest), failed=added * 60 / STEP_SECONDS)
