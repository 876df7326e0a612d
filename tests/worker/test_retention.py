"""What is older than it may be goes, and nothing else does; months are there before they begin."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api_shim.submission import NewAttachment
from models.base import uuid7
from models.event import EventType
from models.partition import drop_parts, first_id, make_parts, months_from
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker.events import NewEvent, append_events, unseen
from worker.retention import keep
from worker.settings import Settings

NOW = datetime.now(UTC)
PAPER = NewAttachment(field="attachments[0]", filename="a.pdf", content_type="application/pdf", data=b"%PDF-1.4")


@pytest.fixture
def house(services: Any, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(services.fresh_database(), redis_url), server)
        yield opened
        opened.close()


def in_days(house: House, days: float) -> dict[str, int]:
    return keep(house.runtime.engine, house.settings, NOW + timedelta(days=days), threading.Event())


def counts(house: House, *tables: str) -> dict[str, int]:
    return {table: house.scalar(f"select count(*) from {table} where workspace_id = :w") for table in tables}


def parts(house: House, table: str) -> set[str]:
    query = "select inhrelid::regclass::text as name from pg_inherits where inhparent = to_regclass(:table)"
    return {row["name"] for row in house.rows(query, table=table)}


def test_everything_goes_when_its_own_time_is_over(house: House) -> None:
    house.submit("ann@example.com", attachments=(PAPER,))
    house.deliver_all()
    house.record_all()
    everything = ("message", "submission", "blob", "email_log", "event", "thread")
    assert set(counts(house, *everything).values()) == {1}
    in_days(house, 89)
    assert set(counts(house, *everything).values()) == {1}
    in_days(house, 91)
    assert counts(house, *everything) == {
        "message": 0, "submission": 0, "blob": 0, "email_log": 1, "event": 1, "thread": 1,
    }  # fmt: skip
    in_days(house, 135)
    assert counts(house, "event", "email_log") == {"event": 0, "email_log": 1}
    in_days(house, 435)
    assert counts(house, "email_log", "thread") == {"email_log": 0, "thread": 0}


def test_what_still_waits_stays_however_old_it_is(house: House) -> None:
    house.submit("ann@example.com", attachments=(PAPER,))
    in_days(house, 1000)
    house.deliver_all()
    in_days(house, 1000)
    assert counts(house, "message", "submission", "blob") == {"message": 1, "submission": 1, "blob": 1}
    house.record_all()
    in_days(house, 1000)
    assert counts(house, "message", "submission", "blob") == {"message": 0, "submission": 0, "blob": 0}


def test_bytes_that_came_again_stay_for_the_mail_they_came_with(house: House) -> None:
    house.submit("ann@example.com", attachments=(PAPER,))
    house.deliver_all()
    house.record_all()
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update blob set used_at = now() - interval '200 days'"))
    house.submit("bob@example.com", attachments=(PAPER,))
    in_days(house, 1)
    assert counts(house, "blob") == {"blob": 1}


def test_a_kind_without_an_end_is_kept_for_ever(house: House) -> None:
    house.submit("ann@example.com")
    house.deliver_all()
    house.record_all()
    settings = house.settings.model_copy(update={"retention_message_days": 0, "retention_log_days": 0})
    keep(house.runtime.engine, settings, NOW + timedelta(days=4000), threading.Event())
    assert counts(house, "message", "email_log", "event") == {"message": 1, "email_log": 1, "event": 0}


@pytest.mark.parametrize(
    ("message", "log", "fine"), [(90, 400, True), (0, 0, True), (90, 0, True), (0, 400, False), (91, 90, False)]
)
def test_the_log_is_kept_as_long_as_the_mails_it_is_about(message: int, log: int, fine: bool) -> None:
    values: dict[str, Any] = {"retention_message_days": message, "retention_log_days": log}
    with nullcontext() if fine else pytest.raises(ValidationError, match="the log must be kept"):
        Settings(database_url="postgresql://x", secret_keys="x", **values)


def test_months_have_their_part_before_they_begin_and_lose_it_when_they_are_over(house: House) -> None:
    coming = {f"email_log_{month:%Y_%m}" for month in months_from(NOW, 3)}
    in_days(house, 0)  # the database may be of the month before
    assert parts(house, "email_log") >= {"email_log_other", *coming}
    in_days(house, 500)
    later = {f"email_log_{month:%Y_%m}" for month in months_from(NOW + timedelta(days=500), 3)}
    assert parts(house, "email_log") == {"email_log_other", *later}


def test_a_month_that_got_no_part_in_time_gets_it_with_all_that_belongs_into_it(house: House) -> None:
    late = NOW + timedelta(days=200)
    made = [NewEvent(workspace_id=house.workspace_id, type=EventType.OPENED, at=late, id=first_id(late))]
    with house.runtime.engine.begin() as connection:
        append_events(connection, made)
        assert connection.execute(text("select count(*) from event_other")).scalar() == 1
        make_parts(connection, late)
        assert connection.execute(text(f"select count(*) from event_{late:%Y_%m}")).scalar() == 1
        assert connection.execute(text("select count(*) from event_other")).scalar() == 0
        assert drop_parts(connection, "event", late + timedelta(days=40)) != []
    assert counts(house, "event") == {"event": 0}


def test_what_is_written_twice_meets_itself_in_its_month(house: House) -> None:
    accepted = house.submit("ann@example.com")
    house.deliver_all()
    house.record_all()
    with house.runtime.engine.begin() as connection:
        connection.execute(text("insert into followup (message_ids) values (:ids)"), {"ids": [accepted.message_id]})
    house.record_all()
    assert counts(house, "email_log", "thread") == {"email_log": 1, "thread": 1}
    assert [row["seq"] for row in house.rows("select seq from event where workspace_id = :w order by cursor")] == [1, 2]


def test_a_report_is_known_by_its_key_however_long_ago_the_month(house: House) -> None:
    def report(id_: UUID) -> NewEvent:
        return NewEvent(
            workspace_id=house.workspace_id, type=EventType.OPENED, at=NOW, natural_key="postmark:Open:1", id=id_
        )

    with house.runtime.engine.begin() as connection:
        append_events(connection, [report(first_id(NOW))])
        assert unseen(connection, [report(first_id(NOW + timedelta(days=60)))]) == []
    with pytest.raises(DBAPIError, match="pk_event_key"), house.runtime.engine.begin() as connection:
        append_events(connection, [report(UUID(int=first_id(NOW).int + 1))])


def test_the_audit_trail_takes_no_change_but_the_end_of_its_time(house: House) -> None:
    entry = "insert into audit_entry (id, workspace_id, action, target) values (:id, :w, 'mailer.paused', 'x')"
    with house.runtime.engine.begin() as connection:
        connection.execute(text(entry), {"id": uuid7(), "w": house.workspace_id})
    for change in ("update audit_entry set target = 'y'", "delete from audit_entry", "truncate audit_entry"):
        with pytest.raises(DBAPIError, match="audit_entry is append-only"), house.runtime.engine.begin() as connection:
            connection.execute(text(change))
    in_days(house, 729)
    assert counts(house, "audit_entry") == {"audit_entry": 1}
    in_days(house, 731)
    assert counts(house, "audit_entry") == {"audit_entry": 0}
