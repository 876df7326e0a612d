"""The send path on a real database and a real SMTP dialogue, one step at a time."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from models.content import Address
from models.database import each_by_itself
from models.mailer import MailerStatus
from models.message import UNTIL_SOMEBODY_ACTS, Message
from providers.base import Lookup, LookupAnswer, OutboundEmail, Outcome, Result
from providers.emulators.smtp import Does, Fault, Stage
from providers.smtp import Smtp
from tests.conftest import wait_until
from tests.worker.house import House
from worker import lease, submissions
from worker.beat import Ticker
from worker.delivery import Delivery
from worker.lease import CRASHES_TO_ISOLATE


def test_c3_each_recipient_gets_a_mail_of_its_own_exactly_once(house: House) -> None:
    accepted = house.submit(*(f"user{number}@example.com" for number in range(50)))
    house.deliver_all()
    messages = house.messages(accepted)
    assert {message.state for message in messages} == {"sent"}
    assert house.server.delivered_once(message.rfc_message_id for message in messages)
    assert sorted(mail.recipients for mail in house.server.received) == sorted((m.recipients[0],) for m in messages)


def test_a_mail_carries_the_message_id_that_intake_promised(house: House) -> None:
    accepted = house.submit("ann@example.com")
    house.deliver_all()
    assert house.server.received[0].message_id == accepted.rfc_message_id


def test_c13_c38_personal_values_reach_the_subject_and_both_bodies(house: House) -> None:
    house.submit(
        "ann@example.com",
        subject="For {{name}}",
        html="<p>{{name}}</p>",
        text="{{name}}!",
        substitutions={"ann@example.com": {"name": "Ann <3"}},
    )
    house.deliver_all()
    data = house.server.received[0].data.decode()
    assert "Subject: For Ann <3" in data
    assert "<p>Ann &lt;3</p>" in data.replace("=\r\n", "")
    assert "Ann <3!" in data.replace("=\r\n", "")


def test_c22_a_lane_goes_out_in_the_order_in_which_it_came_in(house: House) -> None:
    recipients = [f"user{number:03}@example.com" for number in range(40)]
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update mailer set caps = '{\"connections\": 1}' where id = :id"), {"id": house.mailer_id}
        )
    house.submit(*recipients[:20])
    house.submit(*recipients[20:])
    house.deliver_all()
    assert [mail.recipients[0] for mail in house.server.received] == recipients


def test_c4_c5_a_shared_mail_goes_out_once_for_all_and_hides_its_bcc(house: House) -> None:
    accepted = house.submit(
        "ann@example.com",
        individual=False,
        cc=(Address("cat@example.com"),),
        bcc=(Address("dan@example.com"),),
    )
    house.deliver_all()
    [mail] = house.server.received
    assert mail.recipients == ("ann@example.com", "cat@example.com", "dan@example.com")
    assert b"dan@example.com" not in mail.data
    assert house.message(accepted).state == "sent"


def test_a_retry_of_a_shared_mail_goes_only_to_those_not_yet_served(house: House) -> None:
    house.server.fail(Fault(Stage.RCPT, Does.REPLY, "451 4.3.0 later"))
    accepted = house.submit(
        "ann@example.com", individual=False, cc=(Address("cat@example.com"), Address("dan@example.com"))
    )
    house.deliver_all()
    assert [mail.recipients for mail in house.server.received] == [
        ("cat@example.com", "dan@example.com"),
        ("ann@example.com",),
    ]
    message = house.message(accepted)
    assert message.state == "sent"
    assert [attempt["outcome"] for attempt in message.attempts] == ["accepted", "accepted"]


def test_a_permanent_refusal_fails_the_mail_and_says_why(house: House) -> None:
    message = _delivered(house, "bounce-550@example.com")
    assert message.state == "failed"
    assert "5.1.1" in (message.reason or "")
    assert len(message.attempts) == 1


def test_an_answer_that_the_database_would_not_take_is_kept_without_what_offends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Outcome(result=Result.PERMANENT, detail="no\0such \ud800user", code="550\0", provider_message_id="\0")
    monkeypatch.setattr(Smtp, "send", lambda _, emails: [odd] * len(emails))
    message = _delivered(house, "ann@example.com")
    assert (message.state, message.reason) == ("failed", "nosuch ?user")


def test_a_transient_refusal_is_tried_again_until_the_waits_are_used_up(house: House) -> None:
    message = _delivered(house, "later-451@example.com")
    assert message.state == "failed"
    assert [attempt["outcome"] for attempt in message.attempts] == ["transient"] * 4


@pytest.mark.parametrize("reply", ["450 4.7.1 greylisted", "450 4.2.1 receives too fast"])
def test_a_recipient_that_is_put_off_holds_up_no_other_and_is_given_up_in_the_end(house: House, reply: str) -> None:
    house.server.fail(*[Fault(Stage.RCPT, Does.REPLY, reply)] * 4)
    greylisted = house.submit("ann@example.com")
    house.deliver_all()
    other = _delivered(house, "bob@example.com")
    assert (house.message(greylisted).state, other.state) == ("failed", "sent")
    assert house.scalar("select throttled_until from mailer where id = :m") is None


def test_a_mail_whose_answer_was_lost_is_held_and_never_sent_twice(house: House) -> None:
    message = _delivered(house, "drop-after-dot@example.com")
    assert (message.state, message.due_at) == ("uncertain", UNTIL_SOMEBODY_ACTS)
    assert house.server.ledger[message.rfc_message_id] == 1


def test_a_mailer_that_resends_says_so_and_sends_the_doubtful_mail_again(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update mailer set on_uncertain = 'resend' where id = :id"), {"id": house.mailer_id})
    house.server.fail(Fault(Stage.DOT, Does.CLOSE, store=True))
    accepted = house.submit("ann@example.com")
    house.deliver_all()
    message = house.message(accepted)
    assert message.state == "sent"
    assert house.server.ledger[message.rfc_message_id] == 2


def test_a_broken_neighbour_does_not_take_the_batch_along(house: House) -> None:
    accepted = house.submit(
        "bounce-550@example.com", "ann@example.com", "drop-after-dot@example.com", "bob@example.com"
    )
    house.deliver_all()
    states = {message.recipients[0]: message.state for message in house.messages(accepted)}
    assert states["ann@example.com"] == states["bob@example.com"] == "sent"
    assert states["bounce-550@example.com"] == "failed"


def test_a_suppressed_recipient_gets_nothing_and_the_reason_is_on_the_message(house: House) -> None:
    _suppress(house, "ann@example.com")
    message = _delivered(house, "Ann@example.com")
    assert message.state == "suppressed"
    assert message.reason == "on the suppression list: complaint"
    assert house.server.received == []


def test_a_shared_mail_leaves_out_its_suppressed_recipient(house: House) -> None:
    _suppress(house, "cat@example.com")
    accepted = house.submit("ann@example.com", individual=False, cc=(Address("cat@example.com"),))
    house.deliver_all()
    assert [mail.recipients for mail in house.server.received] == [("ann@example.com",)]
    assert house.message(accepted).state == "sent"


def test_a_mail_is_never_sent_after_it_expired(house: House) -> None:
    accepted = house.submit("ann@example.com", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    house.deliver_all()
    assert house.message(accepted).state == "expired"
    assert house.server.received == []


def test_a_scheduled_mail_waits_for_its_time(house: House) -> None:
    accepted = house.submit("ann@example.com", send_at=datetime.now(UTC) + timedelta(hours=1))
    assert house.deliver() == 0
    assert house.message(accepted).state == "queued"


def test_a_paused_mailer_keeps_its_mail(house: House) -> None:
    accepted = house.submit("ann@example.com")
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update mailer set status = 'paused' where id = :id"), {"id": house.mailer_id})
    assert house.deliver() == 0
    assert house.message(accepted).state == "queued"


def test_refused_credentials_stop_the_mailer_and_park_its_mail(house: House) -> None:
    house.server.fail(Fault(Stage.MAIL, Does.REPLY, "530 5.7.0 authentication required"))
    accepted = house.submit("ann@example.com")
    house.deliver()
    assert house.message(accepted).state == "queued"
    assert house.scalar("select status from mailer where id = :m") == MailerStatus.RECONNECT_REQUIRED
    assert house.deliver() == 0


def test_a_mail_that_cannot_be_composed_fails_without_an_attempt(house: House) -> None:
    accepted = house.submit(
        "ann@example.com", subject="{{name}}", substitutions={"ann@example.com": {"name": "two\r\nlines"}}
    )
    house.deliver_all()
    message = house.message(accepted)
    assert message.state == "failed"
    assert (message.reason or "").startswith("could not be composed")
    assert message.attempts == []


def test_a_cancelled_mail_in_hand_is_not_put_on_the_wire(house: House) -> None:
    accepted = house.submit("ann@example.com", "bob@example.com")
    delivery = _claimed(house)
    [cancelled] = [one.id for one in house.messages(accepted) if one.recipients == ["ann@example.com"]]
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update message set state = 'cancelled' where id = :id"), {"id": cancelled})
    delivery.run()
    assert [mail.recipients for mail in house.server.received] == [("bob@example.com",)]


def test_an_adapter_with_a_bug_leaves_its_mail_uncertain(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Smtp, emails: list[OutboundEmail]) -> list[Outcome]:
        raise KeyError("oops")

    monkeypatch.setattr(Smtp, "send", broken)
    accepted = house.submit("ann@example.com")
    house.deliver()
    message = house.message(accepted)
    assert message.state == "uncertain"
    assert message.attempts[0]["detail"] == "the adapter failed: KeyError"


def test_a_batch_whose_worker_stumbles_is_recovered_by_the_next_tick(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(self: Delivery, queued: object) -> None:
        raise RuntimeError("a bug")

    accepted = house.submit("ann@example.com", "bob@example.com")
    with monkeypatch.context() as patched:
        patched.setattr(Delivery, "_sift", stumble)
        with pytest.raises(RuntimeError, match="a bug"):
            house.deliver()
    house.tick()
    assert {message.state for message in house.messages(accepted)} == {"queued"}
    house.deliver_all()
    assert {message.state for message in house.messages(accepted)} == {"sent"}


def test_a_batch_whose_worker_stumbles_while_the_database_is_away_is_recovered_once_it_is_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("select", {}, Exception("away"))

    accepted = house.submit("ann@example.com")
    with monkeypatch.context() as patched:
        patched.setattr(Delivery, "_sift", away)
        with pytest.raises(OperationalError):
            house.deliver()
    house.tick()
    assert house.message(accepted).state == "claimed"
    beat = house.heartbeat()  # heard of again
    house.tick()
    beat.close()
    message = house.message(accepted)
    assert (message.state, message.crashes) == ("queued", 0)


def test_submissions_that_do_not_all_fit_into_the_cache_all_go_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.submissions.KEPT_BYTES", 1)
    older = house.submit("ann@example.com", send_at=datetime.now(UTC) + timedelta(hours=1))
    house.server.fail(Fault(Stage.RCPT, Does.REPLY, "451 4.3.0 later"))
    known = house.submit("bob@example.com")
    house.deliver()
    assert house.message(known).state == "queued"  # its content is kept for the retry
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update message set due_at = now() where mailer_id = :m and due_at is not null"),
            {"m": house.mailer_id},
        )
    house.deliver_all()
    assert [house.message(accepted).state for accepted in (older, known)] == ["sent", "sent"]


def test_what_a_dead_worker_had_only_claimed_returns_to_the_queue(house: House) -> None:
    accepted = house.submit("ann@example.com")
    _claimed(house)
    _let_leases_run_out(house)
    house.tick()
    assert house.message(accepted).state == "queued"
    house.deliver_all()
    assert house.message(accepted).state == "sent"
    assert house.server.ledger[accepted.rfc_message_id] == 1


def test_a_batch_of_large_submissions_is_taken_in_parts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "KEPT_BYTES", 2_000)
    accepted = [house.submit("ann@example.com", text="x" * 1_500) for _ in range(4)]
    assert house.deliver() == 4
    first = [house.message(one).state for one in accepted]
    assert (first[0], first[3]) == ("sent", "queued")
    house.deliver_all()
    assert {house.message(one).state for one in accepted} == {"sent"}
    assert house.server.delivered_once(one.rfc_message_id for one in accepted)


def test_a_restart_of_the_database_frees_locks_but_not_the_leases_of_the_living(house: House) -> None:
    accepted = house.submit("ann@example.com")
    _claimed(house)
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("insert into worker_heartbeat (name, queues, lock_key) values (:name, '{}', 4711)"),
            {"name": house.runtime.name},
        )
        connection.execute(text("update lease set created_at = created_at - interval '2 seconds'"))
    house.tick()
    assert house.message(accepted).state == "claimed"
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update worker_heartbeat set seen_at = seen_at - interval '6 seconds'"))

    def taken_back() -> bool:
        house.tick()
        return house.message(accepted).state == "queued"

    wait_until(taken_back, "its silence means something")


def test_silence_while_the_database_was_away_ends_nobodys_lease(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("select", {}, Exception("away"))

    accepted = house.submit("ann@example.com")
    _claimed(house)
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text(
                "insert into worker_heartbeat (name, queues, lock_key) values (:name, '{}', 4711) on conflict do nothing"
            ),
            {"name": house.runtime.name},
        )
        connection.execute(text("update worker_heartbeat set seen_at = seen_at - interval '1 minute'"))
        connection.execute(text("update lease set created_at = created_at - interval '1 minute'"))
    ticker = Ticker(house.runtime)
    with monkeypatch.context() as patched:
        patched.setattr(lease, "recover", away)
        ticker.tick()
    ticker.tick()
    assert house.message(accepted).state == "claimed"
    ticker.missed_at -= lease.UNHEARD_SECONDS  # as if so much time had passed

    def taken_back() -> bool:
        ticker.tick()
        return house.message(accepted).state == "queued"

    wait_until(taken_back, "its silence means something")


def test_what_a_dead_worker_was_sending_is_uncertain_and_not_sent_again(house: House) -> None:
    accepted = house.submit("ann@example.com")
    delivery = _claimed(house)
    _begin(house, delivery)
    _let_leases_run_out(house)
    house.tick()
    house.deliver_all()
    message = house.message(accepted)
    assert message.state == "uncertain"
    assert house.server.received == []
    assert [attempt["outcome"] for attempt in message.attempts] == ["uncertain", "lookup_cannot_tell"]


class _Forgetful(Smtp):
    """Can be asked, and knows of nothing."""

    settle_seconds = 60.0
    asked: ClassVar[list[str]] = []

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        self.asked.append(email.rfc_message_id)
        return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="not there")


@pytest.fixture
def forgetful(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Message-IDs that the provider is asked about."""
    monkeypatch.setattr("worker.mailers.open_provider", _Forgetful)
    monkeypatch.setattr(_Forgetful, "asked", [])
    return _Forgetful.asked


