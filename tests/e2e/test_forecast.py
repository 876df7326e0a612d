"""The forecast of an explanation against what came true, with real workers and a mailer that is paced."""

import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.conftest import Stack
from tests.e2e.outside import Client

pytestmark = pytest.mark.stack

MAILS = 360
PER_SECOND = 60
ASKED_EVERY = 30
"""One in so many is asked about."""
ASK_SECONDS = 0.5
LEAST_SECONDS = 1.5
"""What is nearer than this is sent before anybody could have used the forecast."""


@pytest.fixture(scope="module")
def client(stack: Stack) -> Client:
    return Client(stack=stack)


@pytest.fixture
def paced(client: Client) -> Iterator[str]:
    """A mailer to the inbox that may send only so many a second."""
    host, _, port = client.stack.json["inbox"]["smtp"].partition(":")
    body = {
        "provider": "smtp", "name": "paced", "from": ["slow@demo.test"], "caps": {"per_second": PER_SECOND},
        "credentials": {"host": host, "port": int(port), "security": "none"},
    }  # fmt: skip
    mailer_id = client.post("/v1/mailers", body).json()["id"]
    yield mailer_id
    client.call("DELETE", f"/v1/mailers/{mailer_id}")


def forecasts(client: Client, ref_id: str, ids: list[str], mails: int) -> list[tuple[str, datetime, float]]:
    """Message, when it was said to be sent, and in how many seconds; asked again and again until all is sent."""
    made = []
    deadline = time.monotonic() + 10 + 2 * mails / PER_SECOND
    while client.get(f"/v1/submissions/{ref_id}")["finished_at"] is None and time.monotonic() < deadline:
        for id_ in ids:
            asked = client.call("GET", f"/v1/messages/{id_}/explain")
            found: dict[str, Any] = asked.json()
            if found["eta"]:
                at = datetime.fromisoformat(found["eta"]["at"])
                made.append((id_, at, found["eta"]["seconds"]))
        time.sleep(ASK_SECONDS)
    return made


def errors(client: Client, mailer_id: str, mails: int) -> list[float]:
    """Of each forecast, how far it was off, as a share of the time that really passed."""
    recipients = [f"queue-{number}@example.com" for number in range(mails)]
    body = client.mailer_body(*recipients, mailer_id=mailer_id, **{"from": {"email": "slow@demo.test"}})
    ref_id = client.send(body).json()["ref_id"]
    rows = client.get("/v1/messages", ref_id=ref_id, limit=500)["data"]
    made = forecasts(client, ref_id, [row["id"] for row in rows[::ASKED_EVERY]], mails)
    found = []
    for id_, said, seconds in made:
        finished = datetime.fromisoformat(client.get(f"/v1/messages/{id_}")["finished_at"])
        took = seconds - (said - finished).total_seconds()
        if took >= LEAST_SECONDS:
            found.append(abs((said - finished).total_seconds()) / took)
    return found


def test_a_paced_backlog_is_forecast_within_a_fifth(client: Client, paced: str) -> None:
    found = errors(client, paced, MAILS)
    assert len(found) >= 6
    assert statistics.median(found) <= 0.20, sorted(found)
