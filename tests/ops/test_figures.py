"""The history behind the charts, what is drawn from it, and figures as people read them."""

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.ops import charts, figures, words
from models.base import uuid7
from models.message import UNTIL_SOMEBODY_ACTS, Followup, Lease, State
from models.webhook import WebhookDelivery, WebhookEndpoint
from models.worker import QueueSample
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_log, add_mailer
from tests.ops.conftest import add_message
from worker.beat import Ticker, run
from worker.queues import queue_depths
from worker.runtime import Runtime
from worker.settings import Settings

SAMPLED = ("ready", "scheduled", "in_flight", "uncertain", "failed", "in_per_second", "out_per_second")


@pytest.fixture
def ticker(settings: Settings) -> Iterator[Ticker]:
    runtime = Runtime(settings, application="test beat")
    yield Ticker(runtime)
    runtime.close()


def _work_of_every_kind(session: Session, tenant: Tenant) -> None:
    now = datetime.now(UTC)
    mailer_id = add_mailer(session, tenant)
    add_message(session, tenant, mailer_id=mailer_id, due_at=now - timedelta(minutes=3))
    add_message(session, tenant, mailer_id=mailer_id, due_at=now + timedelta(hours=1))
    add_message(session, tenant, mailer_id=mailer_id, state=State.UNCERTAIN, due_at=UNTIL_SOMEBODY_ACTS)
    held = [
        add_message(session, tenant, mailer_id=mailer_id, state=state, lease_id=77)
        for state in (State.CLAIMED, State.SENDING)
    ]
    session.execute(text("update message set priority = 1 where id = :id"), {"id": held[1]})
    session.add(
        Lease(
            id=77,
            worker="test",
            mailer_id=mailer_id,
            priority=0,
            message_ids=held,
            expires_at=now + timedelta(minutes=1),
        )
    )
    add_log(session, tenant, status="failed", priority=1, finished_at=now, mailer_id=mailer_id)
    session.add(Followup(message_ids=[uuid7(), uuid7()], tries=1, due_at=now + timedelta(minutes=1)))
    session.add(
        Followup(message_ids=[uuid7()], created_at=now - timedelta(seconds=30), due_at=now - timedelta(seconds=30))
    )
    endpoint = WebhookEndpoint(
        id=uuid7(), workspace_id=tenant.workspace_id, url="https://x.test/", events=["*"], sealed_secret=b""
    )
    session.add(endpoint)
    session.flush()
    for state, due_at in (
        ("pending", now - timedelta(seconds=5)),
        ("pending", now + timedelta(hours=1)),
        ("dead", None),
    ):
        session.add(
            WebhookDelivery(
                id=uuid7(), workspace_id=tenant.workspace_id, endpoint_id=endpoint.id, event_id=uuid7(), state=state,
                due_at=due_at, created_at=now - timedelta(seconds=7),
            )
        )  # fmt: skip
    session.commit()


def test_a_sample_says_what_the_api_says(ticker: Ticker, session: Session, tenant: Tenant) -> None:
    """Two statements in two packages count the same rows: they must agree."""
    _work_of_every_kind(session, tenant)
    session.query(QueueSample).delete()
    session.commit()
    ticker.sample()
    depths = queue_depths(session)
    samples = {row.queue: row for row in session.query(QueueSample)}
    assert set(samples) == set(depths)
    for queue, depth in depths.items():
        assert {name: getattr(samples[queue], name) for name in SAMPLED} == {name: depth[name] for name in SAMPLED}, (
            queue
        )
        assert samples[queue].oldest_age_seconds == pytest.approx(depth["oldest_age_seconds"], abs=1), queue
    high, normal = samples["send.high"], samples["send.normal"]
    assert (normal.ready, normal.scheduled, normal.uncertain, normal.in_flight) == (1, 1, 1, 1)
    assert (high.in_flight, high.failed, high.out_per_second) == (1, 1, 0.1)
    assert (samples["followup"].ready, samples["followup"].scheduled, samples["followup"].failed) == (1, 2, 2)
    assert (samples["webhooks"].ready, samples["webhooks"].scheduled, samples["webhooks"].failed) == (1, 1, 1)
    session.query(Followup).delete()
    session.query(Lease).delete()
    session.query(WebhookEndpoint).delete()
    session.execute(text("update message set due_at = null, state = 'cancelled'"))
    session.commit()


def test_two_beats_write_a_sample_once(ticker: Ticker, session: Session) -> None:
    session.query(QueueSample).delete()
    session.commit()
    while time.time() % 10 > 5:
        time.sleep(0.1)
    ticker.sample()
    ticker.sample()
    assert session.query(QueueSample).count() == 4


def test_the_beat_samples_by_itself_and_stops(ticker: Ticker, session: Session) -> None:
    session.query(QueueSample).delete()
    session.commit()
    stop = threading.Event()
    beat = threading.Thread(target=run, args=(ticker.runtime, stop))
    beat.start()
    deadline = time.monotonic() + 60
    while session.query(QueueSample).count() < 4 and time.monotonic() < deadline:
        session.rollback()
        time.sleep(0.05)
    stop.set()
    beat.join(60)
    assert not beat.is_alive()
    assert session.query(QueueSample).count() >= 4


def test_samples_are_kept_for_a_week(ticker: Ticker, session: Session) -> None:
    session.query(QueueSample).delete()
    for days in (6.9, 7.1):
        session.add(_sample(datetime.now(UTC) - timedelta(days=days)))
    session.commit()
    ticker.housekeeping()
    ages = [(datetime.now(UTC) - row.at).days for row in session.query(QueueSample)]
    assert ages == [6]


