"""Fallback: what a mailer cannot send goes through the one it names, and nothing goes twice."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from models.base import uuid7
from models.mailer import Mailer
from models.message import UNTIL_SOMEBODY_ACTS
from providers.base import Result
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import Does, Fault, SmtpEmulator, Stage
from tests.worker.house import House, settings_for
from worker.circuits import FAILURES, OPEN_SECONDS
from worker.delivery import deliver
from worker.fallback import Fallbacks
from worker.mailers import mailer_purpose

LATER = Fault(Stage.MAIL, Does.REPLY, "451 4.3.0 not now")


class TwoMailers(House):
    """The second mailer speaks another form, so that nothing compiled for the first will do."""

    def __init__(self, database_url: str, redis_url: str, server: SmtpEmulator, postmark: PostmarkEmulator) -> None:
        super().__init__(settings_for(database_url, redis_url, retry_seconds="60,60,60"), server)
        self.postmark = postmark
        self.second_id = uuid7()
        credentials = {"server_token": postmark.server_token}
        with self.session() as session:
            session.add(
                Mailer(
                    id=self.second_id,
                    workspace_id=self.workspace_id,
                    provider="postmark",
                    name="second",
                    from_addresses=[],
                    domains=["Demo.test"],
                    base_url=postmark.url,
                    sealed_credentials=self.runtime.vault.seal(mailer_purpose(self.second_id), credentials),
                    hook_token=str(self.second_id),
                )
            )
            session.commit()
        self.change("update mailer set fallback_id = :second where id = :m")

    def change(self, statement: str, **values: Any) -> None:
        with self.runtime.engine.begin() as connection:
            connection.execute(text(statement), {"m": self.mailer_id, "second": self.second_id} | values)

    def refuse(self) -> None:
        self.change("update mailer set status = 'reconnect_required' where id = :m")

    def divert(self) -> int:
        return Fallbacks(self.runtime).divert()

    def deliver_second(self) -> None:
        while deliver(self.runtime, self.second_id, 0).done:
            pass

    def mailer_of(self, message_id: UUID) -> UUID:
        found: UUID = self.scalar("select mailer_id from message where id = :id", id=message_id)
        return found


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[TwoMailers]:
    with SmtpEmulator() as server, PostmarkEmulator() as postmark:
        opened = TwoMailers(database_url, redis_url, server, postmark)
        yield opened
        opened.change("update mailer set fallback_id = null where workspace_id = :w", w=opened.workspace_id)
        opened.close()


def later(monkeypatch: pytest.MonkeyPatch, seconds: float = OPEN_SECONDS + 1) -> None:
    at = time.time() + seconds
    monkeypatch.setattr("worker.circuits.time.time", lambda: at)


def fail(house: TwoMailers, times: int = FAILURES) -> Any:
    """A submission whose mails are tried once each, in vain."""
    house.server.fail(*[LATER] * times)
    accepted = house.submit(*(f"user{number}@example.com" for number in range(times)))
    house.deliver()
    return accepted


def test_mail_of_a_refused_mailer_goes_out_through_the_other_exactly_once(house: TwoMailers) -> None:
    accepted = house.submit(*(f"user{number}@example.com" for number in range(20)))
    house.refuse()
    assert house.divert() == 20
    house.deliver_second()
    messages = house.messages(accepted)
    assert {message.state for message in messages} == {"sent"}
    assert house.postmark.delivered_once(message.id.hex for message in messages)
    assert house.server.received == []
    assert messages[0].attempts[0]["outcome"] == "moved"
    assert messages[0].attempts[0]["detail"] == "moved to mailer second: test must be reconnected"


def test_mail_that_was_tried_and_surely_not_taken_is_moved_and_starts_anew(
    house: TwoMailers, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = fail(house)
    assert house.divert() == 0  # not for so long yet
    later(monkeypatch)
    assert house.divert() == FAILURES
    house.deliver_second()
    message = house.messages(accepted)[0]
    assert [attempt["outcome"] for attempt in message.attempts] == ["transient", "moved", "accepted"]
    assert house.server.received == []


def test_one_success_closes_the_circuit(house: TwoMailers, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(house)
    house.submit("ann@example.com")
    house.deliver()
    later(monkeypatch)
    assert house.divert() == 0


def test_fewer_failures_than_that_open_nothing(house: TwoMailers, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(house, FAILURES - 1)
    later(monkeypatch)
    assert house.divert() == 0


def test_a_refusal_of_one_mail_shows_that_the_provider_answers(
    house: TwoMailers, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.runtime.circuits.note(house.mailer_id, [Result.TRANSIENT] * 4)
    house.runtime.circuits.note(house.mailer_id, [Result.PERMANENT, Result.TRANSIENT])
    later(monkeypatch)
    assert not house.runtime.circuits.is_open(house.mailer_id)


def test_a_mail_that_may_have_arrived_stays_where_it_is(house: TwoMailers) -> None:
    house.submit("drop-after-dot@example.com")
    house.deliver()
    house.deliver()
    house.change("update mailer set on_uncertain = 'resend' where id = :m")
    again = house.submit("drop-after-dot+2@example.com")
    house.deliver()
    house.change("update message set due_at = clock_timestamp() where submission_id = :id", id=again.submission_id)
    house.deliver()
    house.refuse()
    assert house.message(again).state == "queued"
    assert house.divert() == 0


def test_a_mail_that_somebody_already_got_stays(house: TwoMailers) -> None:
    accepted = house.submit("ann@example.com", "later-451@example.com", individual=False)
    house.deliver()
    house.change("update message set provider_message_id = null where mailer_id = :m")  # servers need not give one
    house.refuse()
    assert house.divert() == 0
    assert house.message(accepted).attempts[0]["outcome"] == "accepted"


@pytest.mark.parametrize("due_at", ["clock_timestamp() + interval '1 hour'", f"'{UNTIL_SOMEBODY_ACTS}'"])
def test_mail_that_waits_for_its_time_or_for_a_person_stays(house: TwoMailers, due_at: str) -> None:
    house.submit("ann@example.com")
    house.change(f"update message set due_at = {due_at} where mailer_id = :m")
    house.refuse()
    assert house.divert() == 0


def test_a_from_that_the_fallback_may_not_use_stays(house: TwoMailers) -> None:
    house.change("update mailer set domains = '{other.test}' where id = :second")
    house.submit("ann@example.com")
    house.refuse()
    assert house.divert() == 0
    house.change("update mailer set from_addresses = '{Hello@demo.test}' where id = :second")
    assert house.divert() == 1


@pytest.mark.parametrize(
    "trouble",
    [
        "status = 'paused'",
        "status = 'reconnect_required'",
        "throttled_until = clock_timestamp() + interval '1 minute'",
        "deleted_at = clock_timestamp()",
    ],
)
def test_a_fallback_in_trouble_itself_gets_nothing(house: TwoMailers, trouble: str) -> None:
    house.submit("ann@example.com")
    house.refuse()
    house.change(f"update mailer set {trouble} where id = :second")
    assert house.divert() == 0


def test_mail_does_not_go_round_between_two_that_both_fail(house: TwoMailers, monkeypatch: pytest.MonkeyPatch) -> None:
    house.change("update mailer set fallback_id = :m where id = :second")
    house.submit("ann@example.com")
    for mailer_id in (house.mailer_id, house.second_id):
        house.runtime.circuits.note(mailer_id, [Result.TRANSIENT] * FAILURES)
    later(monkeypatch)
    assert house.divert() == 0


def test_what_the_fallback_would_find_too_large_stays(house: TwoMailers, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = house.submit("ann@example.com")
    attached = """update submission set content = content || '{"attachments": [{}]}' where id = :id"""
    house.change(attached, id=accepted.submission_id)
    house.refuse()
    assert house.divert() == 0


def test_the_beat_does_it(house: TwoMailers) -> None:
    accepted = house.submit("ann@example.com")
    house.refuse()
    house.tick()
    house.tick()
    assert house.mailer_of(house.message(accepted).id) == house.second_id
    house.deliver_second()
    assert house.message(accepted).state == "sent"
