"""What the API writes to its log: ids to search for, and nobody's data."""

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs


def test_everything_logged_in_a_request_carries_its_id_and_no_address(client: TestClient, session: Session) -> None:
    session.execute(text("alter table contact rename to contact_away"))
    session.commit()
    try:
        with capture_logs(processors=[merge_contextvars]) as lines:
            answer = client.put(
                "/v1/contacts/01a1fec3-7eb2-72ae-a518-539f94656bf3",
                json={"email": "grace@example.com", "name": "Grace Hopper"},
                headers={"X-Request-ID": "search-for-me"},
            )
    finally:
        session.execute(text("alter table contact_away rename to contact"))
        session.commit()
    assert answer.status_code == 500
    (line,) = [line for line in lines if line["event"] == "request_failed"]
    assert line["request_id"] == "search-for-me"
    shown = structlog.processors.JSONRenderer()(None, "", {**line, "exc_info": str(line["exc_info"])})
    assert "grace" not in str(shown).lower()


def test_a_request_does_not_log_under_the_id_of_the_one_before(client: TestClient) -> None:
    client.get("/livez", headers={"X-Request-ID": "first"})
    assert "request_id" not in structlog.contextvars.get_contextvars()
