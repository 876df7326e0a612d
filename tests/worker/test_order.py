"""The order in which a lane goes: as its mail came, but the nearest deadline first, and nothing for ever last."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from api_shim.submission import Accepted
from models.message import UNTIL_SOMEBODY_ACTS
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker import lease
from worker.gauges import LATE
from worker.moves import LET_GO, move_some
from worker.queues import queue_depths


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        house = House(settings_for(database_url, redis_url), server)
        yield house
        _run(house, "delete from message where mailer_id = :m", m=house.mailer_id)
        house.close()


def in_minutes(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


def next_of(house: House, batch: int) -> list[UUID]:
    """The submissions of the messages that a worker gets next."""
    with house.runtime.engine.connect() as connection:  # nothing is committed
        taken = lease.claim(
            connection, house.mailer_id, 0, version=house.version(), worker="w", batch=batch, lease=timedelta(minutes=1)
        )
    return [message.submission_id for message in taken.messages] if taken else []


def test_fifty_codes_that_soon_expire_go_before_five_thousand_letters_that_came_first(house: House) -> None:
    letters = house.submit(*(f"reader{number}@example.com" for number in range(5_000)))
    later = house.submit(*(f"later{number}@example.com" for number in range(25)), expires_at=in_minutes(20))
    sooner = house.submit(*(f"sooner{number}@example.com" for number in range(25)), expires_at=in_minutes(10))
    expected = [sooner] * 25 + [later] * 25 + [letters] * 10
    assert next_of(house, 60) == [accepted.submission_id for accepted in expected]


def test_a_mail_without_a_deadline_is_overtaken_for_a_day_at_most(house: House) -> None:
    waiting = house.submit("a@example.com")
    _came_earlier(house, waiting, timedelta(hours=25))
    patient = house.submit("b@example.com", expires_at=in_minutes(60 * 24 * 3))
    urgent = house.submit("c@example.com", expires_at=in_minutes(1))
    assert next_of(house, 3) == [accepted.submission_id for accepted in (waiting, urgent, patient)]


def test_a_tenant_who_is_alone_has_every_worker(house: House) -> None:
    letters = house.submit(*(f"reader{number}@example.com" for number in range(6)))
    mine = {message.id for message in house.messages(letters)}
    with house.runtime.engine.connect() as one, house.runtime.engine.connect() as another:
        batches = [
            lease.claim(
                connection,
                house.mailer_id,
                0,
                version=house.version(),
                worker=name,
                batch=3,
                lease=timedelta(minutes=1),
            )
            for name, connection in (("one", one), ("another", another))
        ]
    taken = [{message.id for message in batch.messages} for batch in batches if batch]
    assert [len(ids) for ids in taken] == [3, 3]
    assert taken[0] | taken[1] == mine


def test_a_deadline_is_no_reason_to_be_sent_before_its_time(house: House) -> None:
    at = in_minutes(5)
    accepted = house.submit("a@example.com", send_at=at, expires_at=in_minutes(10))
    assert house.message(accepted).due_at == at
    assert next_of(house, 1) == []


def test_a_mail_with_a_deadline_is_as_old_as_it_is(house: House) -> None:
    house.submit("a@example.com", expires_at=in_minutes(5))
    with house.runtime.engine.connect() as connection:
        assert queue_depths(connection)["send.normal"]["oldest_age_seconds"] < LATE.total_seconds()


def test_what_is_let_go_after_a_pause_stands_where_its_deadline_belongs(house: House) -> None:
    letter = house.submit("a@example.com")
    code = house.submit("b@example.com", expires_at=in_minutes(10))
    _park(house, letter, code)
    assert next_of(house, 2) == []
    _let_go(house, letter, code)
    assert next_of(house, 2) == [code.submission_id, letter.submission_id]


def _came_earlier(house: House, accepted: Accepted, by: timedelta) -> None:
    moved = "update message set due_at = due_at - :by, created_at = created_at - :by where submission_id = :id"
    _run(house, moved, by=by, id=accepted.submission_id)


def _park(house: House, *parked: Accepted) -> None:
    parking = "update message set due_at = :held where submission_id = any(:ids)"
    _run(house, parking, held=UNTIL_SOMEBODY_ACTS, ids=[accepted.submission_id for accepted in parked])


def _let_go(house: House, *parked: Accepted) -> None:
    groups = [[accepted.submission_id for accepted in parked]]
    with house.runtime.engine.begin() as connection:
        assert sum(moved.count for moved in move_some(connection, LET_GO, groups, due=datetime.now(UTC))) == len(parked)


def _run(house: House, statement: str, **values: Any) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text(statement), values)


def test_nothing_is_claimed_for_a_mailer_that_has_changed_since_it_was_read(house: House) -> None:
    house.submit("ann@example.com")
    read = house.version()
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update mailer set name = name where id = :m"), {"m": house.mailer_id})
    with house.runtime.engine.connect() as connection:
        claimed = [
            lease.claim(
                connection, house.mailer_id, 0, version=version, worker="w", batch=1, lease=timedelta(minutes=1)
            )
            for version in (read, house.version())
        ]
    assert [batch is None for batch in claimed] == [True, False]
