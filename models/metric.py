"""Figures for `/metrics` that no other row can tell: counts as they were made, and measurements that the beat took."""

from datetime import datetime

from sqlalchemy import ARRAY, Double, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class MetricCount(Base):
    """Something that was counted. The value of a counter is the sum of its rows, which the beat adds up from time to
    time.

    Rows are only ever appended, so that nobody waits for anybody who counts the same. Unlogged: after a crash of the
    database counters begin at zero, which every reader of counters must expect.
    """

    __tablename__ = "metric_count"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 -- SQLAlchemy's own form

    name: Mapped[str] = mapped_column(Text)
    """Of `worker.series.SERIES`."""
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Values in the order of the series' labels."""
    bucket: Mapped[float | None] = mapped_column(Double)
    """Upper bound of a histogram's bucket; null for a counter, and for the sum of what a histogram observed."""
    value: Mapped[float] = mapped_column(Double)

    __mapper_args__ = {"primary_key": [name, labels, bucket]}  # noqa: RUF012 -- the mapper wants one; the table has none


class MetricGauge(Base):
    """Something that was measured, and when. What was not measured lately is not shown."""

    __tablename__ = "metric_gauge"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text), primary_key=True)
    value: Mapped[float] = mapped_column(Double)
    at: Mapped[datetime]
