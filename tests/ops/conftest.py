"""The dashboard in this process, on a real database, with people logged in."""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.auth import SCOPES, issue_key
from api_shim.services import Services
from models.base import uuid7
from models.content import Address, Content
from models.message import UNTIL_SOMEBODY_ACTS, Message, State, Submission
from models.webhook import WebhookEndpoint
from tests.api_shim.conftest import Tenant, api, app_services, dns, other_tenant, session, settings, tenant
from tests.api_shim.record_rows import add_log, add_mailer

__all__ = ["api", "app_services", "dns", "other_tenant", "session", "settings", "tenant"]


HELD: dict[str, Any] = {"state": State.UNCERTAIN, "due_at": UNTIL_SOMEBODY_ACTS, "reason": "held: nobody knows"}
"""Columns of a message that waits for a decision."""


class Browser:
    """A client with cookies that follows no redirect, and fills in the hidden fields of forms."""

    def __init__(self, api: TestClient) -> None:
        self.client = TestClient(api.app, raise_server_exceptions=False, follow_redirects=False)

    def log_in(self, key: str, target: str = "/ops") -> Any:
        return self.post("/ops/login", key=key, next=target)

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def post(
        self, path: str, *, headers: dict[str, str] | None = None, fields: dict[str, str] | None = None, **more: str
    ) -> Any:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.client.post(path, content=urlencode({**(fields or {}), **more}), headers=kind | (headers or {}))

    def act(self, path: str, *, back: str = "/ops", **fields: str) -> str:
        """Sends a form with the session's token; returns the page it leads back to."""
        answer = self.post(path, fields={"csrf": self.token(), "back": back, **fields})
        assert (answer.status_code, answer.headers["location"]) == (303, back)
        return str(self.get(back).text)

    def token(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get("/ops/suppressions").text)
        assert found is not None
        return found[1]


@pytest.fixture
def browser(api: TestClient) -> Browser:
    """Somebody who is not logged in."""
    return Browser(api)


@pytest.fixture
def operator(browser: Browser, tenant: Tenant) -> Browser:
    """Somebody who may do everything in the fresh workspace."""
    assert browser.log_in(tenant.key).status_code == 303
    return browser


def new_key(services: Services, workspace_id: UUID, *scopes: str, **columns: Any) -> tuple[UUID, str]:
    with services.sessions() as session:
        key, text = issue_key(
            session,
            workspace_id=workspace_id,
            name="look",
            scopes=scopes or SCOPES,
            pepper=services.peppers[0],
            **columns,
        )
        session.commit()
        return key.id, text


@pytest.fixture
def reader(api: TestClient, app_services: Services, tenant: Tenant) -> Browser:
    """Somebody who may only look."""
    looking = Browser(api)
    _, key = new_key(app_services, tenant.workspace_id, "ops:read")
    assert looking.log_in(key).status_code == 303
    return looking


def add_message(session: Session, tenant: Tenant, *, content: dict[str, Any] | None = None, **columns: Any) -> UUID:
    """A message as intake and worker leave it; by default held because nobody knows its fate."""
    mailer_id = columns.pop("mailer_id", None) or add_mailer(session, tenant)
    values: dict[str, Any] = {"subject": "Offer", "html": "<p>Good <b>day</b></p>", "text": "Good day"}
    mail = Content(sender=Address("hello@mail.test"), individual=True, personalised=False, **(values | (content or {})))
    submission = Submission(
        id=uuid7(), workspace_id=tenant.workspace_id, shape="mailer", priority=0, mailer_id=mailer_id,
        campaign_id=columns.pop("campaign_id", "NIL"), request_id=columns.pop("request_id", None),
        content=orjson.loads(orjson.dumps(mail.filled())), total=1, awaited=False,
    )  # fmt: skip
    session.add(submission)
    session.flush()
    id_ = uuid7()
    values = {
        "state": State.QUEUED,
        "recipients": ["grace@example.com"],
        "rfc_message_id": f"<postroad{id_}@mail.test>",
        "created_at": min(datetime.now(UTC), columns.get("due_at") or datetime.now(UTC)),
    }
    row = Message(
        id=id_, workspace_id=tenant.workspace_id, submission_id=submission.id, mailer_id=mailer_id, priority=0,
        **(values | columns),
    )  # fmt: skip
    session.add(row)
    session.commit()
    return id_


def fresh(session: Session, message_id: UUID) -> Message:
    session.expire_all()
    return session.get_one(Message, message_id)


def add_failed(session: Session, tenant: Tenant, **columns: Any) -> UUID:
    """A refused message and its log row."""
    attempts = [
        {"at": datetime.now(UTC).isoformat(), "outcome": "permanent", "code": "550", "detail": "No such mailbox"}
    ]
    message_id = add_message(
        session,
        tenant,
        **{"state": State.FAILED, "tries": 1, "attempts": attempts, "finished_at": datetime.now(UTC), **columns},
    )
    row = session.get_one(Message, message_id)
    add_log(
        session, tenant, message_id=message_id, submission_id=row.submission_id, status=row.state,
        recipient_email=row.recipients[0], recipients=row.recipients, rfc_message_id=row.rfc_message_id,
        provider_message_id=row.provider_message_id, mailer_id=row.mailer_id,
    )  # fmt: skip
    return message_id


def add_endpoint(session: Session, tenant: Tenant, **columns: Any) -> UUID:
    values = {"url": "https://hooks.example.com/", "events": ["*"], "sealed_secret": b""}
    row = WebhookEndpoint(id=uuid7(), workspace_id=tenant.workspace_id, **(values | columns))
    session.add(row)
    session.commit()
    return row.id