def test_what_a_dead_worker_was_sending_is_not_asked_about_before_the_provider_can_know(
    house: House, forgetful: list[str]
) -> None:
    accepted = house.submit("ann@example.com")
    _begin(house, _claimed(house))
    _let_leases_run_out(house)
    house.tick()
    house.deliver()
    message = house.message(accepted)
    assert (message.state, forgetful, house.server.received) == ("uncertain", [], [])
    assert message.due_at is not None
    assert 50 < (message.due_at - datetime.now(UTC)).total_seconds() <= 60
    with house.runtime.engine.begin() as connection:  # the time goes by
        connection.execute(
            text("""update message set due_at = clock_timestamp(), attempts = jsonb_set(attempts, '{0,at}',
                    to_jsonb(clock_timestamp() - interval '61 seconds')) where id = :id"""),
            {"id": accepted.message_id},
        )
    house.deliver_all()
    assert (house.message(accepted).state, forgetful) == ("sent", [accepted.rfc_message_id])


def test_a_mail_that_cannot_be_asked_about_is_held_and_its_neighbours_go_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_self: Smtp, _email: OutboundEmail) -> LookupAnswer:
        raise KeyError("a bug")

    monkeypatch.setattr(Smtp, "lookup", stumble)
    monkeypatch.setattr(Smtp, "settle_seconds", 0.0)
    lost = house.submit("ann@example.com")
    _begin(house, _claimed(house))
    _let_leases_run_out(house)
    house.tick()
    other = house.submit("bob@example.com")
    house.deliver_all()
    assert house.message(lost).due_at == UNTIL_SOMEBODY_ACTS
    assert house.message(other).state == "sent"


