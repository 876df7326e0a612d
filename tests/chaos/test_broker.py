"""The broker is broken in every way. It holds no mail, so it can cost time and nothing else."""

import signal
import time
from statistics import median

import pytest

from tests.chaos.world import LONG, Scenario, World
from tests.conftest import wait_until

pytestmark = pytest.mark.stack

MAILS = 5_000 if LONG else 500
AWAY_SECONDS = 30.0 if LONG else 2.0


def test_r8_a_flushed_redis_costs_two_seconds(world: World) -> None:
    with world.scenario("R8", "FLUSHALL while mail flows") as scenario:
        mailers = [world.mailer() for _ in range(4)]
        for mailer in mailers:
            scenario.send(MAILS // 4, mailer_id=mailer)
            with world.redis() as server:
                server.flushall()
        scenario.mended()


def test_r6_a_redis_that_is_killed_and_comes_back_empty_loses_no_mail(world: World) -> None:
    with world.scenario("R6", "Redis killed with all its bells, started again empty") as scenario:
        world.broker.cut()
        scenario.send(MAILS, mailer_id=world.mailer())
        with world.redis() as server:
            server.flushall()
        world.kill("redis")
        world.broker.mend()
        scenario.send(10, mailer_id=world.mailer())
        scenario.mended()


def test_r9_while_redis_is_frozen_mail_is_accepted_within_a_second(world: World) -> None:
    with world.scenario("R9", f"Redis frozen for {AWAY_SECONDS:.0f} s") as scenario:
        with world.frozen(world.pid("redis")):
            waits = send_for(AWAY_SECONDS, world, scenario)
        scenario.mended()
        assert median(waits) < 1.0, waits


@pytest.mark.parametrize(("fault", "broken"), [("cut", "Redis out of reach"), ("hang", "Redis behind a black hole")])
def test_r10_without_a_broker_mail_is_accepted_within_a_second_and_goes_out_when_it_is_back(
    world: World, fault: str, broken: str
) -> None:
    with world.scenario("R10", f"{broken} for {AWAY_SECONDS:.0f} s") as scenario:
        getattr(world.broker, fault)()
        try:
            waits = send_for(AWAY_SECONDS, world, scenario)
        finally:
            world.broker.mend()
        scenario.mended()
        assert median(waits) < 1.0, waits


def send_for(seconds: float, world: World, scenario: Scenario) -> list[float]:
    """Has mail accepted every now and then. Returns the seconds that each answer took."""
    waits = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        mailer = world.mailer()
        started = time.monotonic()
        scenario.send(5, mailer_id=mailer)
        waits.append(time.monotonic() - started)
        time.sleep(0.3)
    return waits


def test_r7_restarts_of_redis_under_load_end_no_worker(world: World) -> None:
    restarts = 15 if LONG else 3
    with world.scenario("R7", f"Redis restarted {restarts} times while mail flows") as scenario:
        workers = {name: world.pid(name) for name in world.stack.json["pids"]["workers"]}
        for number in range(restarts):
            scenario.send(MAILS // restarts, mailer_id=world.mailer())
            world.kill("redis", signal.SIGKILL if number % 2 else signal.SIGTERM)
        scenario.mended()
        assert {name: world.pid(name) for name in workers} == workers


def test_r11_a_redis_that_may_evict_is_reported(world: World) -> None:
    with world.redis() as server:
        server.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert "maxmemory-policy is allkeys-lru" in world.client.get("/readyz")["checks"]["redis"]
        finally:
            server.config_set("maxmemory-policy", "noeviction")
    wait_until(world.answers, "it is ready")
