"""Pacing: a mailer's limits hold for all workers together, what is too much waits, and nothing fails for it."""

import time
from typing import Any

import pytest
import redis
from sqlalchemy import text

from models.message import Priority
from providers.emulators.smtp import Does, Fault, Stage
from tests.conftest import wait_until
from tests.worker.house import House
from worker.bell import Bells, send_lane
from worker.mailers import OpenMailer, caps_in_force
from worker.pace import Pace
from worker.runtime import Runtime

HIGH, NORMAL = Priority.HIGH, Priority.NORMAL


def limit(house: House, **caps: int) -> OpenMailer:
    """Gives the mailer these caps; the mailer as a task sees it."""
    house.runtime.redis.flushdb()
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update mailer set caps = cast(:caps as jsonb) where id = :id"),
            {"caps": str(caps).replace("'", '"'), "id": house.mailer_id},
        )
    return opened(house.runtime, house)


def opened(runtime: Runtime, house: House) -> OpenMailer:
    found = runtime.providers.mailer(house.mailer_id)
    assert found is not None
    return found


def times(house: House) -> list[float]:
    return sorted(mail.at.timestamp() for mail in house.server.received)


def test_a_mailer_without_limits_asks_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    mailer = limit(house)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("Redis was asked")

    monkeypatch.setattr(redis.Redis, "execute_command", never)
    assert house.runtime.pace.take(mailer, NORMAL, 200) == 200
    house.runtime.pace.give_back(mailer, 50)
    house.runtime.pace.observe(mailer, 150, 1.0)


def test_no_second_holds_more_than_its_limit(house: House) -> None:
    limit(house, per_second=10)
    accepted = house.submit(*(f"user{number}@example.com" for number in range(25)))
    until = time.monotonic() + 60
    while any(message.state != "sent" for message in house.messages(accepted)) and time.monotonic() < until:
        house.deliver()
        time.sleep(0.02)
    sent = times(house)
    assert len(sent) == 25
    assert sent[-1] - sent[0] > 1.9
    assert max(sum(start <= at < start + 0.99 for at in sent) for start in sent) <= 10


def test_what_is_too_much_stays_queued_untouched_and_its_lane_rests(house: House) -> None:
    limit(house, per_day=5)
    accepted = house.submit(*(f"user{number}@example.com" for number in range(8)))
    assert house.deliver() == 4  # a fifth is kept for high priority
    assert house.deliver() == 0
    waiting = [message for message in house.messages(accepted) if message.state == "queued"]
    assert [(message.tries, message.attempts, message.reason) for message in waiting] == [(0, [], None)] * 4
    lane = send_lane(house.mailer_id, NORMAL)
    assert house.runtime.pace.resting([lane]) == {lane}
    house.runtime.redis.delete(lane.key)
    house.tick()
    assert house.runtime.redis.get(lane.key) is None


def test_high_priority_finds_its_share_when_normal_used_up_the_rest(house: House) -> None:
    mailer = limit(house, per_day=100, per_minute=100)
    pace = house.runtime.pace
    assert pace.take(mailer, NORMAL, 200) == 80
    assert pace.take(mailer, NORMAL, 1) == 0
    assert pace.take(mailer, HIGH, 200) == 20
    assert pace.take(mailer, HIGH, 1) == 0


def test_many_workers_share_one_allowance(house: House) -> None:
    limit(house, per_minute=50)
    workers = [Runtime(house.settings, application=f"worker {number}") for number in range(3)]
    granted = [runtime.pace.take(opened(runtime, house), HIGH, 30) for runtime in workers]
    for runtime in workers:
        runtime.close()
    assert granted == [30, 20, 0]


def test_an_allowance_that_was_not_used_comes_back(house: House) -> None:
    limit(house, per_day=10)
    house.submit("ann@example.com")
    assert [house.deliver(), house.deliver()] == [1, 0]
    [standing] = house.runtime.pace.standings(house.mailer_id, {"per_day": 10})
    assert standing.remaining == 9
    assert 0 < standing.resets_in <= 86_400 * 1.05


def test_nobody_can_give_back_more_than_was_taken(house: House) -> None:
    mailer = limit(house, per_day=10)
    house.runtime.pace.give_back(mailer, 8)
    assert house.runtime.pace.take(mailer, HIGH, 50) == 10


def test_a_short_rest_ends_with_a_bell_of_its_own(house: House) -> None:
    mailer = limit(house, per_second=5)
    lane = send_lane(house.mailer_id, NORMAL)
    assert house.runtime.pace.take(mailer, NORMAL, 5) == 5
    assert house.runtime.pace.take(mailer, NORMAL, 5) == 0
    assert house.runtime.redis.get(lane.key) is None
    wait_until(lambda: house.runtime.redis.get(lane.key) is not None, "the lane is rung")


def test_a_throttled_mailer_goes_at_half_its_rate_afterwards(house: House) -> None:
    mailer = limit(house)
    pace = house.runtime.pace
    pace.observe(mailer, 100, 1.0)
    pace.slow_down(mailer)
    pace.slow_down(mailer)  # another worker, throttled by the same trouble
    assert pace.learned(mailer.id) == pytest.approx(50)
    mailer.learning = True
    assert pace.take(mailer, HIGH, 200) == 50
    assert pace.take(mailer, HIGH, 200) == 0


def test_a_rate_grows_by_a_tenth_per_clean_minute_and_never_falls_below_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer = limit(house)
    pace = house.runtime.pace
    pace.observe(mailer, 1, 10.0)
    pace.slow_down(mailer)
    assert pace.learned(mailer.id) == 1
    later = time.time() + 125
    monkeypatch.setattr("worker.pace.time.time", lambda: later)
    assert pace.learned(mailer.id) == pytest.approx(1.21)


def test_a_refusal_for_haste_without_a_time_teaches_and_one_with_a_time_does_not(house: House) -> None:
    limit(house)
    house.server.fail(Fault(Stage.MAIL, Does.REPLY, "550 5.4.5 daily limit"))
    house.submit("ann@example.com")
    house.deliver()
    assert house.runtime.pace.learned(house.mailer_id) is None
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update mailer set throttled_until = null where id = :m"), {"m": house.mailer_id})
        connection.execute(
            text("update message set due_at = clock_timestamp() where mailer_id = :m"), {"m": house.mailer_id}
        )
    house.server.fail(Fault(Stage.MAIL, Does.REPLY, "450 4.2.1 too fast"))
    house.deliver()
    assert house.runtime.pace.learned(house.mailer_id) is not None
    assert opened(house.runtime, house).learning


def test_without_redis_each_worker_takes_half_by_itself(house: House) -> None:
    mailer = limit(house, per_minute=10)
    away = redis.Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.1)
    pace = Pace(away, Bells(house.runtime.bells._app, away))
    assert [pace.take(mailer, HIGH, 100), pace.take(mailer, HIGH, 100)] == [5, 0]
    pace.give_back(mailer, 3)
    assert pace.take(mailer, HIGH, 100) == 3
    pace.slow_down(mailer)


def test_a_mailers_own_caps_win_over_its_providers_and_a_foreign_root_has_none() -> None:
    assert caps_in_force("outlook_smtp", {"per_minute": None}, None) == {"per_minute": 30, "per_day": 10_000}
    assert caps_in_force("gmail", {"per_day": 2000, "connections": 2}, None) == {"per_minute": 150, "per_day": 2000}
    assert caps_in_force("gmail", {"per_second": 3}, "http://127.0.0.1:1") == {"per_second": 3}
    assert caps_in_force("smtp", {}, None) == {}
