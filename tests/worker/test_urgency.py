"""What stands between a mail that somebody waits for and its answer: bells and statements, each of them counted."""

from typing import Any

import fakeredis
import orjson
import psycopg
import pytest
from celery import Celery
from sqlalchemy import text

import worker.record
from providers.base import Outcome, Result
from providers.emulators.smtp import Does, Fault, Stage
from tests.worker.house import House
from tests.worker.test_bells import Recorder
from worker.bell import Bells
from worker.delivery import deliver
from worker.outcome_rows import OUTCOME_CHANNEL
from worker.record import record
from worker.tasks import register


@pytest.fixture
def rung(house: House) -> list[tuple[str, str, str]]:
    """Every bell that is rung, as if each were answered at once."""
    recorder = Recorder()
    broker = fakeredis.FakeRedis()
    house.runtime.bells = Bells(recorder, broker)

    def send_task(*arguments: Any, **options: Any) -> None:
        Recorder.send_task(recorder, *arguments, **options)
        broker.flushall()

    recorder.send_task = send_task  # type: ignore[method-assign]
    return recorder.sent


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever is executed by this process, and the ends of transactions."""
    heard: list[str] = []
    execute, commit = psycopg.Cursor.execute, psycopg.Connection.commit

    def executed(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        heard.append(str(query))
        if not cursor.connection.autocommit:
            heard.append("in a transaction")
        return execute(cursor, query, *arguments, **options)

    def committed(connection: psycopg.Connection[Any]) -> None:
        heard.append("commit")
        commit(connection)

    monkeypatch.setattr(psycopg.Cursor, "execute", executed)
    monkeypatch.setattr(psycopg.Connection, "commit", committed)
    return heard


def _submit_awaited(house: House, *recipients: str) -> None:
    accepted = house.submit(*recipients)
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update submission set awaited = true where id = :id"), {"id": accepted.submission_id})


def test_one_awaited_mail_rings_for_its_follow_up_once_and_for_nothing_else(
    house: House, rung: list[tuple[str, str, str]]
) -> None:
    _submit_awaited(house, "ann@example.com")
    assert deliver(house.runtime, house.mailer_id, 0) == (1, False)
    assert [task for task, _, _ in rung] == ["record"]


def test_one_awaited_mail_is_sent_with_six_statements_and_no_transaction_of_several(
    house: House, statements: list[str]
) -> None:
    _submit_awaited(house, "first@example.com")  # opens connections, learns the workspace's signing keys
    house.deliver_all()
    _submit_awaited(house, "ann@example.com")
    statements.clear()
    assert deliver(house.runtime, house.mailer_id, 0).done == 1
    assert len(statements) <= 6, "\n".join(statements)
    assert not {"commit", "in a transaction"} & set(statements)


def _announcements(house: House) -> list[str]:
    """What is said while a mail is delivered that somebody waits for."""
    with psycopg.connect(house.settings.database_url, autocommit=True) as listening:
        listening.execute(f"listen {OUTCOME_CHANNEL}")
        _submit_awaited(house, "ann@example.com")
        house.deliver_all()
        return [told.payload for told in listening.notifies(timeout=0.1)]


@pytest.mark.parametrize("reason", [None, "550 5.7.1 nobody of that näme"])
def test_an_announcement_says_what_an_answer_is_made_of(house: House, reason: str | None) -> None:
    if reason:
        house.server.fail(Fault(Stage.RCPT, Does.REPLY, reason))
    [payload] = _announcements(house)
    [row] = house.rows("select m.*, p.provider from message m join mailer p on p.id = m.mailer_id where p.id = :m")
    told = orjson.loads(payload[37:])
    assert told.pop("last") == row["attempts"][-1]["outcome"]
    assert told.pop("thread_id") == str(row["thread_id"])
    assert told == {name: row[name] for name in told}
    assert set(told) == {"state", "rfc_message_id", "provider_message_id", "provider", "reason"}
    assert (told["state"], bool(told["reason"])) == (("failed", True) if reason else ("sent", False))


def test_an_announcement_without_room_for_the_reason_says_only_which_message_it_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    refused = [Outcome(result=Result.PERMANENT, detail="ä" * 4_000)]
    monkeypatch.setattr(type(mailer.provider), "send", lambda _self, _emails: refused)
    assert _announcements(house) == [str(house.scalar("select id from message where mailer_id = :m"))]


def test_the_tasks_of_one_mail_ring_for_nothing_but_its_follow_up(
    house: House, rung: list[tuple[str, str, str]]
) -> None:
    app = Celery("test", broker="memory://")
    register(app, lambda: house.runtime)
    house.submit("ann@example.com")
    app.tasks["deliver"](f"{house.mailer_id}:0", "bell")
    app.tasks["record"]("all", "bell")
    assert [task for task, _, _ in rung] == ["record"]


def test_awaited_mails_of_an_early_slice_are_followed_up_before_the_batch_is_over(
    house: House, rung: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    monkeypatch.setattr(type(mailer.provider), "group", 1)
    _submit_awaited(house, *(f"ann{number}@example.com" for number in range(6)))
    deliver(house.runtime, house.mailer_id, 0)
    assert [task for task, _, _ in rung] == ["record"] * 3  # two connections, so three slices


def test_a_full_batch_leaves_more_to_do_and_one_that_is_not_does_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    monkeypatch.setattr(type(mailer.provider), "batch", 3)
    house.submit(*(f"ann{number}@example.com" for number in range(5)))
    assert [deliver(house.runtime, house.mailer_id, 0) for _ in range(3)] == [(3, True), (2, False), (0, False)]


def test_what_goes_back_to_the_queue_is_looked_for_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.submit("ann@example.com")
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    untried = [Outcome(result=Result.TRANSIENT, detail="nobody answered", untried=True)]
    with monkeypatch.context() as patched:
        patched.setattr(type(mailer.provider), "send", lambda _self, _emails: untried)
        assert deliver(house.runtime, house.mailer_id, 0) == (1, True)
    assert deliver(house.runtime, house.mailer_id, 0) == (1, False)


def test_what_was_in_hand_when_a_worker_died_is_taken_until_none_of_it_is_left(house: House) -> None:
    house.submit(*(f"ann{number}@example.com" for number in range(10)))
    with house.runtime.engine.begin() as connection:
        query = "update message set crashes = 1, due_at = now() where mailer_id = :m"
        connection.execute(text(query), {"m": house.mailer_id})
    assert deliver(house.runtime, house.mailer_id, 0) == (10, False)


def test_a_full_follow_up_leaves_more_to_do_and_one_that_is_not_does_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.record, "BATCH", 2)
    house.record_all()
    for number in range(3):
        house.submit(f"ann{number}@example.com")
        house.deliver_all()
    assert [record(house.runtime) for _ in range(3)] == [(2, True), (1, False), (0, False)]
