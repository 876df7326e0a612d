"""The exporter: one for the whole system, whichever process is asked, over what the database holds.

A scrape reads what was counted and what the beat measured last, and counts no mail itself: it costs the same however
long the queues are.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from worker.bell import FOLLOWUP_QUEUE, QUEUES, WEBHOOK_QUEUE
from worker.heartbeat import SILENT_SECONDS
from worker.queues import COUNTS
from worker.series import (
    COMING,
    DEPTH,
    FOLLOWUP_LAG,
    GOING,
    LAST_BEAT,
    OLDEST,
    SERIES,
    WEBHOOK_OLDEST,
    WEBHOOKS_PENDING,
    WORKERS,
    Kind,
    Series,
)  # fmt: skip

STALE_SECONDS = 45
"""What the beat measured is shown for so long: a figure that is older would be taken for true."""

_SAMPLES = text("""
    select distinct on (queue) * from queue_sample where at > statement_timestamp() - :stale order by queue, at desc
""")
_WORKERS = text("""
    select queue, count(*) from worker_heartbeat, unnest(queues) as queue
    where seen_at > clock_timestamp() - :silent group by queue
""")
_GAUGES = text("""
    select name, labels, value from metric_gauge where at > clock_timestamp() - :stale or name = :always
""")
_COUNTS = text("select name, labels, bucket, sum(value) from metric_count group by name, labels, bucket")

Labels = tuple[str, ...]


def render(session: Session) -> bytes:
    """The metrics as Prometheus text (version 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*_gauges(session), *_counts(session)]))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _gauges(session: Session) -> Iterator[Metric]:
    values: dict[str, dict[Labels, float]] = defaultdict(dict)
    for row in session.execute(_SAMPLES, {"stale": timedelta(seconds=STALE_SECONDS)}).mappings():
        for series, labels, value in _sampled(row):
            values[series.name][labels] = float(value)
    values[WORKERS.name] = {(queue,): 0.0 for queue in QUEUES}
    for queue, count in session.execute(_WORKERS, {"silent": timedelta(seconds=SILENT_SECONDS)}):
        values[WORKERS.name][(queue,)] = count
    measured = {"stale": timedelta(seconds=STALE_SECONDS), "always": LAST_BEAT.name}
    for name, labels, value in session.execute(_GAUGES, measured):
        values[name][tuple(labels)] = value
    for series in _of(Kind.GAUGE):
        yield _gauge(series, values[series.name])


def _sampled(row: RowMapping) -> Iterator[tuple[Series, Labels, float]]:
    queue = row["queue"]
    yield from ((DEPTH, (queue, state), row[state]) for state in COUNTS)
    yield OLDEST, (queue,), row["oldest_age_seconds"]
    yield COMING, (queue,), row["in_per_second"]
    yield GOING, (queue,), row["out_per_second"]
    if queue == FOLLOWUP_QUEUE:
        yield FOLLOWUP_LAG, (), row["oldest_age_seconds"]
    if queue == WEBHOOK_QUEUE:
        yield WEBHOOKS_PENDING, (), row["ready"] + row["scheduled"]
        yield WEBHOOK_OLDEST, (), row["oldest_age_seconds"]


def _gauge(series: Series, values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(series.full_name, series.help, labels=series.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _counts(session: Session) -> Iterator[Metric]:
    counted: dict[str, dict[Labels, dict[float | None, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, labels, bucket, value in session.execute(_COUNTS):
        counted[name][tuple(labels)][bucket] = value
    for series in _of(Kind.COUNTER):
        counter = CounterMetricFamily(series.full_name, series.help, labels=series.labels)
        for labels, cells in sorted(counted[series.name].items()):
            counter.add_metric(labels, cells[None])
        yield counter
    for series in _of(Kind.HISTOGRAM):
        histogram = HistogramMetricFamily(series.full_name, series.help, labels=series.labels)
        for labels, cells in sorted(counted[series.name].items()):
            histogram.add_metric(labels, _cumulative(series, cells), cells[None])
        yield histogram


def _cumulative(series: Series, cells: Mapping[float | None, float]) -> list[tuple[str, float]]:
    """Prometheus' buckets: each with everything below it. Bounds of an earlier version still add up."""
    bounds = [*series.buckets, float("inf")]
    found = {bound: count for bound, count in cells.items() if bound is not None}
    return [
        ("+Inf" if bound == bounds[-1] else repr(float(bound)), sum(n for one, n in found.items() if one <= bound))
        for bound in bounds
    ]


def _of(kind: Kind) -> list[Series]:
    return [series for series in SERIES.values() if series.kind is kind]
