"""The follow-up: what is written after an outcome, once, whatever goes wrong in between."""

from unittest.mock import Mock
from uuid import UUID

import pytest
from sqlalchemy import text

import worker.record
from api_shim.submission import Link
from models.base import uuid7
from models.content import Address
from models.message import UNTIL_SOMEBODY_ACTS
from models.webhook import WebhookEndpoint
from tests.worker.house import House
from worker.moves import CANCEL, RETRY, move_one
from worker.record import record


def linked(house: House) -> tuple[Link, ...]:
    return (Link(field="contact_id", kind="contact", id=house.contact_id),)


def events(house: House) -> list[tuple[int, int, str]]:
    rows = house.rows("select cursor, seq, type from event where workspace_id = :w order by cursor")
    return [(row["cursor"], row["seq"], row["type"]) for row in rows]


def test_a16_a20_d3_a_sent_mail_gets_a_log_row_an_activity_a_thread_and_an_event(house: House) -> None:
    accepted = house.submit("ann@example.com", links=linked(house))
    house.deliver_all()
    house.record_all()
    [log] = house.rows("select * from email_log where workspace_id = :w")
    assert (log["message_id"], log["status"], log["type"]) == (accepted.message_id, "sent", "single")
    assert (log["subject"], log["sender_email"], log["recipient_email"]) == (
        "Hello",
        "hello@demo.test",
        "ann@example.com",
    )
    assert (log["contact_id"], log["thread_id"], log["provider"]) == (house.contact_id, accepted.thread_id, "smtp")
    [activity] = house.rows("select * from activity where workspace_id = :w")
    assert (activity["entity_type"], activity["entity_id"], activity["direction"]) == (
        "contact",
        house.contact_id,
        "outbound",
    )
    [thread] = house.rows("select * from thread where workspace_id = :w")
    assert thread["participants"] == ["ann@example.com", "hello@demo.test"]
    assert events(house) == [(1, 1, "delivered")]
    assert house.scalar("select data->>'evidence' from event where workspace_id = :w") == "accepted"


def test_a19_an_unlinked_mail_is_logged_and_has_a_thread_but_no_activity(house: House) -> None:
    house.submit("ann@example.com")
    house.deliver_all()
    house.record_all()
    assert house.scalar("select count(*) from email_log where workspace_id = :w") == 1
    assert house.scalar("select count(*) from thread where workspace_id = :w and contact_id is null") == 1
    assert house.scalar("select count(*) from activity where workspace_id = :w") == 0


def test_a23_cc_addresses_are_among_the_participants_of_the_thread(house: House) -> None:
    house.submit("ann@example.com", individual=False, cc=(Address("Cat@example.com"),))
    house.deliver_all()
    house.record_all()
    assert house.scalar("select participants from thread where workspace_id = :w") == [
        "ann@example.com",
        "cat@example.com",
        "hello@demo.test",
    ]


def test_a52_an_entity_that_vanished_leaves_the_mail_sent_logged_and_unlinked(house: House) -> None:
    house.submit("ann@example.com", links=linked(house))
    with house.runtime.engine.begin() as connection:
        connection.execute(text("delete from contact where id = :id"), {"id": house.contact_id})
    house.deliver_all()
    house.record_all()
    assert house.rows("select status, contact_id from email_log where workspace_id = :w") == [
        {"status": "sent", "contact_id": None}
    ]
    assert house.scalar("select count(*) from activity where workspace_id = :w") == 0


def test_a21_a_mail_that_reached_nobody_leaves_a_log_row_and_no_ghost_thread(house: House) -> None:
    house.submit("bounce-550@example.com", links=linked(house))
    house.deliver_all()
    house.record_all()
    assert house.scalar("select status from email_log where workspace_id = :w") == "failed"
    assert house.scalar("select count(*) from thread where workspace_id = :w") == 0
    assert house.scalar("select count(*) from activity where workspace_id = :w") == 0
    assert [type_ for _, _, type_ in events(house)] == ["failed"]


