"""Webhook deliveries against real receivers and a real PostgreSQL."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from models.event import Event
from models.webhook import WebhookDelivery
from tests.worker.receiver import Receiver, raw, receiving, status
from tests.worker.webhook_rows import World, settings_for
from worker.deliveries import park
from worker.notify import new_secret


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(settings_for(database_url).sqlalchemy_url)
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine: Engine, database_url: str) -> Iterator[World]:
    world = World(engine, settings_for(database_url))
    yield world
    world.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


SLOW_HEAD = b"HTTP/1.1 200 OK\r\nX-Slow: "


def seconds_until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()


def drip(head: bytes) -> Iterator[bytes]:
    yield head
    yield from repeat(b"x", 200)  # 10 s


def gigabyte(taken: list[int]) -> Iterator[bytes]:
    """``taken`` gets the size of each piece that the other side's buffers took."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    for _ in range(20_000):
        yield b"\0" * 50_000
        taken.append(50_000)


def test_a_delivered_event_carries_a_signature_that_the_public_library_accepts(
    world: World, receiver: Receiver
) -> None:
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    assert world.notifier().deliver(endpoint.id) is False
    (call,) = receiver.calls
    body = Webhook(endpoint.secret).verify(call.body, call.headers)
    assert call.id == str(delivery)
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("postroad/")
    assert body["event"] == "MAIL_DELIVERED"
    assert body["details"]["custom_args"] == {"order_id": "12345"}
    row = world.delivery(delivery)
    assert (row.state, row.due_at, row.tries) == ("delivered", None, 1)
    assert row.delivered_at is not None
    (attempt,) = row.attempts
    assert (attempt["status"], attempt["error"], attempt["response"]) == (200, None, "ok")
    assert attempt["request"] == {
        "webhook_id": call.id,
        "timestamp": int(call.headers["webhook-timestamp"]),
        "signature": call.headers["webhook-signature"],
        "body": None,
    }


@pytest.mark.parametrize("max_batch", [1, 10])
def test_the_documented_receiver_reads_what_is_sent(world: World, receiver: Receiver, max_batch: int) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    documented: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], documented)
    endpoint = world.endpoint(receiver.url, max_batch=max_batch)
    world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    (call,) = receiver.calls
    (event,) = documented["events"](endpoint.secret, call.headers, call.body)
    assert event["event"] == "MAIL_DELIVERED"


def test_a_changed_body_does_not_verify(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    (call,) = receiver.calls
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.secret).verify(call.body.replace(b"MAIL_", b"FAKE_"), call.headers)


def test_every_retry_has_the_same_webhook_id_until_it_is_delivered(world: World, receiver: Receiver) -> None:
    receiver.answers += [status(500), status(503)]
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    notifier = world.notifier()
    for _ in range(3):
        notifier.deliver(endpoint.id)
        world.make_due(endpoint)
    assert receiver.ids == [str(delivery)] * 3
    assert [attempt["status"] for attempt in world.delivery(delivery).attempts] == [500, 503, 200]
    assert world.delivery(delivery).state == "delivered"


@pytest.mark.parametrize("tries", range(7))
def test_the_wait_follows_the_schedule_with_a_fifth_of_jitter(world: World, receiver: Receiver, tries: int) -> None:
    receiver.default = status(500)
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    with world.engine.begin() as db:
        db.execute(text("update webhook_delivery set tries = :n where id = :id"), {"n": tries, "id": delivery})
    world.notifier().deliver(endpoint.id)
    base = (5, 300, 1800, 7200, 18000, 36000, 36000)[tries]
    assert base * 0.8 - 2 <= seconds_until(world.delivery(delivery).due_at) <= base * 1.2


