"""A paused queue: nothing of it is taken in hand, whatever kind of work it is, until it is resumed."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from models.base import uuid7
from models.message import Priority
from models.webhook import WebhookDelivery, WebhookEndpoint
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker.bell import FOLLOWUP_QUEUE, WEBHOOK_QUEUE, send_lane
from worker.notify import SECRET_PURPOSE, new_secret
from worker.orphans import reconcile, requeue
from worker.standstill import pause, paused, resume


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(database_url, redis_url, webhook_allowed_hosts="127.0.0.1"), server)
        opened.runtime.redis.flushall()
        yield opened
        with opened.runtime.engine.begin() as db:
            db.execute(text("delete from queue_pause"))
        opened.close()


def _pause(house: House, queue: str, reason: str | None = None) -> None:
    with house.runtime.engine.begin() as db:
        pause(db, queue, reason)


def _resume(house: House, queue: str) -> None:
    with house.runtime.engine.begin() as db:
        resume(db, queue)


def test_mail_of_a_paused_queue_stays_where_it_is_and_goes_when_it_is_resumed(house: House) -> None:
    accepted = house.submit("grace@example.com")
    _pause(house, "send.normal")
    assert house.deliver() == 0
    assert house.message(accepted).state == "queued"
    _resume(house, "send.normal")
    assert house.deliver() == 1


def test_the_other_queues_go_on(house: House) -> None:
    accepted = house.submit("grace@example.com", priority=Priority.HIGH)
    _pause(house, "send.normal")
    house.deliver_all(priority=Priority.HIGH)
    assert house.message(accepted).state == "sent"


def test_nobody_rings_for_a_paused_queue(house: House) -> None:
    house.submit("grace@example.com")
    _pause(house, "send.normal")
    house.tick()
    lane = send_lane(house.mailer_id, 0)
    assert not house.runtime.redis.exists(lane.key)
    _resume(house, "send.normal")
    house.tick()
    assert house.runtime.redis.exists(lane.key)


def test_a_paused_followup_writes_no_log_until_it_is_resumed(house: House) -> None:
    accepted = house.submit("grace@example.com")
    house.deliver_all()
    _pause(house, FOLLOWUP_QUEUE)
    house.record_all()
    logged = "select count(*) from email_log where message_id = :id"
    assert house.scalar(logged, id=house.message(accepted).id) == 0
    _resume(house, FOLLOWUP_QUEUE)
    house.record_all()
    assert house.scalar(logged, id=house.message(accepted).id) == 1


def test_paused_webhooks_are_not_posted(house: House) -> None:
    endpoint_id = uuid7()
    sealed = house.runtime.vault.seal(SECRET_PURPOSE.format(id=endpoint_id), {"secret": new_secret()})
    with house.session() as session:
        session.add(
            WebhookEndpoint(
                id=endpoint_id, workspace_id=house.workspace_id, url="http://127.0.0.1:9/", events=["*"],
                sealed_secret=sealed,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            WebhookDelivery(
                id=uuid7(), workspace_id=house.workspace_id, endpoint_id=endpoint_id, event_id=uuid7(),
                due_at=datetime.now(UTC),
            )
        )  # fmt: skip
        session.commit()
    _pause(house, WEBHOOK_QUEUE)
    house.runtime.notifier.deliver(endpoint_id)
    claimed = "select token from webhook_delivery where endpoint_id = :id"
    assert house.scalar(claimed, id=endpoint_id) == 0
    _resume(house, WEBHOOK_QUEUE)
    house.runtime.notifier.deliver(endpoint_id)
    assert house.scalar(claimed, id=endpoint_id) == 1


def test_a_second_pause_changes_the_reason_alone(house: House) -> None:
    _pause(house, "send.high", "the relay moves")
    with house.runtime.engine.connect() as db:
        since = paused(db)["send.high"].paused_at
    _pause(house, "send.high", "it moves again")
    with house.runtime.engine.connect() as db:
        found = paused(db)["send.high"]
    assert (found.reason, found.paused_at) == ("it moves again", since)


def test_what_nothing_leads_to_is_counted_and_put_back(house: House) -> None:
    """As after a restore in which the leases are missing: claimed mail is queued, what was on the wire is doubtful."""
    with house.runtime.engine.begin() as db:
        db.execute(
            text("update message set due_at = null, state = 'cancelled', finished_at = now() where state = 'queued'")
        )
    lost, doubtful, waiting = (house.submit(f"p{number}@example.com") for number in range(3))
    for accepted, state in ((lost, "claimed"), (doubtful, "sending")):
        with house.runtime.engine.begin() as db:
            change = text(
                "update message set state = cast(:state as message_state), due_at = null, lease_id = 5 where id = :id"
            )
            db.execute(change, {"state": state, "id": house.message(accepted).id})
    with house.runtime.engine.begin() as db:
        before = reconcile(db, Priority.NORMAL)
        assert (before.rows, before.waiting, before.orphaned, before.adds_up) == (3, 1, 2, False)
        assert requeue(db, Priority.NORMAL) == 2
        after = reconcile(db, Priority.NORMAL)
    assert (after.rows, after.waiting, after.orphaned, after.adds_up) == (3, 3, 0, True)
    assert [house.message(one).state for one in (lost, doubtful, waiting)] == ["queued", "uncertain", "queued"]
