"""What is asked all day costs no more when the tables are large: every time is looked up in an index."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, TextClause, text

from models.base import uuid7
from models.database import connect, fetch
from worker import beat, lease, queues

WINDOW = {"window": timedelta(seconds=10)}
LANE = {
    "mailer_id": uuid7(),
    "priority": 0,
    "version": "1",
    "worker": "w",
    "batch": 100,
    "suspects": lease.SUSPECTS,
    "queue": "send.normal",
    "lease": WINDOW["window"],
}
ASKED: dict[str, tuple[TextClause, dict[str, Any]]] = {
    "rates of the queues that send": (queues._SEND_RATES, WINDOW),
    "the follow-up": (queues._FOLLOWUP, WINDOW),
    "the webhooks": (queues._WEBHOOKS, WINDOW),
    "old keys": (beat._HOUSEKEEPING[0], {}),
    "old samples": (beat._HOUSEKEEPING[4], {}),
}
LARGE = ("email_log_2", "webhook_delivery", "submission", "idempotency_key", "queue_sample", "message")


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = connect(database_url, pool_size=1, application="test plans")
    with engine.connect() as opened:
        # An empty table is read through whatever its indexes are, unless that is said to be dear.
        opened.execute(text("set enable_seqscan = off"))
        yield opened
    engine.dispose()


def plan(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> str:
    return "\n".join(connection.execute(text(f"explain {statement.text}"), values).scalars())


@pytest.mark.parametrize("what", ASKED)
def test_no_large_table_is_read_through_for_its_last_seconds(connection: Connection, what: str) -> None:
    statement, values = ASKED[what]
    shown = plan(connection, statement, values)
    assert [table for table in LARGE if f"Seq Scan on {table}" in shown] == []


def test_a_lane_is_not_read_through_to_what_is_scheduled_in_it(connection: Connection) -> None:
    lines = [row[0].strip() for row in fetch(connection, f"explain {lease._CLAIM}", LANE)]
    conditions = [line for line in lines if line.startswith("Index Cond") and "due_at <=" in line]
    assert len(conditions) == 2, lines