def test_a_mail_that_could_not_be_composed_is_a_generation_failure(house: House) -> None:
    house.submit("ann@example.com", subject="{{n}}", substitutions={"ann@example.com": {"n": "a\r\nb"}})
    house.deliver_all()
    house.record_all()
    assert [type_ for _, _, type_ in events(house)] == ["generation_failed"]


def test_the_refused_recipient_of_a_shared_mail_has_an_event_of_its_own(house: House) -> None:
    house.submit("ann@example.com", individual=False, cc=(Address("bounce-550@example.com"),))
    house.deliver_all()
    house.record_all()
    found = house.rows("select type, recipients, seq from event where workspace_id = :w order by cursor")
    assert found == [
        {"type": "delivered", "recipients": ["ann@example.com"], "seq": 1},
        {"type": "failed", "recipients": ["bounce-550@example.com"], "seq": 2},
    ]


def test_the_log_shows_the_subject_as_this_recipient_saw_it(house: House) -> None:
    house.submit("ann@example.com", subject="For {{name}}", substitutions={"ann@example.com": {"name": "Ann"}})
    house.deliver_all()
    house.record_all()
    assert house.scalar("select subject from email_log where workspace_id = :w") == "For Ann"


def test_recording_twice_writes_everything_once(house: House) -> None:
    accepted = house.submit("ann@example.com", links=linked(house))
    house.deliver_all()
    house.record_all()
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("insert into followup (message_ids) values (array[:id]::uuid[])"), {"id": str(accepted.message_id)}
        )
    house.record_all()
    assert house.scalar("select count(*) from email_log where workspace_id = :w") == 1
    assert house.scalar("select count(*) from activity where workspace_id = :w") == 1
    assert house.scalar("select count(*) from thread where workspace_id = :w") == 1


def test_c23_d4_events_are_numbered_without_gaps_and_only_wanted_ones_are_addressed_to_an_endpoint(
    house: House,
) -> None:
    failures, everything = _endpoint(house, ["MAIL_FAILED"]), _endpoint(house, ["*"])
    other_campaign = _endpoint(house, ["*"], campaign_id="spring")
    house.submit("ann@example.com", "bounce-550@example.com", "bob@example.com")
    house.deliver_all()
    house.record_all()
    assert [cursor for cursor, _, _ in events(house)] == [1, 2, 3]
    addressed = house.rows("select endpoint_id, count(*) from webhook_delivery where workspace_id = :w group by 1")
    assert {row["endpoint_id"]: row["count"] for row in addressed} == {failures: 1, everything: 3}
    assert other_campaign not in {row["endpoint_id"] for row in addressed}


def test_a30_a45_while_the_log_refuses_writes_the_mail_stays_sent_and_is_logged_once_when_it_recovers(
    house: House,
) -> None:
    accepted = house.submit("ann@example.com", links=linked(house))
    house.deliver_all()
    _break_log(house)
    try:
        assert record(house.runtime).done == 1
        assert house.message(accepted).state == "sent"
        assert house.scalar("select count(*) from email_log where workspace_id = :w") == 0
        assert [type_ for _, _, type_ in events(house)] == ["log_failed"]
        _due_now(house)
        record(house.runtime)
        assert [type_ for _, _, type_ in events(house)] == ["log_failed"]  # said once
    finally:
        _mend_log(house)
    _due_now(house)
    house.record_all()
    assert house.scalar("select count(*) from email_log where workspace_id = :w") == 1
    assert house.scalar("select count(*) from activity where workspace_id = :w") == 1
    assert [type_ for _, _, type_ in events(house)] == ["log_failed", "delivered", "log_repaired"]
    assert len(house.server.received) == 1


