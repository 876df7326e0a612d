"""POST /v1/email/send up to the stored rows: whose envelope, which faults, what is stored, and that nothing half is."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.auth import SCOPES, Caller, issue_key
from api_shim.idempotency import keep_answer
from api_shim.intake import accept
from api_shim.services import Services
from api_shim.shapes import mailer as mailer_shape
from models.access import ApiKey
from models.base import from_ulid, uuid7
from models.crm import Contact
from models.mailer import EmailConfig, Mailer, Suppression
from models.message import Message, Submission
from tests.api_shim.conftest import Tenant, as_caller
from worker.mailers import mailer_purpose


@pytest.fixture
def mailer_id(app_services: Services, tenant: Tenant) -> UUID:
    return add_mailer(app_services, tenant)


def add_mailer(services: Services, tenant: Tenant, **columns: Any) -> UUID:
    mailer_id = uuid7()
    values: dict[str, Any] = {
        "provider": "smtp", "name": "relay", "from_addresses": ["hello@demo.test"], "domains": ["demo.test"],
        "sealed_credentials": services.vault.seal(mailer_purpose(mailer_id), {"host": "127.0.0.1", "port": 9}),
        "hook_token": str(mailer_id), "is_default": True,
    }  # fmt: skip
    with services.sessions() as session:
        session.add(Mailer(id=mailer_id, workspace_id=tenant.workspace_id, **(values | columns)))
        session.commit()
    return mailer_id


def body(mailer_id: UUID, *recipients: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "from": {"email": "hello@demo.test"},
        "to": [{"email": recipient} for recipient in recipients or ("ann@example.com",)],
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "Hi"}],
        "mailer_id": str(mailer_id),
        "settings": {},
    }
    return values | changes


CRM = {"to_email": "ann@example.com", "subject": "Hello", "html_body": "<p>Hi</p>"}
MAILBOX = {"to": "ann@example.com", "subject": "Hello", "body_text": "Hi"}
AS_JSON = {"Content-Type": "application/json"}


def send(client: TestClient, content: Any, **headers: str) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/v1/email/send", json=content, headers={"Prefer": "respond-async"} | names)


def stored(session: Session, tenant: Tenant) -> Any:
    session.rollback()
    return session.execute(
        text("select count(*) from message where workspace_id = :w"), {"w": tenant.workspace_id}
    ).scalar_one()


def test_c1_c32_a_mailer_body_is_queued_and_answered_with_its_ref_id(
    client: TestClient, tenant: Tenant, mailer_id: UUID, session: Session
) -> None:
    answer = client.post("/v1/email/send", json=body(mailer_id, "ann@example.com", "bob@example.com", priority=1))
    assert answer.status_code == 202
    assert set(answer.json()) == {"success", "ref_id"}
    row = session.get_one(Submission, from_ulid(answer.json()["ref_id"]))
    assert (row.workspace_id, row.total, row.priority, row.campaign_id) == (tenant.workspace_id, 2, 1, "NIL")
    messages = session.scalars(select(Message).where(Message.submission_id == row.id).order_by(Message.due_at)).all()
    assert [message.recipients for message in messages] == [["ann@example.com"], ["bob@example.com"]]
    assert {message.rfc_message_id for message in messages} == {
        f"<postroad{message.id}@demo.test>" for message in messages
    }


def test_a1_the_same_endpoint_answers_under_the_base_of_source_a(client: TestClient, mailer_id: UUID) -> None:
    answer = client.post("/functions/v1/api/v1/email/send", json=body(mailer_id))
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("content", "envelope"),
    [
        (CRM, lambda answer: answer["error"] == "UNAUTHORIZED"),
        (MAILBOX, lambda answer: answer["error"]["code"] == "invalid_key"),
        ({"from": {}}, lambda answer: answer["success"] is False and isinstance(answer["error"], str)),
    ],
)
@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer nonsense", "Basic abc", "Bearer postroad_live_ünicode"]
)
def test_b15_a_missing_or_wrong_key_is_401_in_the_envelope_of_the_shape(
    api: TestClient, content: Any, envelope: Callable[[Any], bool], authorization: str | None
) -> None:
    headers = {"Authorization": authorization.encode()} if authorization else {}
    answer = api.post("/v1/email/send", json=content, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert envelope(answer.json())


def test_b15_an_expired_or_revoked_key_is_401(app_services: Services, api: TestClient, tenant: Tenant) -> None:
    now = datetime.now(UTC)
    for expires_at, revoked_at in ((now - timedelta(seconds=1), None), (None, now)):
        with app_services.sessions() as session:
            key, secret = issue_key(
                session, workspace_id=tenant.workspace_id, name="old", scopes=SCOPES,
                pepper=app_services.peppers[0], expires_at=expires_at,
            )  # fmt: skip
            session.get_one(ApiKey, key.id).revoked_at = revoked_at
            session.commit()
        assert send(as_caller(api, secret), MAILBOX).status_code == 401


def test_a4_b16_a_key_without_the_scope_is_403_and_the_scope_is_named(
    app_services: Services, api: TestClient, tenant: Tenant
) -> None:
    with app_services.sessions() as session:
        _, secret = issue_key(
            session,
            workspace_id=tenant.workspace_id,
            name="reader",
            scopes=["email:read"],
            pepper=app_services.peppers[0],
        )
        session.commit()
    answer = send(as_caller(api, secret), MAILBOX)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "insufficient_permissions"
    assert "email:send" in answer.text
    assert int(answer.headers["X-RateLimit-Limit"]) > 0


def test_b16_a_workspace_without_a_provider_is_403(client: TestClient) -> None:
    answer = send(client, MAILBOX)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions")


def test_a21_a22_a29_every_stale_id_is_listed_under_the_callers_own_field_name_and_nothing_is_stored(
    client: TestClient, tenant: Tenant, mailer_id: UUID, session: Session
) -> None:
    contact, deal, company, config = (str(uuid7()) for _ in range(4))
    answer = send(
        client,
        CRM | {"contact_id": contact, "opportunity_id": deal, "company_id": company, "email_config_id": config},
    )
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "VALIDATION_ERROR",
        "details": {
            "missing_entities": [
                {"field": "contact_id", "id": contact},
                {"field": "opportunity_id", "id": deal},
                {"field": "company_id", "id": company},
                {"field": "email_config_id", "id": config},
            ]
        },
    }
    assert stored(session, tenant) == 0
    assert mailer_id


def test_a7_another_workspaces_ids_are_missing_like_any_other(
    client: TestClient, other_tenant: Tenant, tenant: Tenant, app_services: Services, mailer_id: UUID, session: Session
) -> None:
    foreign_contact = uuid7()
    session.add(Contact(id=foreign_contact, workspace_id=other_tenant.workspace_id, email="x@example.com"))
    session.commit()
    answer = send(client, CRM | {"contact_id": str(foreign_contact)})
    assert answer.json()["details"]["missing_entities"] == [{"field": "contact_id", "id": str(foreign_contact)}]
    foreign_mailer = add_mailer(app_services, other_tenant)
    refused = send(client, body(foreign_mailer))
    assert refused.status_code == 404
    assert refused.json()["success"] is False
    assert refused.json()["details"]["missing_entities"] == [{"field": "mailer_id", "id": str(foreign_mailer)}]
    assert stored(session, tenant) == 0


def test_a19_null_is_the_same_as_absent(client: TestClient, mailer_id: UUID) -> None:
    assert send(client, CRM | {"contact_id": None, "deal_id": None, "customer_id": None}).status_code == 202


def test_c2_c37_a_from_that_the_mailer_may_not_use_is_refused_in_the_documented_words(
    client: TestClient, mailer_id: UUID, tenant: Tenant, session: Session
) -> None:
    answer = send(client, body(mailer_id, **{"from": {"email": "ceo@other.example"}}))
    assert answer.status_code == 400
    assert answer.json()["error"] == "from address does not exist with the provided mailer_id"
    assert "ceo@other.example" in json.dumps(answer.json()["details"])
    assert stored(session, tenant) == 0


def test_a14_personal_mode_without_a_mailbox_says_so(client: TestClient, tenant: Tenant, mailer_id: UUID) -> None:
    answer = send(client, CRM | {"mode": "personal", "sender_user_id": str(tenant.user_id)})
    assert (answer.status_code, answer.json()["error"]) == (400, "GMAIL_NOT_CONNECTED")


def test_a15_a_personal_mail_uses_the_users_alias_or_refuses_one_that_is_not_connected(
    client: TestClient, tenant: Tenant, app_services: Services, session: Session
) -> None:
    add_mailer(
        app_services, tenant, user_id=tenant.user_id, from_addresses=["other@mail.test", "ada@mail.test"], domains=[]
    )
    personal = CRM | {"mode": "personal", "sender_user_id": str(tenant.user_id)}
    sent = send(client, personal).json()
    sender = session.get_one(Submission, from_ulid(sent["ref_id"])).content["sender"]["email"]
    assert sender == "ada@mail.test"  # the user's own address is an alias: taken by itself
    refused = send(client, personal | {"from_email": "nobody@mail.test"})
    assert (refused.status_code, refused.json()["error"]) == (400, "ALIAS_NOT_CONNECTED")


def test_malformed_json_is_400_in_the_mailer_envelope(client: TestClient) -> None:
    for raw in (b"", b"{", b'{"to_email": ', b"[1]", b"null", b'"x"', b'{"a":NaN}', b"\xff\xfe"):
        answer = client.post("/v1/email/send", content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, raw
        assert answer.json()["success"] is False


@pytest.mark.parametrize("broken", ["a\0b", {"a": [[]] * 3, "\0": 1}])
def test_json_that_cannot_be_stored_is_400_in_the_envelope_of_its_shape(client: TestClient, broken: Any) -> None:
    crm, mailbox = send(client, CRM | {"subject": broken}), send(client, MAILBOX | {"subject": broken})
    assert (crm.status_code, crm.json()["error"]) == (400, "VALIDATION_ERROR")
    assert (mailbox.status_code, mailbox.json()["error"]["code"]) == (400, "validation_error")


@pytest.mark.parametrize("path", ["/v1/email/send", "/v1/email/reply", "/v1/templates"])
def test_who_may_not_send_learns_nothing_about_the_body(api: TestClient, path: str) -> None:
    for raw in (b"{", b'{"to_email": "\\u0000"}', b'{"a": 1, "a": 2}'):
        assert api.post(path, content=raw, headers=AS_JSON).status_code == 401, raw


def test_a_caller_that_hangs_up_in_the_middle_of_a_body_is_no_failure(api: TestClient) -> None:
    sent: list[Any] = []

    async def hang_up() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/email/send", "query_string": b"", "headers": []}
        await api.app(scope, receive, send)

    asyncio.run(hang_up())
    assert sent[0]["status"] == 400


def test_a_body_that_is_too_large_is_413_and_an_encoded_one_415(client: TestClient) -> None:
    huge = client.post("/v1/email/send", content=b" " * (37 * 1024 * 1024))
    assert huge.status_code == 413
    gzipped = client.post("/v1/email/send", content=b"x", headers={"Content-Encoding": "gzip"})
    assert gzipped.status_code == 415


def test_all_faults_of_a_body_are_in_one_answer(client: TestClient) -> None:
    answer = send(
        client, {"to_email": "nobody", "html_body": 3, "cc": "a@b@c", "colour": "red", "subject": "a\r\nBcc: x@y.z"}
    )
    fields = {fault["field"] for fault in answer.json()["details"]["fields"]}
    assert fields >= {"to_email", "html_body", "cc", "colour", "subject"}


def test_problem_json_is_given_to_whoever_asks_for_it(client: TestClient) -> None:
    answer = send(client, CRM | {"contact_id": str(uuid7())}, Accept="application/problem+json")
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (400, "VALIDATION_ERROR")
    assert problem["type"].endswith("#validation_error")
    assert problem["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(("given_id", "kept"), [("order-17", True), ("x" * 129, False), ("a b", False), ("", False)])
def test_b13_a_sane_request_id_is_kept_and_any_other_replaced(
    client: TestClient, mailer_id: UUID, given_id: str, kept: bool
) -> None:
    answer = send(client, MAILBOX, X_Request_ID=given_id)
    assert (answer.headers["X-Request-ID"] == given_id) is kept


def test_b2_a_repeated_key_gets_the_original_answer_and_sends_nothing_more(
    client: TestClient, mailer_id: UUID, tenant: Tenant, session: Session
) -> None:
    first = send(client, body(mailer_id), Idempotency_Key="k1")
    again = send(client, body(mailer_id), Idempotency_Key="k1")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert stored(session, tenant) == 1


def test_b2_the_answer_is_the_same_whatever_has_become_of_the_mail_since(
    client: TestClient, mailer_id: UUID, app_services: Services
) -> None:
    first = client.post("/v1/email/send", json=CRM, headers={"Idempotency-Key": "k2", "Prefer": "wait=0"})
    with app_services.engine.begin() as connection:
        connection.execute(text("update message set state = 'sent' where id = :id"), {"id": first.json()["id"]})
    again = client.post("/v1/email/send", json=CRM, headers={"Idempotency-Key": "k2", "Prefer": "wait=0"})
    assert (again.status_code, again.json()) == (first.status_code, first.json())


def test_b2_of_requests_that_wait_together_all_give_the_answer_that_was_kept_first(
    client: TestClient, mailer_id: UUID, tenant: Tenant, session: Session
) -> None:
    client.post("/v1/email/send", json=CRM, headers={"Idempotency-Key": "together", "Prefer": "wait=0"})
    first = keep_answer(session, tenant.key_id, "together", 202, {"status": "queued"})
    assert first == (202, {"status": "queued"})
    assert keep_answer(session, tenant.key_id, "together", 200, {"status": "sent"}) == first


def test_b2_a_repeat_that_would_wait_gets_the_answer_of_a_first_request_that_did_not(
    client: TestClient, mailer_id: UUID
) -> None:
    first = send(client, CRM, Idempotency_Key="k4", Prefer="respond-async")
    began = time.monotonic()
    again = send(client, CRM, Idempotency_Key="k4", Prefer="wait=20")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert first.status_code == 202
    assert again.headers["Idempotency-Replayed"] == "true"
    assert time.monotonic() - began < 15


def test_b3_the_same_key_with_another_body_is_409_and_names_where_it_differs(
    client: TestClient, mailer_id: UUID
) -> None:
    send(client, body(mailer_id), Idempotency_Key="k3")
    answer = send(client, body(mailer_id, subject="Other"), Idempotency_Key="k3")
    assert answer.status_code == 409
    assert "/subject" in answer.text


def test_b3_a_conflict_in_the_mailbox_shape_has_its_documented_code(client: TestClient, mailer_id: UUID) -> None:
    send(client, MAILBOX, Idempotency_Key="k4")
    answer = send(client, MAILBOX | {"subject": "Other"}, Idempotency_Key="k4")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")


def test_a_key_belongs_to_the_api_key_that_used_it(
    client: TestClient, other: TestClient, other_tenant: Tenant, mailer_id: UUID, app_services: Services
) -> None:
    foreign = add_mailer(app_services, other_tenant)
    first = send(client, body(mailer_id), Idempotency_Key="k5")
    second = send(other, body(foreign), Idempotency_Key="k5")
    assert second.status_code == 202
    assert second.json()["ref_id"] != first.json()["ref_id"]


def test_b2_a_key_whose_window_has_passed_is_new_again(
    client: TestClient, mailer_id: UUID, app_services: Services, tenant: Tenant, session: Session
) -> None:
    send(client, body(mailer_id), Idempotency_Key="k6")
    with app_services.engine.begin() as connection:
        connection.execute(text("update idempotency_key set expires_at = now() - interval '1 second' where key = 'k6'"))
    again = send(client, body(mailer_id, subject="Other"), Idempotency_Key="k6")
    assert again.status_code == 202
    assert stored(session, tenant) == 2


def test_a_request_that_was_refused_leaves_its_key_free(client: TestClient, mailer_id: UUID) -> None:
    refused = send(client, CRM | {"contact_id": str(uuid7())}, Idempotency_Key="k7")
    assert refused.status_code == 400
    assert send(client, CRM, Idempotency_Key="k7").status_code == 202


@pytest.mark.parametrize("key", ["x" * 257, " " * 0])
def test_an_idempotency_key_that_is_none_is_refused(client: TestClient, mailer_id: UUID, key: str) -> None:
    assert send(client, body(mailer_id), Idempotency_Key=key).status_code == 400


def test_many_concurrent_repeats_send_once_and_all_get_the_same_answer(
    client: TestClient, mailer_id: UUID, tenant: Tenant, session: Session
) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: send(client, body(mailer_id), Idempotency_Key="crowd"), range(60)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["ref_id"] for answer in answers}) == 1
    assert stored(session, tenant) == 1


def test_b13_every_answer_says_where_the_limits_stand(client: TestClient, mailer_id: UUID) -> None:
    malformed = [client.post(path, content=b"{", headers=AS_JSON) for path in ("/v1/email/send", "/v1/templates")]
    for answer in (send(client, body(mailer_id)), client.get("/v1/messages"), send(client, {}), *malformed):
        assert int(answer.headers["X-RateLimit-Limit"]) > 0
        assert int(answer.headers["X-RateLimit-Remaining"]) >= 0
        assert int(answer.headers["X-RateLimit-Reset"]) >= 0


@pytest.mark.parametrize(
    ("caps", "limit", "mails"), [({"per_second": 2}, "per_second", 1), ({"per_day": 3}, "per_day", 2)]
)
def test_b17_over_the_cap_of_a_key_is_429_with_the_limit_and_retry_after(
    app_services: Services,
    api: TestClient,
    tenant: Tenant,
    mailer_id: UUID,
    caps: dict[str, int],
    limit: str,
    mails: int,
) -> None:
    with app_services.sessions() as session:
        _, secret = issue_key(
            session,
            workspace_id=tenant.workspace_id,
            name="slow",
            scopes=SCOPES,
            pepper=app_services.peppers[0],
            caps=caps,
        )
        session.commit()
    slow = as_caller(api, secret)
    recipients = [f"r{number}@example.com" for number in range(mails)]
    answers = [send(slow, body(mailer_id, *recipients)) for _ in range(4)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 202
    assert refused
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert limit in refused[0].text


def test_b17_over_the_cap_of_a_mailer_is_429_and_stores_nothing(
    client: TestClient, app_services: Services, tenant: Tenant, session: Session
) -> None:
    capped = add_mailer(app_services, tenant, caps={"per_day": 1})
    assert send(client, body(capped)).status_code == 202
    refused = send(client, MAILBOX)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert "mailer_per_day" in refused.text
    assert stored(session, tenant) == 1


def test_the_cap_of_a_deleted_mailer_limits_nobody(client: TestClient, app_services: Services, tenant: Tenant) -> None:
    add_mailer(app_services, tenant, caps={"per_day": 1}, is_default=False, deleted_at=datetime.now(UTC))
    add_mailer(app_services, tenant, is_default=False)
    assert [send(client, MAILBOX).status_code for _ in range(3)] == [202, 202, 202]


def test_d5_accept_is_plain_python_in_the_callers_own_transaction(
    app_services: Services, tenant: Tenant, mailer_id: UUID, session: Session
) -> None:
    submission = mailer_shape.parse(body(mailer_id, "ann@example.com"))
    caller = Caller(workspace_id=tenant.workspace_id)
    with app_services.sessions() as own:
        accept(own, caller, submission, settings=app_services.settings)
        own.rollback()
    assert stored(session, tenant) == 0
    with app_services.sessions() as own:
        accepted = accept(own, caller, submission, settings=app_services.settings)
        own.commit()
    assert stored(session, tenant) == 1
    assert accepted.total == 1


def test_an_attachment_is_stored_once_however_often_it_is_sent(
    client: TestClient, mailer_id: UUID, tenant: Tenant, session: Session
) -> None:
    attachment = {"content": "JVBERi0xLjQ=", "filename": "a.pdf", "type": "application/pdf"}
    for name in ("a.pdf", "b.pdf"):
        assert send(client, body(mailer_id, attachments=[attachment | {"filename": name}])).status_code == 202
    count = session.execute(
        text("select count(*) from blob where workspace_id = :w"), {"w": tenant.workspace_id}
    ).scalar_one()
    assert count == 1


@pytest.fixture(scope="module")
def anybody(app_services: Services, api: TestClient) -> TestClient:
    from tests.api_shim.conftest import new_tenant

    tenant = new_tenant(app_services)
    add_mailer(app_services, tenant)
    return as_caller(api, tenant.key)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["to", "from", "subject", "content", "settings", "mailer_id", "to_email", "html_body", "body_text", "cc", "headers",
     "substitutions", "attachments", "priority", "send_at", "custom_args", "contact_id", "reply_to", "template_id"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, JSON, max_size=8) | JSON)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_json_body_whatsoever_gives_a_500(anybody: TestClient, content: Any) -> None:
    answer = send(anybody, content)
    assert answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith("application/")


def test_a_dry_run_shows_the_mails_and_the_suppressed_and_writes_nothing(
    client: TestClient, mailer_id: UUID, tenant: Tenant, session: Session
) -> None:
    session.add(Suppression(workspace_id=tenant.workspace_id, address="bob@example.com", reason="complaint"))
    session.commit()
    answer = client.post(
        "/v1/email/send",
        json=body(
            mailer_id,
            "ann@example.com",
            "bob@example.com",
            subject="For {{name}}",
            substitutions={"ann@example.com": {"name": "Ann"}, "bob@example.com": {"name": "Bob"}},
            dry_run=True,
        ),
    )
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["total"] == 2
    assert [mail["subject"] for mail in shown["mails"]] == ["For Ann", "For Bob"]
    assert shown["suppressed"] == [{"email": "bob@example.com", "reason": "complaint"}]
    assert stored(session, tenant) == 0


def test_a48_a_config_with_a_gmail_alias_sends_as_that_alias(
    client: TestClient, tenant: Tenant, app_services: Services, session: Session
) -> None:
    add_mailer(
        app_services, tenant, user_id=tenant.user_id, from_addresses=["ada@mail.test", "team@mail.test"],
        domains=[], is_default=False,
    )  # fmt: skip
    config = EmailConfig(
        workspace_id=tenant.workspace_id, from_email_handle="team", from_name="The team", staff_email="ada@mail.test",
        gmail_user_id=tenant.user_id, gmail_sender_alias="team@mail.test",
    )  # fmt: skip
    session.add(config)
    session.commit()
    sent = send(client, CRM | {"email_config_id": str(config.id)}).json()
    content = session.get_one(Submission, from_ulid(sent["ref_id"])).content
    assert content["sender"] == {"email": "team@mail.test", "name": "The team"}
