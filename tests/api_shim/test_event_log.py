"""The event log under eight writers: no cursor skips an event, and who missed webhooks catches up by it."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.base import uuid7
from models.event import EventType
from models.message import State
from tests.api_shim.conftest import Tenant
from worker.events import NewEvent, append_events

WRITERS = 8
STORY = (
    (EventType.ACCEPTED, State.SENT), (EventType.DELIVERED, State.DELIVERED), (EventType.OPENED, State.DELIVERED),
    (EventType.BOUNCED, State.BOUNCED), (EventType.COMPLAINED, State.COMPLAINED),
)  # fmt: skip


def _story(tenant: Tenant, length: int) -> list[NewEvent]:
    """What happened to one message."""
    message = uuid7()
    return [
        NewEvent(workspace_id=tenant.workspace_id, type=type_, at=datetime.now(UTC), message_id=message, state=state)
        for type_, state in STORY[:length]
    ]


def _write(services: Services, tenant: Tenant, seed: int) -> int:
    """Appends batches in transactions that dawdle, some of which never commit. Returns how many events did."""
    dice, written = random.Random(seed), 0
    for _ in range(12):
        batch = _story(tenant, dice.randint(1, len(STORY)))
        with services.engine.connect() as connection:
            append_events(connection, batch)
            time.sleep(dice.random() * 0.004)
            if dice.random() < 0.25:
                connection.rollback()
            else:
                connection.commit()
                written += len(batch)
    return written


def _catch_up(client: TestClient, after: str, limit: int = 7) -> tuple[list[dict[str, Any]], str]:
    found: list[dict[str, Any]] = []
    while page := client.get("/v1/events", params={"after": after, "limit": limit}).json():
        after = page["next_cursor"]
        if not page["data"]:
            return found, after
        found += page["data"]
    raise AssertionError("an answer is never empty")


def test_a_reader_beside_eight_writers_skips_no_event(
    client: TestClient, app_services: Services, tenant: Tenant
) -> None:
    seen: list[dict[str, Any]] = []
    after, done = "0", threading.Event()

    def read() -> None:
        nonlocal after
        while not done.is_set():
            found, after = _catch_up(client, after)
            seen.extend(found)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(WRITERS) as pool:
        written = sum(pool.map(lambda seed: _write(app_services, tenant, seed), range(WRITERS)))
    done.set()
    reader.join()
    seen += _catch_up(client, after)[0]
    assert [event["cursor"] for event in seen] == list(range(1, written + 1))
    assert len({event["id"] for event in seen}) == written


class Receiver:
    """A client's own copy: of each message the state of the latest event, by its number within the message."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[int, str]] = {}
        self.known: set[str] = set()

    def take(self, event: dict[str, Any]) -> None:
        self.known.add(event["id"])
        message = event["message"]
        self.latest[message] = max(self.latest.get(message, (0, "")), (event["sequence"], event["state"]))


@pytest.fixture
def log(client: TestClient, app_services: Services, tenant: Tenant, session: Session) -> list[dict[str, Any]]:
    """Everything that eight writers wrote about their messages, as webhooks carry it."""
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda seed: _write(app_services, tenant, seed + 100), range(WRITERS)))
    rows = session.connection().exec_driver_sql("select id::text, message_id::text from event").all()
    messages = {row[0]: row[1] for row in rows}  # a body names the Message-ID, which these messages have none of
    return [{**event, "message": messages[event["id"]]} for event in _catch_up(client, "0")[0]]


@given(seed=st.integers(0, 2**32), lost=st.floats(0.0, 0.6), missed_from=st.floats(0.0, 1.0))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_arrives_in_whatever_order_the_cursor_makes_the_receiver_equal(
    log: list[dict[str, Any]], seed: int, lost: float, missed_from: float
) -> None:
    dice = random.Random(seed)
    # At least 30 % are lost; the others come shuffled and some of them repeatedly.
    arriving = [event for event in log if dice.random() >= max(lost, 0.3) for _ in range(dice.choice((1, 1, 1, 2, 5)))]
    dice.shuffle(arriving)
    receiver = Receiver()
    for event in arriving:
        receiver.take(event)
    # It reads the log from a cursor up to which it has everything; webhooks go on arriving meanwhile.
    have = {event["cursor"] for event in arriving}
    complete = next(cursor for cursor in range(len(log) + 1) if cursor + 1 not in have)
    for event in log[int(complete * missed_from) :]:
        receiver.take(event)
    for event in dice.sample(arriving, len(arriving) // 2):
        receiver.take(event)
    whole = Receiver()
    for event in log:
        whole.take(event)
    assert (receiver.latest, receiver.known) == (whole.latest, whole.known)
    assert {state for _, state in whole.latest.values()} <= {state.value for _, state in STORY}