def _sample(at: datetime, queue: str = "send.high", **columns: float) -> QueueSample:
    values: dict[str, float] = {
        "ready": 0, "scheduled": 0, "in_flight": 0, "failed": 0, "oldest_age_seconds": 0, "in_per_second": 0, "out_per_second": 0,
    }  # fmt: skip
    return QueueSample(queue=queue, at=at, **(values | columns))


def test_a_chart_shows_the_hour_with_its_gaps(session: Session) -> None:
    session.query(QueueSample).delete()
    now = datetime.now(UTC)
    for minutes in (50, 49.5, 49, 20, 19.5):
        failed = 3 if minutes < 49.4 else 1
        at = now - timedelta(minutes=minutes)
        session.add(_sample(at, out_per_second=8, in_per_second=30, oldest_age_seconds=minutes, failed=failed))
    session.add(_sample(now - timedelta(minutes=61), out_per_second=999))
    session.commit()
    throughput, oldest, failures = charts.charts(figures.history(session))
    went = throughput.lines[0].path
    assert len(re.findall("M", went)) == 2  # the gap of half an hour is not bridged
    assert len(re.findall("[ML]", went)) == 5
    assert throughput.scale == ["40", "20", "0"]
    assert throughput.lines[1].style == "queue-0 dashed"
    assert (oldest.keys[0].now, oldest.keys[0].peak) == ("20 s", "50 s")
    assert failures.keys[0].peak == "4.0"  # two more in half a minute
    assert "High priority: now 8.0, at most 8.0" in throughput.summary
    assert throughput.keys[1].now == "–"


def test_silence_of_beat_and_workers_is_said_after_half_a_minute(session: Session) -> None:
    def heard(seconds: float) -> list[str]:
        session.query(QueueSample).delete()
        session.execute(text("delete from worker_heartbeat"))
        at = datetime.now(UTC) - timedelta(seconds=seconds)
        session.add(_sample(at))
        session.execute(
            text("insert into worker_heartbeat (name, queues, lock_key, seen_at) values ('a', :queues, 1, :at)"),
            {"queues": ["send.high", "send.normal", "followup", "webhooks"], "at": at},
        )
        session.commit()
        return figures.silences(session)

    assert heard(20) == []
    said = heard(40)
    assert len(said) == 5
    assert said[0].startswith("The beat has been silent for 40 s")
    session.execute(text("delete from worker_heartbeat"))
    session.commit()


@pytest.mark.parametrize(
    ("ready", "came", "went", "said"),
    [
        (0, 5.0, 0.0, "empty"),
        (90, 1.0, 4.0, "30 s"),
        (90, 4.0, 1.0, "growing"),
        (90, 1.0, 1.0, "growing"),
        (90, 0.0, 0.0, "standing"),
    ],
)
def test_a_queue_clears_in_its_depth_by_the_surplus(ready: int, came: float, went: float, said: str) -> None:
    depth = {"ready": ready, "in_per_second": came, "out_per_second": went, "paused": False}
    assert figures.clears_in(depth) == said
    assert figures.clears_in(depth | {"paused": True}) == ("paused" if ready else "empty")


@pytest.mark.parametrize(("oldest", "said"), [(0.0, "kept, 30 s"), (30.0, "kept, 30 s"), (31.0, "broken, 30 s")])
def test_a_promise_is_broken_by_work_that_is_too_old(oldest: float, said: str) -> None:
    assert figures.promise("send.high", {"oldest_age_seconds": oldest}) == said


def test_the_alert_rules_ring_when_a_promise_is_broken() -> None:
    rules = (Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml").read_text()
    series = (
        r'queue_oldest_age_seconds\{lane="send.high"\}', r'queue_oldest_age_seconds\{lane="send.normal"\}',
        "followup_lag_seconds", "webhook_oldest_age_seconds",
    )  # fmt: skip
    found = [re.search(rf"max\(postroad_{name}\) > (\d+)", rules) for name in series]
    assert [float(one[1]) for one in found if one] == list(figures.PROMISES.values())


def test_the_charts_show_the_window_that_is_asked_for(session: Session) -> None:
    session.query(QueueSample).delete()
    session.add(_sample(datetime.now(UTC) - timedelta(hours=5), out_per_second=3))
    session.commit()
    hour, day = (charts.charts(figures.history(session, figures.WINDOWS[name]))[0] for name in ("1h", "24h"))
    assert (hour.keys[0].peak, day.keys[0].peak) == ("–", "3.0")
    assert (hour.times, day.times) == (["1 h ago", "30 m", "now"], ["1 d ago", "12 h", "now"])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0, "0 s"), (0.018, "18 ms"), (0.2, "0.2 s"), (9.96, "10 s"), (41, "41 s"), (59.7, "1 m"), (161, "2 m 41 s"),
     (600, "10 m"), (3599.6, "1 h"), (11_520, "3 h 12 m"), (352_800, "4 d 2 h"), (timedelta(seconds=3), "3.0 s")],
)  # fmt: skip
def test_a_span_is_read_at_a_glance(seconds: float | timedelta | None, said: str) -> None:
    assert words.span(seconds) == said


@pytest.mark.parametrize(("highest", "end"), [(0, 1), (1, 1), (3, 4), (5, 6), (190, 200), (61_000, 100_000)])
def test_a_scale_ends_at_a_round_number(highest: float, end: float) -> None:
    assert charts.NUMBERS.end(highest) == end


@pytest.mark.parametrize(("highest", "end"), [(0, 1), (11, 20), (61, 120), (4000, 7200), (100_000, 172_800)])
def test_a_scale_of_ages_ends_at_a_span_with_a_name(highest: float, end: float) -> None:
    assert charts.AGES.end(highest) == end
