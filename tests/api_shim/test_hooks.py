"""Where providers report: who is let in, what is stored, what is answered."""

import hashlib
import hmac
import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.base import uuid7
from models.event import ProviderReport
from models.mailer import Mailer
from tests.api_shim.conftest import Tenant
from worker.mailers import mailer_purpose

DELIVERY = {
    "RecordType": "Delivery",
    "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
    "Recipient": "ann@example.com",
    "DeliveredAt": "2026-11-21T10:00:03Z",
    "Metadata": {"ref": "0" * 32},
}


def _mailer(
    session: Session, services: Services, tenant: Tenant, provider: str = "postmark", **credentials: str
) -> Mailer:
    id_ = uuid7()
    mailer = Mailer(
        id=id_, workspace_id=tenant.workspace_id, provider=provider, name="m", from_addresses=[], domains=[],
        sealed_credentials=services.vault.seal(mailer_purpose(id_), credentials), hook_token=f"token-{id_}",
    )  # fmt: skip
    session.add(mailer)
    session.commit()
    return mailer


def _stored(session: Session, mailer: Mailer) -> list[ProviderReport]:
    session.rollback()
    return session.query(ProviderReport).filter_by(mailer_id=mailer.id).all()


@pytest.fixture
def postmark(session: Session, app_services: Services, tenant: Tenant) -> Mailer:
    return _mailer(session, app_services, tenant, server_token="s", hook_secret="sesame")


def test_a_call_with_the_right_password_is_stored_as_it_came(
    api: TestClient, session: Session, postmark: Mailer
) -> None:
    body = json.dumps(DELIVERY, indent=3).encode()
    answer = api.post(f"/v1/hooks/postmark/{postmark.hook_token}", content=body, auth=("x", "sesame"))
    assert (answer.status_code, answer.json()) == (200, {"status": "stored"})
    [report] = _stored(session, postmark)
    assert (report.body, report.workspace_id, report.is_inbound) == (body, postmark.workspace_id, False)
    assert report.due_at is not None


@pytest.mark.parametrize("auth", [None, ("x", "wrong"), ("sesame", "")])
def test_a_wrong_password_is_401_and_nothing_is_stored(
    api: TestClient, session: Session, postmark: Mailer, auth: tuple[str, str] | None
) -> None:
    path = f"/v1/hooks/postmark/{postmark.hook_token}"
    answer = api.post(path, json=DELIVERY, auth=auth) if auth else api.post(path, json=DELIVERY)
    assert answer.status_code == 401
    assert _stored(session, postmark) == []


@pytest.mark.parametrize(
    ("provider", "token"),
    [
        ("postmark", "nobody"),
        ("mailgun", "{token}"),
        ("nosuch", "{token}"),
        ("postmark", "{token}x"),
        ("postmark", "%00"),
        ("postmark", "%ED%A0%80"),
        ("%00", "{token}"),
        ("postmark", "a" * 5000),
    ],
)
def test_an_unknown_token_or_another_provider_is_404(
    api: TestClient, session: Session, postmark: Mailer, provider: str, token: str
) -> None:
    path = f"/v1/hooks/{provider}/{token.format(token=postmark.hook_token)}"
    assert api.post(path, json=DELIVERY, auth=("x", "sesame")).status_code == 404
    assert _stored(session, postmark) == []


def test_a_mailer_whose_credentials_do_not_open_asks_the_provider_to_report_later(
    api: TestClient, session: Session, postmark: Mailer
) -> None:
    postmark.sealed_credentials = b"sealed with a key that is gone"
    session.commit()
    answer = api.post(f"/v1/hooks/postmark/{postmark.hook_token}", json=DELIVERY, auth=("x", "sesame"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert _stored(session, postmark) == []


def test_a_deleted_mailer_has_no_hook(api: TestClient, session: Session, postmark: Mailer) -> None:
    token = postmark.hook_token
    postmark.deleted_at = datetime.now(UTC)
    session.commit()
    assert api.post(f"/v1/hooks/postmark/{token}", json=DELIVERY, auth=("x", "sesame")).status_code == 404


@pytest.mark.parametrize("body", [{**DELIVERY, "Metadata": "x"}, {**DELIVERY, "DeliveredAt": "soon"}])
def test_a_body_of_the_wrong_shape_is_400(
    api: TestClient, session: Session, postmark: Mailer, body: dict[str, Any]
) -> None:
    answer = api.post(f"/v1/hooks/postmark/{postmark.hook_token}", json=body, auth=("x", "sesame"))
    assert answer.status_code == 400
    assert _stored(session, postmark) == []


def test_a_provider_without_hooks_refuses_every_call(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant
) -> None:
    mailer = _mailer(session, app_services, tenant, "smtp", host="127.0.0.1", port="25", security="none")
    assert api.post(f"/v1/hooks/smtp/{mailer.hook_token}", json={}).status_code == 401


def test_a_call_about_nothing_is_answered_and_not_stored(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant
) -> None:
    mailer = _mailer(session, app_services, tenant, "sparkpost", api_key="k")
    assert api.post(f"/v1/hooks/sparkpost/{mailer.hook_token}", json=[{"msys": {}}]).status_code == 200
    assert _stored(session, mailer) == []


def test_a_signed_mailgun_event_passes_and_a_changed_one_does_not(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant
) -> None:
    mailer = _mailer(session, app_services, tenant, "mailgun", api_key="k", domain="mg.demo.test", signing_key="sign")
    call = _signed(b"sign")
    path = f"/v1/hooks/mailgun/{mailer.hook_token}"
    assert api.post(path, json=call).status_code == 200
    assert api.post(path, json={**call, "event-data": {**call["event-data"], "event": "complained"}}).status_code == 401
    assert api.post(path, json=_signed(b"other")).status_code == 401
    assert api.post(path, json=_signed(b"sign", age=100_000)).status_code == 401
    assert len(_stored(session, mailer)) == 1


def _signed(key: bytes, age: float = 0.0) -> dict[str, Any]:
    timestamp, token = str(int(time.time() - age)), secrets.token_hex(25)
    signature = hmac.new(key, f"{timestamp}{token}".encode(), hashlib.sha256).hexdigest()
    data = {"id": token, "event": "delivered", "timestamp": time.time(), "recipient": "ann@example.com"}
    return {"signature": {"timestamp": timestamp, "token": token, "signature": signature}, "event-data": data}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_graph_gets_its_validation_token_back_as_plain_text(api: TestClient, method: str) -> None:
    answer = api.request(method, "/v1/hooks/microsoft365/any", params={"validationToken": "<b>hello</b> & more"})
    assert (answer.status_code, answer.text) == (200, "<b>hello</b> & more")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_other_providers_echo_nothing(api: TestClient, postmark: Mailer) -> None:
    answer = api.get(f"/v1/hooks/postmark/{postmark.hook_token}", params={"validationToken": "hello"})
    assert answer.status_code == 405


def test_a_mail_that_came_in_may_be_larger_than_other_bodies(
    api: TestClient, session: Session, postmark: Mailer
) -> None:
    inbound = {"FromFull": {"Email": "bob@client.test"}, "MessageID": "1", "TextBody": "x" * 3_000_000, "Headers": []}
    answer = api.post(f"/v1/hooks/postmark/{postmark.hook_token}", json=inbound, auth=("x", "sesame"))
    assert answer.status_code == 200
    assert [report.is_inbound for report in _stored(session, postmark)] == [True]
