"""The dashboard in this process, on a real database, with people logged in."""

import re
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.auth import SCOPES, issue_key
from api_shim.services import Services
from models.base import uuid7
from models.content import Address, Content
from models.message import Message, State, Submission
from tests.api_shim.conftest import Tenant, api, app_services, other_tenant, session, settings, tenant
from tests.api_shim.record_rows import add_mailer

__all__ = ["api", "app_services", "other_tenant", "session", "settings", "tenant"]


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
        content=mail.to_json(), total=1, awaited=False,
    )  # fmt: skip
    session.add(submission)
    session.flush()
    id_ = uuid7()
    values = {
        "state": State.QUEUED,
        "recipients": ["grace@example.com"],
        "rfc_message_id": f"<postroad{id_}@mail.test>",
    }
    row = Message(
        id=id_, workspace_id=tenant.workspace_id, submission_id=submission.id, mailer_id=mailer_id, priority=0,
        **(values | columns),
    )  # fmt: skip
    session.add(row)
    session.commit()
    return id_