def test_a_mail_that_is_retried_before_its_failure_was_logged_is_logged_with_its_next_outcome(house: House) -> None:
    failed = house.submit("bounce-550@example.com")
    house.deliver_all()
    with house.session() as session:
        assert move_one(session, RETRY, failed.message_id, due=UNTIL_SOMEBODY_ACTS) is not None
        session.commit()
    sent = house.submit("ann@example.com")
    house.deliver_all()
    house.record_all()
    logged = house.rows("select message_id, status from email_log where workspace_id = :w")
    assert [(row["message_id"], row["status"]) for row in logged] == [(sent.message_id, "sent")]
    assert house.scalar("select count(*) from followup where :f = any(message_ids)", f=failed.message_id) == 0
    assert [type_ for _, _, type_ in events(house)] == ["delivered"]
    with house.session() as session:
        assert move_one(session, CANCEL, failed.message_id) is not None
        session.commit()
    house.record_all()
    assert house.scalar("select status from email_log where message_id = :f", f=failed.message_id) == "cancelled"


def test_one_message_that_can_never_be_logged_does_not_hold_up_the_others(house: House) -> None:
    house.submit("ann@example.com", "poison@example.com", "bob@example.com")
    house.deliver_all()
    _break_log(house, "when (new.recipient_email = 'poison@example.com')")
    try:
        record(house.runtime)
        _due_now(house)
        for _ in range(9):
            record(house.runtime)
            _due_now(house)
        logged = house.rows("select recipient_email from email_log where workspace_id = :w order by 1")
    finally:
        _mend_log(house)
    assert [row["recipient_email"] for row in logged] == ["ann@example.com", "bob@example.com"]


def _endpoint(house: House, names: list[str], campaign_id: str | None = None) -> UUID:
    endpoint_id = uuid7()
    with house.session() as session:
        session.add(
            WebhookEndpoint(
                id=endpoint_id,
                workspace_id=house.workspace_id,
                url="http://127.0.0.1:9/",
                events=names,
                campaign_id=campaign_id,
                sealed_secret=b"",
            )
        )
        session.commit()
    return endpoint_id


def _break_log(house: House, when: str = "") -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text(
            "create or replace function refuse() returns trigger language plpgsql as $$"
            " begin raise exception 'the log is full'; end $$"
        ))  # fmt: skip
        connection.execute(
            text(f"create trigger refuse before insert on email_log for each row {when} execute function refuse()")
        )


def _mend_log(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text("drop trigger refuse on email_log"))


def _due_now(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update followup set due_at = clock_timestamp()"))


def test_r32_a_backlog_of_failed_follow_ups_is_worked_off_in_a_few_steps_around_one_that_never_can_be(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = house.submit(*(f"ann{number}@example.com" for number in range(60)))
    house.deliver_all()
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("insert into followup (message_ids, tries) select array[id], 9 from unnest(:ids) id"),
            {"ids": [message.id for message in house.messages(accepted)]},
        )
        connection.execute(text("delete from followup where tries = 0"))
        connection.execute(
            text("""
                create function refuse_one() returns trigger language plpgsql as $$ begin
                    if new.recipient_email = 'ann30@example.com' then raise exception 'never'; end if; return new;
                end $$
            """)
        )
        connection.execute(
            text("create trigger refuse_one before insert on email_log for each row execute function refuse_one()")
        )
    groups = Mock(wraps=worker.record._record_group)
    monkeypatch.setattr("worker.record._record_group", groups)
    try:
        assert record(house.runtime).done <= 60
        record(house.runtime)
    finally:
        with house.runtime.engine.begin() as connection:
            connection.execute(text("drop trigger refuse_one on email_log"))
            connection.execute(text("drop function refuse_one()"))
    logged = "select count(*) from email_log where submission_id = :id"
    assert house.scalar(logged, id=accepted.submission_id) == 59
    assert house.scalar("select sum(cardinality(message_ids)) from followup where tries > 9") == 1
    assert groups.call_count < 60