def test_after_the_last_wait_the_delivery_is_dead(world: World, receiver: Receiver) -> None:
    receiver.default = status(500)
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    notifier = world.notifier(webhook_retry_seconds="0,0")
    for _ in range(5):
        notifier.deliver(endpoint.id)
    row = world.delivery(delivery)
    assert (row.state, row.due_at, row.tries, len(receiver.calls)) == ("dead", None, 3, 3)


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        (status(503, Retry_After="7"), 5.6, 8.4),  # within base and twice base: taken, with jitter
        (status(503, Retry_After="86400"), 8, 12),  # clamped to twice the base
        (status(503, Retry_After="1"), 4, 6),  # never earlier than the schedule
        (status(503, Retry_After="soon"), 4, 6),
        (status(429), 60, 60),
    ],
)
def test_retry_after_counts_within_reason(
    world: World, receiver: Receiver, answer: Any, least: float, most: float
) -> None:
    receiver.default = answer
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    assert least - 1 <= seconds_until(world.delivery(delivery).due_at) <= most


def test_a_redirect_is_a_failure_and_is_not_followed(world: World, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.default = status(301, Location=elsewhere.url)
        endpoint = world.endpoint(receiver.url)
        (delivery,) = world.due(endpoint)
        world.notifier().deliver(endpoint.id)
        assert elsewhere.connections == 0
    row = world.delivery(delivery)
    assert (row.state, row.attempts[0]["status"], len(receiver.calls)) == ("pending", 301, 1)


def test_a_slow_drip_of_headers_is_cut_at_the_total_deadline(world: World, receiver: Receiver) -> None:
    receiver.default = raw(lambda: drip(SLOW_HEAD), pause=0.05)
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    started = time.monotonic()
    world.notifier(webhook_timeout_seconds=1.0).deliver(endpoint.id)
    assert 0.9 < time.monotonic() - started < 8
    row = world.delivery(delivery)
    assert row.attempts[0]["error"] == "no complete answer within 1 s"
    assert seconds_until(row.due_at) > 55, "a timeout waits at least a minute"


def test_a_dripping_body_is_cut_and_the_status_counts(world: World, receiver: Receiver) -> None:
    receiver.default = raw(lambda: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), pause=0.05)
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    started = time.monotonic()
    world.notifier(webhook_timeout_seconds=1.0).deliver(endpoint.id)
    assert time.monotonic() - started < 8
    assert world.delivery(delivery).state == "delivered"


def test_of_a_gigabyte_two_kilobytes_are_read(world: World, receiver: Receiver) -> None:
    taken: list[int] = []
    receiver.default = raw(lambda: gigabyte(taken))
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    started = time.monotonic()
    world.notifier().deliver(endpoint.id)
    assert time.monotonic() - started < 15
    assert sum(taken) < 20_000_000, "what the kernel's buffers hold, no more"
    row = world.delivery(delivery)
    assert row.state == "delivered"
    assert row.attempts[0]["response"] == "", "NULs cannot be stored and are left out"


def test_a_stored_response_has_at_most_two_kilobytes(world: World, receiver: Receiver) -> None:
    receiver.default = status(500, b"e" * 100_000)
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    assert world.delivery(delivery).attempts[0]["response"] == "e" * 2048


def test_the_last_twenty_attempts_are_kept(world: World, receiver: Receiver) -> None:
    receiver.default = status(500)
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    attempts = [{"status": 500 + n} for n in range(20)]
    with world.engine.begin() as db:
        change = update(WebhookDelivery).where(WebhookDelivery.id == delivery).values(tries=20, attempts=attempts)
        db.execute(change)
    world.notifier(webhook_retry_seconds=",".join(["5"] * 30)).deliver(endpoint.id)
    row = world.delivery(delivery)
    assert [attempt["status"] for attempt in row.attempts] == [*range(501, 520), 500]
    assert row.tries == 21


