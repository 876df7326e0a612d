"""Who is alive: the beat, and the workers with what they have in hand."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from models.message import Priority
from worker.bell import SEND_QUEUES
from worker.heartbeat import SILENT_SECONDS

BEAT_SILENT_SECONDS: Final = 30.0
"""The beat leaves a sample every ten seconds; without one for so long it counts as gone."""

_BEAT = text("select extract(epoch from clock_timestamp() - max(at)) from queue_sample")
_WORKERS = text("""
    select worker.name, worker.queues, extract(epoch from clock_timestamp() - worker.started_at) as age,
           extract(epoch from clock_timestamp() - worker.seen_at) as silent, lease.id as lease_id,
           coalesce(cardinality(lease.message_ids), 0) as in_hand, lease.priority,
           extract(epoch from clock_timestamp() - lease.created_at) as held
    from worker_heartbeat worker
         left join lease on lease.worker = worker.name
    where worker.seen_at > clock_timestamp() - :silent order by worker.name, lease.id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorker:
    """A worker process that was heard of lately, and the batch in its hand. Durations are in seconds."""

    host: str
    pid: int
    queues: Sequence[str]
    age_seconds: float
    silent_seconds: float
    lease_id: int | None
    """The batch in its hand; None while it waits for work, records, or posts webhooks."""
    in_hand: int
    """Mails of the batch."""
    lane: str | None
    """The queue that the batch is of."""
    held_seconds: float | None

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(self).items()}


def beat_silence(db: Connection | Session) -> float | None:
    """Seconds since a beat was last heard of; None if that never happened."""
    silent = db.execute(_BEAT).scalar_one()
    return None if silent is None else float(silent)


def live_workers(db: Connection | Session) -> list[LiveWorker]:
    """The workers that were heard of in the last `worker.heartbeat.SILENT_SECONDS`."""
    rows = db.execute(_WORKERS, {"silent": timedelta(seconds=SILENT_SECONDS)})
    found = []
    for row in rows:
        host, _, pid = row.name.rpartition(":")
        found.append(
            LiveWorker(
                host=host,
                pid=int(pid),
                queues=row.queues,
                age_seconds=float(row.age),
                silent_seconds=float(row.silent),
                lease_id=row.lease_id,
                in_hand=row.in_hand,
                lane=None if row.priority is None else SEND_QUEUES[Priority(row.priority)],
                held_seconds=None if row.held is None else float(row.held),
            )
        )
    return found