def test_what_there_was_no_time_to_ask_about_goes_back_uncertain(
    house: House, forgetful: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = house.submit("ann@example.com")
    _begin(house, _claimed(house))
    _let_leases_run_out(house)
    house.tick()
    monkeypatch.setattr("worker.delivery.TASK_SECONDS", 0.0)
    house.deliver()
    message = house.message(accepted)
    assert (message.state, forgetful) == ("uncertain", [])
    assert message.due_at is not None
    assert message.due_at <= datetime.now(UTC)


def test_the_leases_of_a_worker_whose_process_is_gone_are_ended_without_waiting(house: House) -> None:
    accepted = house.submit("ann@example.com")
    beat = house.heartbeat()
    _claimed(house)
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update lease set created_at = created_at - interval '2 seconds'"))
    house.tick()
    assert house.message(accepted).state == "claimed"  # the process lives: its lease holds
    beat.close()
    house.tick()
    assert house.message(accepted).state == "queued"


def test_a_worker_that_lost_its_lease_before_sending_sends_nothing(house: House) -> None:
    house.submit("ann@example.com")
    frozen = _claimed(house)
    _let_leases_run_out(house)
    house.tick()
    house.deliver_all()
    frozen.run()
    assert len(house.server.received) == 1


def test_a_worker_that_comes_back_with_an_answer_settles_the_doubt(house: House) -> None:
    accepted = house.submit("ann@example.com")
    frozen = _claimed(house)
    begun = _begin(house, frozen)
    _let_leases_run_out(house)
    house.tick()
    assert house.message(accepted).state == "uncertain"
    frozen._send(begun)
    frozen._finish([])
    assert house.message(accepted).state == "sent"
    assert len(house.server.received) == 1


def test_a_late_answer_to_an_overtaken_attempt_is_kept_as_evidence_and_changes_nothing(house: House) -> None:
    accepted = house.submit("ann@example.com")
    frozen = _claimed(house)
    begun = _begin(house, frozen)
    with house.runtime.engine.begin() as connection:  # an operator decided to send it again, and it went out
        connection.execute(
            text("update message set state = 'queued', due_at = now() where id = :id"), {"id": accepted.message_id}
        )
        # A lease that is half a second old keeps others from its lane.
        connection.execute(text("update lease set created_at = clock_timestamp() + interval '1 hour'"))
    house.deliver_all()
    house.server.fail(Fault(Stage.RCPT, Does.REPLY, "550 5.1.1 no such user"))
    frozen._send(begun)
    frozen._finish([])
    message = house.message(accepted)
    assert message.state == "sent"
    assert [(attempt["outcome"], attempt.get("late")) for attempt in message.attempts] == [
        ("accepted", None),
        ("permanent", True),
    ]


def test_a_message_that_kills_its_worker_is_isolated_and_its_neighbours_go_out(house: House) -> None:
    accepted = house.submit("deadly@example.com", "ann@example.com", "bob@example.com")
    deaths = 0
    while delivery := _claimed_or_none(house):
        if any(message.recipients == ["deadly@example.com"] for message in delivery.batch.messages):
            deaths += 1
            _let_leases_run_out(house)
            house.tick()
        else:
            delivery.run()
    found = {message.recipients[0]: message for message in house.messages(accepted)}
    states = {recipient: message.state for recipient, message in found.items()}
    assert states == {"deadly@example.com": "failed", "ann@example.com": "sent", "bob@example.com": "sent"}
    assert deaths == CRASHES_TO_ISOLATE
    assert "isolated" in (found["deadly@example.com"].reason or "")


@pytest.mark.parametrize(("deaths", "companies"), [(1, [8, 2]), (2, [2] + [1] * 8)])
def test_what_was_in_hand_when_a_worker_died_is_claimed_in_small_company_and_then_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, deaths: int, companies: list[int]
) -> None:
    """All in one turn: between small companies nobody waits for another bell."""
    house.submit(*(f"ann{number}@example.com" for number in range(10)))
    for _ in range(deaths):
        _claimed(house)
        _let_leases_run_out(house)
        house.tick()
    house.submit("cat@example.com", "dan@example.com", "eve@example.com")
    claimed = _counting_claims(monkeypatch)
    assert house.deliver() == 13
    assert claimed == [*companies, 3]


