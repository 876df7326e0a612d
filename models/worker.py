"""Which workers are alive, and the history behind the dashboard's charts."""

from datetime import datetime

from sqlalchemy import BigInteger, Double, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created


class WorkerHeartbeat(Base):
    """Written by each worker process every few seconds; silence means it is gone."""

    __tablename__ = "worker_heartbeat"

    name: Mapped[str] = mapped_column(primary_key=True)
    """``host:pid``."""
    queues: Mapped[list[str]]
    lock_key: Mapped[int]
    """Key of the advisory lock that the process holds as long as it lives: free means dead, at once."""
    started_at: Mapped[Created]
    seen_at: Mapped[Created]
    idle_seconds: Mapped[float | None] = mapped_column(Double)
    """How long it had had nothing in hand when it was seen."""


class QueueSample(Base):
    """One measurement of one queue, taken by the beat."""

    __tablename__ = "queue_sample"
    __table_args__ = (Index(None, "at"),)

    queue: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    ready: Mapped[int] = mapped_column(BigInteger)
    scheduled: Mapped[int] = mapped_column(BigInteger)
    in_flight: Mapped[int] = mapped_column(BigInteger)
    uncertain: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    oldest_age_seconds: Mapped[float] = mapped_column(Double)
    in_per_second: Mapped[float] = mapped_column(Double)
    out_per_second: Mapped[float] = mapped_column(Double)
    retry_waiting: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Of the scheduled, those that failed before."""
    parked: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Of the scheduled, those whose campaign is paused."""


class QueuePause(Base):
    """A queue from which nothing is taken in hand until an operator resumes it. No row: it runs."""

    __tablename__ = "queue_pause"

    queue: Mapped[str] = mapped_column(primary_key=True)
    """One of `worker.bell.QUEUES`."""
    reason: Mapped[str | None]
    """Why, in the operator's words."""
    paused_at: Mapped[Created]