def test_both_secrets_sign_while_the_old_one_is_valid(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    new = new_secret()
    until = datetime.now(UTC) + timedelta(hours=1)
    world.change(
        endpoint, sealed_secret=world.seal(endpoint.id, new),
        sealed_old_secret=world.seal(endpoint.id, endpoint.secret), old_secret_until=until,
    )  # fmt: skip
    world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    (call,) = receiver.calls
    assert len(call.headers["webhook-signature"].split(" ")) == 2
    Webhook(endpoint.secret).verify(call.body, call.headers)
    Webhook(new).verify(call.body, call.headers)


def test_the_old_secret_no_longer_signs_after_its_time(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    new = new_secret()
    world.change(
        endpoint, sealed_secret=world.seal(endpoint.id, new),
        sealed_old_secret=world.seal(endpoint.id, endpoint.secret), old_secret_until=datetime.now(UTC),
    )  # fmt: skip
    world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    (call,) = receiver.calls
    Webhook(new).verify(call.body, call.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.secret).verify(call.body, call.headers)


def test_410_disables_the_endpoint_and_says_so(world: World, receiver: Receiver) -> None:
    with receiving() as other:
        receiver.default = status(410)
        endpoint, witness = world.endpoint(receiver.url), world.endpoint(other.url)
        deliveries = world.due(endpoint, 20)
        notifier = world.notifier()
        assert notifier.deliver(endpoint.id) is False
        posted = len(receiver.calls)
        assert posted <= 4, "no more than were on the wire together"
        assert (world.row(endpoint).status, world.row(endpoint).status_reason) == (
            "disabled", "The endpoint answered 410 Gone.",
        )  # fmt: skip
        assert set(world.states(deliveries)) == {"pending"}
        assert {world.delivery(each).due_at for each in deliveries} == {None}
        with world.engine.connect() as db:
            event = db.execute(
                select(Event.__table__).where(Event.workspace_id == world.workspace, Event.cursor == 21)
            ).one()
        assert (event.type, event.message_id) == ("endpoint_disabled", None)
        assert event.data["endpoint_id"] == str(endpoint.id)
        notifier.deliver(witness.id)
        assert other.calls[0].json["event"] == "webhook_endpoint.disabled"
        world.make_due(endpoint)
        assert notifier.deliver(endpoint.id) is False
        assert len(receiver.calls) == posted, "nothing goes to a disabled endpoint"
        assert {world.delivery(each).due_at for each in deliveries} == {None}


@pytest.mark.parametrize(
    ("hours", "days", "disabled"), [(121, 5.0, True), (119, 5.0, False), (11, 0.1, False), (13, 0.1, True)]
)
def test_an_endpoint_that_only_fails_for_too_long_is_disabled(
    world: World, receiver: Receiver, hours: float, days: float, disabled: bool
) -> None:
    receiver.default = status(500)
    endpoint = world.endpoint(receiver.url, failing_since=datetime.now(UTC) - timedelta(hours=hours))
    world.due(endpoint)
    world.notifier(webhook_disable_days=days).deliver(endpoint.id)
    assert (world.row(endpoint).status == "disabled") is disabled


def test_failing_since_is_the_first_failure_and_is_cleared_by_a_success(world: World, receiver: Receiver) -> None:
    receiver.answers += [status(500), status(500)]
    endpoint = world.endpoint(receiver.url)
    world.due(endpoint)
    notifier = world.notifier()
    notifier.deliver(endpoint.id)
    first = world.row(endpoint).failing_since
    world.make_due(endpoint)
    notifier.deliver(endpoint.id)
    assert first is not None
    assert world.row(endpoint).failing_since == first
    world.make_due(endpoint)
    notifier.deliver(endpoint.id)
    assert world.row(endpoint).failing_since is None


def test_a_dead_endpoint_gets_five_tries_then_one_probe_a_minute(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.default = status(500)
    endpoint = world.endpoint(receiver.url)
    deliveries = world.due(endpoint, 50)
    notifier = world.notifier()
    assert notifier.deliver(endpoint.id) is False
    posted = len(receiver.calls)
    assert 5 <= posted <= 8, "those on the wire at the fifth failure finish"
    untried = [row for row in map(world.delivery, deliveries) if row.tries == 0]
    assert len(untried) == 50 - posted
    assert all(50 < seconds_until(row.due_at) <= 60 for row in untried)
    world.make_due(endpoint)
    assert notifier.deliver(endpoint.id) is False
    assert len(receiver.calls) == posted, "not before its minute is over"
    assert all(seconds_until(world.delivery(each).due_at) > 50 for each in deliveries)

    clock = time.monotonic
    monkeypatch.setattr("worker.notify.time.monotonic", lambda: clock() + 61)
    world.make_due(endpoint)
    assert notifier.deliver(endpoint.id) is False
    assert len(receiver.calls) == posted + 1, "one probe"
    receiver.default = status(200)
    monkeypatch.setattr("worker.notify.time.monotonic", lambda: clock() + 130)
    world.make_due(endpoint)
    while notifier.deliver(endpoint.id):
        pass
    assert set(world.states(deliveries)) == {"delivered"}
    assert set(receiver.ids) == {str(each) for each in deliveries}


def test_a_dead_endpoint_takes_a_bounded_time_and_leaves_the_others_alone(world: World) -> None:
    with receiving(raw(lambda: drip(SLOW_HEAD), pause=0.05)) as dead, receiving() as alive:
        slow, fast = world.endpoint(dead.url), world.endpoint(alive.url)
        world.due(slow, 200)
        deliveries = world.due(fast, 200)
        notifier = world.notifier(webhook_timeout_seconds=1.0)
        started = time.monotonic()
        notifier.deliver(slow.id)
        assert time.monotonic() - started < 20, "two rounds of the 1 s deadline, not 50"
        notifier.deliver(fast.id)
        assert set(world.states(deliveries)) == {"delivered"}


def test_a_worker_that_dies_after_the_post_delivers_again_with_the_same_id(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What SIGKILL looks like from inside: nothing after it runs."""

    def killed(*_: Any) -> None:
        raise Killed

    endpoint = world.endpoint(receiver.url)
    deliveries = world.due(endpoint, 3)
    with monkeypatch.context() as patch:
        patch.setattr("worker.notify.Notifier._report", killed)
        with pytest.raises(Killed):
            world.notifier().deliver(endpoint.id)
    posted = list(receiver.ids)
    assert sorted(posted) == sorted(map(str, deliveries))
    assert world.notifier().deliver(endpoint.id) is False, "the lease still holds"
    assert receiver.ids == posted
    world.make_due(endpoint)
    world.notifier().deliver(endpoint.id)
    assert sorted(receiver.ids) == sorted(posted * 2)
    assert set(world.states(deliveries)) == {"delivered"}


def test_a_result_that_comes_after_the_lease_was_lost_changes_nothing(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)

    def overtaken(handler: Any) -> None:
        with world.engine.begin() as db:
            db.execute(text("update webhook_delivery set token = token + 1 where id = :id"), {"id": delivery})
        status(200)(handler)

    receiver.default = overtaken
    world.notifier().deliver(endpoint.id)
    row = world.delivery(delivery)
    assert (row.state, row.tries, row.attempts) == ("pending", 0, [])


def test_an_endpoint_that_is_disabled_while_a_result_is_written_down_is_no_deadlock(
    world: World, receiver: Receiver
) -> None:
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    turn = threading.Thread(target=world.notifier().deliver, args=(endpoint.id,))
    with world.engine.begin() as db:
        db.execute(text("update webhook_endpoint set status = 'disabled' where id = :id"), {"id": endpoint.id})
        turn.start()
        _until_somebody_waits_for_a_lock(world)
        park(db, endpoint.id)
    turn.join()
    assert world.delivery(delivery).state == "delivered"


def _until_somebody_waits_for_a_lock(world: World) -> None:
    """For the caller's transaction: no other of this database is open."""
    for _ in range(5_000):
        with world.engine.connect() as db:
            if db.execute(text("select exists (select from pg_locks where not granted)")).scalar():
                return
        time.sleep(0.01)
    raise AssertionError("nobody waited")


def test_two_workers_share_a_lane_without_posting_twice(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    deliveries = world.due(endpoint, 300)
    first, second = world.notifier(), world.notifier()
    assert first.deliver(endpoint.id) is True
    assert second.deliver(endpoint.id) is False
    assert sorted(receiver.ids) == sorted(map(str, deliveries))


def test_an_ordered_lane_stops_at_the_first_failure_and_goes_on_there(world: World, receiver: Receiver) -> None:
    receiver.answers += [status(200), status(200), status(500)]
    endpoint = world.endpoint(receiver.url, ordered=True)
    deliveries = list(map(str, world.due(endpoint, 6)))
    notifier = world.notifier()
    assert notifier.deliver(endpoint.id) is False
    assert receiver.ids == deliveries[:3]
    assert notifier.deliver(endpoint.id) is False
    assert receiver.ids == deliveries[:3], "the ones behind it wait for its retry"
    world.make_due(endpoint)
    notifier.deliver(endpoint.id)
    assert receiver.ids == deliveries[:3] + deliveries[2:]


def test_an_ordered_lane_is_in_the_order_of_the_events_not_of_their_due_times(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url, ordered=True)
    deliveries = world.due(endpoint, 10)
    with world.engine.begin() as db:
        for minutes, delivery in enumerate(deliveries):
            db.execute(
                text("update webhook_delivery set due_at = now() - make_interval(mins => :m) where id = :id"),
                {"m": minutes, "id": delivery},
            )
    world.notifier().deliver(endpoint.id)
    assert receiver.ids == list(map(str, deliveries))


def test_events_behind_a_waiting_head_do_not_overtake_it(world: World, receiver: Receiver) -> None:
    receiver.answers += [status(500)]
    endpoint = world.endpoint(receiver.url, ordered=True)
    world.due(endpoint)
    notifier = world.notifier()
    notifier.deliver(endpoint.id)
    world.due(endpoint)
    notifier.deliver(endpoint.id)
    assert len(receiver.calls) == 1


def test_max_batch_makes_arrays_whose_events_have_their_own_ids(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url, max_batch=10)
    deliveries = world.due(endpoint, 25)
    world.notifier().deliver(endpoint.id)
    assert sorted(len(call.json) for call in receiver.calls) == [5, 10, 10]
    assert sorted(item["webhook_id"] for call in receiver.calls for item in call.json) == sorted(map(str, deliveries))
    assert len(set(receiver.ids)) == 3
    for call in receiver.calls:
        Webhook(endpoint.secret).verify(call.body, call.headers)
    assert set(world.states(deliveries)) == {"delivered"}


def test_an_array_that_failed_comes_again_as_the_same_array_under_the_same_id(world: World, receiver: Receiver) -> None:
    receiver.answers += [status(500)]
    endpoint = world.endpoint(receiver.url, max_batch=10)
    world.due(endpoint, 4)
    notifier = world.notifier()
    notifier.deliver(endpoint.id)
    world.due(endpoint, 4)
    world.make_due(endpoint)
    notifier.deliver(endpoint.id)
    first, *later = receiver.calls
    again = [call for call in later if call.id == first.id]
    assert [call.json for call in again] == [first.json]
    assert len(later) == 2, "the new events do not join it"


def test_an_array_after_a_crash_is_the_same_array_under_the_same_id(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = world.endpoint(receiver.url, max_batch=10)
    world.due(endpoint, 20)
    with monkeypatch.context() as patch:
        patch.setattr("worker.turn.Turn._report", lambda *_: None)
        world.notifier().deliver(endpoint.id)
    world.make_due(endpoint)
    world.notifier().deliver(endpoint.id)
    assert sorted(receiver.ids) == sorted(receiver.ids[:2] * 2)


def test_what_is_claimed_in_portions_goes_out_in_one_turn_and_once(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.notify.PORTION", 25)
    endpoint = world.endpoint(receiver.url, max_batch=10)
    deliveries = world.due(endpoint, 55)
    assert world.notifier().deliver(endpoint.id) is False
    assert sorted(len(call.json) for call in receiver.calls) == [5, 10, 10, 10, 10, 10]
    assert sorted(event["webhook_id"] for call in receiver.calls for event in call.json) == sorted(map(str, deliveries))
    assert set(world.states(deliveries)) == {"delivered"}


def test_more_than_one_turn_is_announced(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    deliveries = world.due(endpoint, 300)
    notifier = world.notifier()
    turns = 1
    while notifier.deliver(endpoint.id):
        turns += 1
    assert turns == 2
    assert set(world.states(deliveries)) == {"delivered"}
    assert receiver.connections <= 4, "connections are kept and reused"


def test_a_slow_endpoint_gives_the_rest_back_when_its_turn_is_over(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        status(200)(handler)

    receiver.default = slowly
    monkeypatch.setattr("worker.notify.TURN_SECONDS", 0.15)
    endpoint = world.endpoint(receiver.url)
    deliveries = world.due(endpoint, 100)
    before = world.delivery(deliveries[-1]).due_at
    assert world.notifier().deliver(endpoint.id) is True
    posted = len(receiver.calls)
    assert 4 <= posted <= 8, "at most two rounds on four connections"
    last = world.delivery(deliveries[-1])
    assert (last.state, last.tries, last.due_at) == ("pending", 0, before)
    assert world.states(deliveries).count("delivered") == posted


def test_a_secret_that_rotates_under_load_never_makes_an_event_unverifiable(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    current = [endpoint.secret]
    notifier = world.notifier()
    until = datetime.now(UTC) + timedelta(hours=1)
    for _ in range(5):
        world.due(endpoint, 20)
        held_by_receiver = current[-1]
        current.append(new_secret())
        old, new = (world.seal(endpoint.id, secret) for secret in current[-2:])
        world.change(endpoint, sealed_secret=new, sealed_old_secret=old, old_secret_until=until)
        before = len(receiver.calls)
        notifier.deliver(endpoint.id)
        for call in receiver.calls[before:]:
            Webhook(held_by_receiver).verify(call.body, call.headers)
    assert len(receiver.calls) == 100


def test_a_delivery_whose_event_is_no_longer_kept_is_dead(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    (delivery,) = world.due(endpoint)
    with world.engine.begin() as db:
        db.execute(text("delete from event where workspace_id = :w"), {"w": world.workspace})
    world.notifier().deliver(endpoint.id)
    assert world.delivery(delivery).state == "dead"
    assert receiver.calls == []


def test_an_unreadable_secret_delivers_nothing_and_loses_nothing(world: World, receiver: Receiver) -> None:
    endpoint = world.endpoint(receiver.url)
    world.change(endpoint, sealed_secret=b"not sealed")
    (delivery,) = world.due(endpoint)
    assert world.notifier().deliver(endpoint.id) is False
    row = world.delivery(delivery)
    assert (row.state, row.tries, receiver.calls) == ("pending", 0, [])
    assert seconds_until(row.due_at) > 50


def test_a_connection_that_the_receiver_closed_meanwhile_costs_no_try(world: World, receiver: Receiver) -> None:
    receiver.answers += [status(200, Connection="close")]
    endpoint = world.endpoint(receiver.url)
    notifier = world.notifier()
    (first,) = world.due(endpoint)
    notifier.deliver(endpoint.id)
    (second,) = world.due(endpoint)
    notifier.deliver(endpoint.id)
    assert world.states([first, second]) == ["delivered", "delivered"]
    assert world.delivery(second).tries == 1


def test_nobody_listening_is_a_failure_with_a_reason(world: World) -> None:
    with receiving() as gone:
        url = gone.url
    endpoint = world.endpoint(url)
    (delivery,) = world.due(endpoint)
    world.notifier().deliver(endpoint.id)
    attempt = world.delivery(delivery).attempts[0]
    assert (attempt["status"], attempt["error"]) == (None, "ConnectionRefusedError: Connection refused")


def test_a_request_that_failed_is_kept_to_two_kilobytes(world: World, receiver: Receiver) -> None:
    receiver.default = status(500)
    endpoint = world.endpoint(receiver.url, max_batch=20)
    (first, *_) = world.due(endpoint, 20)
    world.notifier().deliver(endpoint.id)
    (attempt,) = world.delivery(first).attempts
    (call,) = receiver.calls
    assert len(call.body) > 2048
    assert attempt["request"]["body"] == call.body.decode()[:2048]
    assert attempt["request"]["signature"] == call.headers["webhook-signature"]


@pytest.mark.parametrize("max_batch", [1, 3])
def test_an_endpoint_gets_no_more_requests_in_a_second_than_it_may(
    world: World, receiver: Receiver, max_batch: int
) -> None:
    endpoint = world.endpoint(receiver.url, max_per_second=20, max_batch=max_batch)
    deliveries = world.due(endpoint, 30 * max_batch)
    workers = [world.notifier(), world.notifier()]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            list(pool.map(lambda notifier: notifier.deliver(endpoint.id), workers))
            if len(receiver.calls) == 30:
                break
            world.make_due(endpoint)
    assert set(world.states(deliveries)) == {"delivered"}
    came = sorted(call.at for call in receiver.calls)
    assert len(came) == 30
    assert all(later - earlier > 0.9 for earlier, later in zip(came, came[21:], strict=False))