def test_the_company_of_suspects_grows_as_long_as_all_goes_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.submit(*(f"ann{number}@example.com" for number in range(100)))
    _claimed(house)
    _let_leases_run_out(house)
    house.tick()
    monkeypatch.setattr(lease, "MOST_SUSPECTS", 32)
    claimed = _counting_claims(monkeypatch)
    assert house.deliver() == 100
    assert claimed == [8, 16, 32, 32, 12, 0]


def test_suspects_of_a_crash_give_way_to_other_lanes_after_a_turn(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.delivery.TASK_SECONDS", 0.0)
    house.submit(*(f"ann{number}@example.com" for number in range(10)))
    _claimed(house)
    _let_leases_run_out(house)
    house.tick()
    claimed = _counting_claims(monkeypatch)
    house.deliver()
    assert claimed == [8]


def _counting_claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each claim takes from now on."""
    counts: list[int] = []
    claim = lease.claim

    def counted(*args: Any, **options: Any) -> lease.Batch | None:
        batch = claim(*args, **options)
        counts.append(len(batch.messages) if batch else 0)
        return batch

    monkeypatch.setattr(lease, "claim", counted)
    return counts


def _delivered(house: House, recipient: str) -> Message:
    accepted = house.submit(recipient)
    house.deliver_all()
    return house.message(accepted)


def _suppress(house: House, address: str) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text(
                "insert into suppression (id, workspace_id, address, reason) values (gen_random_uuid(), :w, :a, 'complaint')"
            ),
            {"w": house.workspace_id, "a": address},
        )


def _claimed_or_none(house: House) -> Delivery | None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    with house.runtime.engine.begin() as connection:
        batch = lease.claim(
            connection,
            house.mailer_id,
            0,
            version=house.version(),
            worker=house.runtime.name,
            batch=100,
            lease=house.settings.lease,
        )
    if batch is None:
        return None
    delivery = Delivery(house.runtime, mailer, batch, each_by_itself(house.runtime.engine))
    house.on_close.append(delivery.close)
    return delivery


def _claimed(house: House) -> Delivery:
    """A worker that has claimed what is due and goes no further by itself."""
    delivery = _claimed_or_none(house)
    assert delivery is not None
    return delivery


def _begin(house: House, delivery: Delivery) -> list[tuple[lease.Held, OutboundEmail]]:
    return delivery._begin(delivery._compose(delivery.batch.messages))


def _let_leases_run_out(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update lease set expires_at = clock_timestamp() - interval '1 second'"))
