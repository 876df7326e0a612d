"""Leases, heartbeats and bells go by the database's clock: a worker whose own is wrong takes nothing from anybody."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker import lease


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        house = House(settings_for(database_url, redis_url), server)
        yield house
        house.close()


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=4_500)], ids=str)
def test_r25_a_beat_whose_clock_is_wrong_ends_no_living_workers_lease(house: House, off: timedelta) -> None:
    accepted = house.submit("ann@example.com")
    beat = house.heartbeat()
    with house.runtime.engine.begin() as connection:
        batch = lease.claim(
            connection,
            house.mailer_id,
            0,
            version=house.version(),
            worker=house.runtime.name,
            batch=10,
            lease=timedelta(hours=2),
        )
    assert batch
    house.runtime.hands.acquire()
    with time_machine.travel(datetime.now(UTC) + off, tick=True):
        house.tick()
    house.runtime.hands.release()
    beat.close()
    assert house.message(accepted).state == "claimed"


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1)], ids=str)
def test_r25_a_worker_whose_clock_is_wrong_sends_once(house: House, off: timedelta) -> None:
    accepted = house.submit("ann@example.com", "bob@example.com")
    with time_machine.travel(datetime.now(UTC) + off, tick=True):
        house.deliver()
        house.tick()
        house.deliver()
    assert house.server.delivered_once(message.rfc_message_id for message in house.messages(accepted))
