"""The pages of the queues: their figures, their workers, their sums, and stopping one."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from models.base import uuid7
from models.message import UNTIL_SOMEBODY_ACTS, Lease, State
from tests.api_shim.conftest import Tenant, as_caller
from tests.api_shim.record_rows import add_mailer
from tests.ops.conftest import Browser, add_message, fresh
from worker.beat import Ticker
from worker.queues import COUNTS, queue_depths
from worker.runtime import Runtime
from worker.settings import Settings


@pytest.fixture(autouse=True)
def _runs_again(session: Session) -> Iterator[None]:
    yield
    for statement in ("delete from queue_pause", "delete from lease", "delete from worker_heartbeat"):
        session.execute(text(statement))
    done = "update message set due_at = null, state = 'cancelled', finished_at = now() where finished_at is null"
    session.execute(text(done))
    session.commit()


def _some_mail(session: Session, tenant: Tenant) -> None:
    """Two ready, one scheduled, one that waits for a retry, one parked, one uncertain, two in hand."""
    now = datetime.now(UTC)
    mailer_id = add_mailer(session, tenant)
    later = now + timedelta(hours=1)
    for columns in (
        {"due_at": now},
        {"due_at": now},
        {"due_at": later},
        {"due_at": later, "tries": 1},
        {"due_at": UNTIL_SOMEBODY_ACTS},
        {"due_at": later, "state": State.UNCERTAIN},
    ):
        add_message(session, tenant, mailer_id=mailer_id, **columns)
    held = [add_message(session, tenant, mailer_id=mailer_id, state=State.CLAIMED, lease_id=88) for _ in range(2)]
    session.add(
        Lease(
            id=88,
            worker="mill:7",
            mailer_id=mailer_id,
            priority=0,
            message_ids=held,
            expires_at=now + timedelta(minutes=1),
        )
    )
    session.execute(text("insert into worker_heartbeat (name, queues, lock_key) values ('mill:7', '{send.normal}', 1)"))
    session.commit()


def _shown(page: str, queue: str) -> dict[str, int]:
    found = re.findall(rf'data-live="{re.escape(queue)}/(\w+)">([^<]*)<', page)
    return {name: int(re.sub(r"\D", "", value) or 0) for name, value in found}


def test_the_page_shows_what_the_api_and_the_metrics_say(
    operator: Browser, session: Session, tenant: Tenant, api: TestClient, settings: Settings
) -> None:
    """The metrics say what the beat measured last, the others what is there now: measured now, they are the same."""
    _some_mail(session, tenant)
    runtime = Runtime(settings, application="test beat")
    session.execute(text("delete from queue_sample"))
    session.commit()
    Ticker(runtime).sample()
    runtime.close()
    page = operator.get("/ops/queues").text
    said = as_caller(api, tenant.key).get("/v1/ops/queues").json()["queues"]
    metrics = api.get("/metrics").text
    for queue in said:
        shown = _shown(page, queue)
        assert {name: shown[name] for name in COUNTS} == {name: said[queue][name] for name in COUNTS}
        for name in COUNTS:
            value = re.search(rf'postroad_queue_depth\{{lane="{queue}",state="{name}"\}} (\S+)', metrics)
            assert value is not None, name
            assert float(value[1]) == said[queue][name]
    counts = [
        said["send.normal"][name]
        for name in ("ready", "scheduled", "retry_waiting", "parked", "uncertain", "in_flight")
    ]
    assert counts == [2, 3, 1, 1, 1, 2]
    assert "batch 88: 2 mails of send.normal" in page
    assert "mill" in page


def test_a_queue_adds_up_to_its_rows_or_says_what_is_lost(operator: Browser, session: Session, tenant: Tenant) -> None:
    _some_mail(session, tenant)
    assert _shown(operator.get("/ops/queues/send.normal").text, "send.normal")["open"] == 8
    assert "It adds up: 8 open rows, 6 waiting and 2 in hand." in operator.get("/ops/queues/send.normal?check=1").text
    session.execute(text("delete from lease"))
    session.commit()
    page = operator.get("/ops/queues/send.normal?check=1").text
    assert "It does not add up" in page
    assert "Orphaned: 2." in page
    assert "Taken back: 2 mails." in operator.act("/ops/queues/send.normal/requeue", back="/ops/queues/send.normal")
    assert "It adds up: 8 open rows, 8 waiting and 0 in hand." in operator.get("/ops/queues/send.normal?check=1").text


@pytest.mark.parametrize("queue", ["send.high", "send.normal", "followup", "webhooks"])
def test_a_queue_is_paused_and_resumed_and_every_page_says_so(operator: Browser, session: Session, queue: str) -> None:
    page = operator.act(f"/ops/queues/{queue}/pause", back=f"/ops/queues/{queue}", reason="the relay moves")
    assert f"{queue} is paused" in page
    assert "the relay moves" in page
    assert f"{queue} is paused" in operator.get("/ops").text
    assert "paused for" in operator.get("/ops/queues").text
    assert queue_depths(session)[queue]["paused"] is True
    assert "goes on" in operator.act(f"/ops/queues/{queue}/resume", back=f"/ops/queues/{queue}")
    session.rollback()
    assert queue_depths(session)[queue]["paused"] is False


def test_who_may_only_look_cannot_stop_a_queue(reader: Browser, session: Session) -> None:
    assert "Pause</button>" not in reader.get("/ops/queues/send.high").text
    token = reader.token()
    assert reader.post("/ops/queues/send.high/pause", csrf=token, back="/ops/queues").status_code == 403
    assert queue_depths(session)["send.high"]["paused"] is False


def test_a_queue_that_is_none_is_no_page(operator: Browser) -> None:
    assert operator.get("/ops/queues/nonsense").status_code == 404
    assert "no such thing" in operator.act("/ops/queues/nonsense/pause")


def test_many_mails_are_counted_and_then_cancelled(operator: Browser, session: Session, tenant: Tenant) -> None:
    name = f"spring-{uuid7()}"
    due = datetime.now(UTC) + timedelta(hours=1)
    meant = [add_message(session, tenant, campaign_id=name, due_at=due) for _ in range(3)]
    spared = add_message(session, tenant, due_at=due)
    page = operator.get(f"/ops/messages?campaign={name}&preview=cancel").text
    assert "3 mails can still be cancelled" in page
    assert "Cancel for good: 3" in page
    assert "Cancelled for good: 3 mails of 3." in operator.act("/ops/messages/many", order="cancel", campaign=name)
    assert {fresh(session, id_).state for id_ in meant} == {State.CANCELLED}
    assert fresh(session, spared).state == State.QUEUED
    assert "which mails are meant" in operator.act("/ops/messages/many", order="cancel")
    assert fresh(session, spared).state == State.QUEUED


def test_a_mail_is_sent_anew_from_its_page(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_message(session, tenant, state=State.CANCELLED, finished_at=datetime.now(UTC), reason="by hand")
    page = operator.get(f"/ops/messages/{message_id}").text
    assert "It was cancelled before it was sent: by hand." in page
    page = operator.act(f"/ops/messages/{message_id}/redeliver", back="/ops/messages")
    found = re.search(r"as a new message, ([0-9a-f-]{36})", page)
    assert found is not None
    copy, first = fresh(session, UUID(found[1])), fresh(session, message_id)
    assert (copy.recipients, copy.state, copy.tries) == (first.recipients, State.QUEUED, 0)
    assert copy.rfc_message_id != first.rfc_message_id
