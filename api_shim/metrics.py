"""One exporter: every figure is a query on the rows, so it is the same whichever process is asked, and survives
restarts.
"""

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.queues import queue_depths

DEPTHS = ("ready", "scheduled", "in_flight", "uncertain", "failed")

_LAG = text("select coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0) from followup")
_HELD = text("select count(*) from message where due_at >= '9999-01-01' and state = 'uncertain'")


def render(session: Session) -> bytes:
    """The metrics as Prometheus text."""
    registry = CollectorRegistry()
    depth = Gauge("postroad_queue_depth", "Work in a queue, by state.", ["lane", "state"], registry=registry)
    oldest = Gauge(
        "postroad_queue_oldest_age_seconds", "Age of the oldest work that is due.", ["lane"], registry=registry
    )
    coming = Gauge(
        "postroad_queue_in_per_second", "Work that came in, averaged over 10 s.", ["lane"], registry=registry
    )
    going = Gauge(
        "postroad_queue_out_per_second", "Work that was done, averaged over 10 s.", ["lane"], registry=registry
    )
    workers = Gauge("postroad_workers", "Worker processes that were heard of lately.", ["lane"], registry=registry)
    for lane, figures in queue_depths(session).items():
        for state in DEPTHS:
            depth.labels(lane, state).set(figures[state])
        oldest.labels(lane).set(figures["oldest_age_seconds"])
        coming.labels(lane).set(figures["in_per_second"])
        going.labels(lane).set(figures["out_per_second"])
        workers.labels(lane).set(figures["workers"])
    lag = Gauge("postroad_followup_lag_seconds", "Age of the oldest outcome that is not in the log.", registry=registry)
    lag.set(float(session.execute(_LAG).scalar_one()))
    stuck = Gauge("postroad_stuck_messages", "Messages that wait for a person.", ["reason"], registry=registry)
    stuck.labels("uncertain").set(session.execute(_HELD).scalar_one())
    return generate_latest(registry)
