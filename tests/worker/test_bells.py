"""Doorbells and the beat: what is lost is rung again, what is doubled does no harm."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import fakeredis
import pytest
import redis
import structlog
from celery import Celery
from sqlalchemy import text
from structlog.testing import capture_logs

from models.base import uuid7
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker import beat
from worker.app import celery_app
from worker.beat import LOST_AFTER_SECONDS, Ticker, due_lanes
from worker.bell import FOLLOWUP_LANE, QUEUES, BellRinger, Bells, Lane, endpoint_lane, send_lane
from worker.runtime import Runtime

LANE = send_lane(UUID(int=1), 1)


class Recorder(Celery):
    """A Celery app that keeps what it is asked to send."""

    def __init__(self) -> None:
        super().__init__("test", broker="memory://")
        self.sent: list[tuple[str, str, str]] = []

    def send_task(self, name: str, args: tuple[str, str] = ("", ""), queue: str = "", **_: object) -> None:  # type: ignore[override]
        self.sent.append((name, queue, args[1]))


@pytest.fixture
def app() -> Recorder:
    return Recorder()


@pytest.fixture
def bells(app: Recorder) -> Bells:
    return Bells(app, fakeredis.FakeRedis())


def test_c22_c38_d1_each_priority_has_a_queue_of_its_own() -> None:
    assert send_lane(UUID(int=1), 1).queue == "send.high"
    assert send_lane(UUID(int=1), 0).queue == "send.normal"
    assert set(QUEUES) == {"send.normal", "send.high", "followup", "webhooks"}


def test_a_lane_is_rung_once_however_often_it_is_asked_for(bells: Bells, app: Recorder) -> None:
    assert [bells.ring(LANE) for _ in range(5)] == [True, False, False, False, False]
    assert len(app.sent) == 1


def test_no_client_of_redis_is_made_for_each_bell(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ringing = Bells(celery_app(settings_for(database_url, redis_url)), redis.Redis.from_url(redis_url))
    assert ringing.ring(LANE, replace=True)
    made: list[object] = []
    make = redis.Redis.__init__

    def counted(client: redis.Redis, *arguments: Any, **options: Any) -> None:
        made.append(client)
        make(client, *arguments, **options)

    monkeypatch.setattr(redis.Redis, "__init__", counted)
    before = ringing.waiting(LANE.queue)
    assert [ringing.ring(LANE, replace=True) for _ in range(3)] == [True] * 3
    assert (ringing.waiting(LANE.queue) - before, made) == (3, [])


def test_an_answered_bell_makes_room_for_the_next(bells: Bells, app: Recorder) -> None:
    bells.ring(LANE)
    bells.answer(LANE, app.sent[0][2])
    assert bells.ring(LANE)


def test_a_replaced_bell_cannot_start_a_second_chain(bells: Bells, app: Recorder) -> None:
    bells.ring(LANE)
    bells.ring(LANE, replace=True)
    first, second = (bell for _, _, bell in app.sent)
    bells.answer(LANE, first)
    assert not bells.ring(LANE)  # the second is still outstanding
    bells.answer(LANE, second)
    assert bells.ring(LANE)


def test_a_bell_carries_no_mail_and_no_address(bells: Bells, app: Recorder) -> None:
    bells.ring(LANE)
    [(task, queue, bell)] = app.sent
    assert (task, queue) == ("deliver", "send.high")
    assert len(bell) == 32


def test_ringing_without_a_broker_is_no_error(app: Recorder) -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    assert Bells(app, fakeredis.FakeRedis(server=server)).ring(LANE) is False


def test_a_bell_that_cannot_be_rung_keeps_the_ringer_from_no_other(
    bells: Bells, app: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = bells.ring

    def trip(lane: Lane) -> bool:
        if lane is FOLLOWUP_LANE:
            raise LookupError("a bug")
        return ring(lane)

    monkeypatch.setattr(bells, "ring", trip)
    ringer = BellRinger(bells)
    ringer.ring(FOLLOWUP_LANE)
    ringer.ring(LANE)
    ringer.close()
    assert len(app.sent) == 1


def test_the_ringer_rings_in_the_background(bells: Bells, app: Recorder) -> None:
    ringer = BellRinger(bells)
    for _ in range(100):
        ringer.ring(LANE)
    ringer.close()
    assert len(app.sent) == 1


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(database_url, redis_url), server)
        yield opened
        with opened.runtime.engine.begin() as connection:
            connection.execute(text("delete from followup"))
            connection.execute(text("update message set due_at = null"))
            connection.execute(text("delete from webhook_delivery"))
        opened.close()


def lanes(house: House) -> set[Lane]:
    with house.runtime.engine.connect() as connection:
        return set(due_lanes(connection))


def test_the_beat_finds_exactly_the_lanes_that_have_due_work(house: House) -> None:
    assert lanes(house) == set()
    house.submit("ann@example.com", "bob@example.com")
    assert lanes(house) == {send_lane(house.mailer_id, 0)}
    house.deliver_all()
    assert lanes(house) == {FOLLOWUP_LANE}
    house.record_all()
    assert lanes(house) == set()


def test_the_beat_leaves_alone_what_is_scheduled_paused_or_throttled(house: House) -> None:
    house.submit("ann@example.com")
    for change in ("status = 'paused'", "status = 'reconnect_required'", "throttled_until = now() + interval '1 hour'"):
        with house.runtime.engine.begin() as connection:
            connection.execute(text(f"update mailer set {change} where id = :id"), {"id": house.mailer_id})
        assert lanes(house) == set()
        with house.runtime.engine.begin() as connection:
            connection.execute(text("update mailer set status = 'active', throttled_until = null"))
    assert lanes(house) == {send_lane(house.mailer_id, 0)}


def test_a_due_webhook_is_a_lane_of_its_endpoint(house: House) -> None:
    endpoint, event = uuid7(), uuid7()
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text(
                "insert into webhook_endpoint (id, workspace_id, url, events, sealed_secret)"
                " values (:id, :w, 'http://127.0.0.1:9', array['*'], '')"
            ),
            {"id": endpoint, "w": house.workspace_id},
        )
        connection.execute(
            text(
                "insert into webhook_delivery (id, workspace_id, endpoint_id, event_id, due_at)"
                " values (gen_random_uuid(), :w, :e, :event, now())"
            ),
            {"w": house.workspace_id, "e": endpoint, "event": event},
        )
    assert lanes(house) == {endpoint_lane(endpoint)}


def test_a_bell_that_was_lost_is_rung_again_once_its_lane_stays_due_with_an_empty_queue(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.submit("ann@example.com")
    recorder = Recorder()
    house.runtime.bells = Bells(recorder, fakeredis.FakeRedis())
    ticker = Ticker(house.runtime)
    ticker.tick()
    ticker.tick()
    assert len(recorder.sent) == 1
    lane = send_lane(house.mailer_id, 0)
    ticker.waiting_since[lane] -= LOST_AFTER_SECONDS
    ticker.tick()
    assert len(recorder.sent) == 2


def test_housekeeping_removes_expired_idempotency_keys_only(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text(
            "insert into api_key (id, workspace_id, name, public_id, secret_hash, scopes)"
            " values (:id, :w, 'k', 'p', '', '{}')"
        ), {"id": house.workspace_id, "w": house.workspace_id})  # fmt: skip
        for key, age in (("old", timedelta(hours=-1)), ("new", timedelta(hours=1))):
            connection.execute(text(
                "insert into idempotency_key (api_key_id, key, fingerprint, leaves, submission_id, expires_at)"
                " values (:id, :key, '', '{}', :id, now() + :age)"
            ), {"id": house.workspace_id, "key": key, "age": age})  # fmt: skip
    Ticker(house.runtime).housekeeping()
    assert [row["key"] for row in house.rows("select key from idempotency_key")] == ["new"]


def test_a_bug_in_the_work_beside_the_beat_does_not_end_that_work(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stop = [], threading.Event()

    def check(_runtime: Runtime, _stop: threading.Event) -> None:
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise ZeroDivisionError
        stop.set()

    monkeypatch.setattr(beat, "check_until", check)
    monkeypatch.setattr(beat, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(beat, "log", structlog.get_logger())  # one that was used before keeps its old settings
    with capture_logs() as lines:
        beat.run(house.runtime, stop)
    assert len(begun) == 2
    assert [line["work"] for line in lines if line["event"] == "beat_work_failed"] == ["domains"]


def test_housekeeping_without_a_database_does_not_end_the_beat(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat, "log", structlog.get_logger())
    runtime = Runtime(settings_for("postgresql://nobody@127.0.0.1:1/nothing", redis_url), application="test beat")
    with capture_logs() as logs:
        Ticker(runtime).housekeeping()
    assert [entry["event"] for entry in logs] == ["housekeeping_failed"]
    runtime.close()
