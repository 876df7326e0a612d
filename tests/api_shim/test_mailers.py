"""Mailers: made, read without their secrets, changed, paused, tested against a real server, deleted."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.auth import Caller
from api_shim.entities import Known
from api_shim.intake import accept
from api_shim.sender import resolve_sender
from api_shim.services import Services
from api_shim.shapes import mailer
from models.access import AuditEntry
from models.mailer import EmailConfig, Mailer
from models.message import Lease, Message
from providers import ADAPTERS, adapter
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import Offer, SmtpEmulator
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from worker.mailers import mailer_purpose
from worker.settings import Settings

SMTP: dict[str, Any] = {
    "provider": "smtp",
    "name": "relay",
    "from": ["hello@demo.test"],
    "domains": ["demo.test"],
    "default": False,
    "credentials": {"host": "127.0.0.1", "port": 2525, "security": "none", "username": None, "password": None},
    "caps": {"per_second": None, "per_day": None, "connections": 4},
    "on_uncertain": "hold",
    "user_id": None,
}

WORKING: dict[str, dict[str, Any]] = {
    "smtp": {"host": "127.0.0.1", "port": 2525, "security": "starttls", "username": "u", "password": "top-s3cret"},
    "gmail_smtp": {"username": "a@gmail.com", "password": "top-s3cret"},
    "outlook_smtp": {"username": "a@x.com", "client_id": "i", "client_secret": "top-s3cret", "refresh_token": "r"},
    "postmark": {"server_token": "top-s3cret"},
    "mailgun": {"api_key": "top-s3cret", "domain": "mg.example.com", "signing_key": "k"},
    "sparkpost": {"api_key": "top-s3cret"},
    "gmail": {"client_id": "i", "client_secret": "top-s3cret", "refresh_token": "r"},
    "microsoft365": {"tenant": "t", "client_id": "i", "client_secret": "top-s3cret", "refresh_token": "r"},
}


def made(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/mailers", json=SMTP | changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def fields_of(answer: Any) -> set[str]:
    assert answer.status_code == 400, answer.text
    details = answer.json()["details"]
    return {item["field"] for item in details.get("fields", []) + details.get("missing_entities", [])}


def sealed(services: Services, session: Session, mailer_id: str) -> dict[str, Any]:
    session.expire_all()
    row = session.get_one(Mailer, UUID(mailer_id))
    return services.vault.open(mailer_purpose(row.id), row.sealed_credentials)


def mail(mailer_id: str) -> dict[str, Any]:
    return {
        "from": {"email": "hello@demo.test"},
        "to": [{"email": "grace@example.com"}],
        "replyTo": "hello@demo.test",
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "Hello"}],
        "settings": {},
        "campaign_id": "hello",
        "priority": 0,
        "mailer_id": mailer_id,
    }


def send(client: TestClient, mailer_id: str) -> Any:
    return client.post("/v1/email/send", json=mail(mailer_id))


def test_c30_there_are_credentials_for_every_adapter() -> None:
    assert [provider for provider in ADAPTERS if not adapter(provider).credentials] == []


def test_the_documented_body_makes_a_mailer(client: TestClient) -> None:
    body = made(client)
    assert body == client.get(f"/v1/mailers/{body['id']}").json()
    assert body["status"] == "active"
    assert body["from"] == ["hello@demo.test"]
    assert body["caps"] == {"per_second": None, "per_minute": None, "per_day": None, "connections": 4}
    assert body["hook_url"].startswith("/v1/hooks/smtp/")
    assert set(body) == {
        "id", "provider", "name", "status", "status_reason", "from", "domains", "default", "caps", "on_uncertain",
        "user_id", "base_url", "auth_url", "tracking_domain", "return_path_domain", "reply_domain", "ip_pools", "fallback_id", "hook_url", "throttled_until",
        "created_at",
    }  # fmt: skip


@pytest.mark.parametrize("provider", WORKING)
def test_c30_credentials_are_sealed_and_never_come_back(
    client: TestClient, app_services: Services, session: Session, provider: str
) -> None:
    answer = client.post("/v1/mailers", json={"provider": provider, "credentials": WORKING[provider]})
    assert answer.status_code == 201, answer.text
    id_ = answer.json()["id"]
    shown = answer.text + client.get(f"/v1/mailers/{id_}").text + client.get("/v1/mailers").text
    shown += client.get("/v1/ops/audit").text
    assert "top-s3cret" not in shown
    assert "top-s3cret" in sealed(app_services, session, id_).values()
    assert b"top-s3cret" not in session.get_one(Mailer, UUID(id_)).sealed_credentials


@pytest.mark.parametrize("provider", [name for name in ADAPTERS if name != "smtp"])
def test_missing_and_unknown_credentials_are_named(client: TestClient, provider: str) -> None:
    body = {"provider": provider, "credentials": {"sever_token": "top-s3cret"}}
    answer = client.post("/v1/mailers", json=body)
    fields = fields_of(answer)
    assert "credentials.sever_token" in fields
    assert len(fields) >= 2
    assert "top-s3cret" not in answer.text


def test_a_provider_whose_library_is_not_installed_is_named(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ADAPTERS, "pigeon", "providers.pigeon:Pigeon")
    answer = client.post("/v1/mailers", json={"provider": "pigeon", "credentials": {"coop": "top-s3cret"}})
    assert fields_of(answer) == {"provider"}
    assert "postroad[pigeon]" in answer.text


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"provider": "pigeon"}, {"provider"}),
        ({"credentials": {"port": 25}}, {"credentials.host"}),
        ({"credentials": {"host": "127.0.0.1", "port": "top-s3cret"}}, {"credentials.port"}),
        ({"credentials": {"host": "127.0.0.1", "port": 0}}, {"credentials.port"}),
        ({"credentials": {"host": "127.0.0.1", "security": "ssl"}}, {"credentials.security"}),
        ({"credentials": {"host": "127.0.0.1", "username": "top-s3cret"}}, {"credentials"}),
        ({"credentials": {"host": "a b"}}, {"credentials.host"}),
        ({"from": ["no address"], "domains": ["-"]}, {"from.0", "domains.0"}),
        ({"caps": {"per_second": 0, "per_day": True, "per_year": 1}}, {"caps.per_second", "caps.per_day", "caps.per_year"}),
        ({"on_uncertain": "pray"}, {"on_uncertain"}),
        ({"user_id": str(uuid4()), "fallback_id": str(uuid4())}, {"user_id", "fallback_id"}),
        ({"base_url": "https://127.0.0.1"}, {"base_url"}),
        ({"base_url": "smtp://u:p@127.0.0.1"}, {"base_url"}),
        ({"auth_url": "https://127.0.0.1"}, {"auth_url"}),
        ({"tracking_domain": "https://t.example.com/path"}, {"tracking_domain"}),
        ({"tracking_domain": "ftp://t.example.com"}, {"tracking_domain"}),
        ({"nmae": "typo"}, {"nmae"}),
        ({"name": "nul\0"}, {"name"}),
    ],
)  # fmt: skip
def test_everything_wrong_with_a_body_is_named(client: TestClient, changes: dict[str, Any], fields: set[str]) -> None:
    answer = client.post("/v1/mailers", json=SMTP | changes)
    assert fields_of(answer) == fields
    assert "top-s3cret" not in answer.text
    assert client.get("/v1/mailers").json()["data"] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"credentials": {"host": "10.0.0.1", "port": 25}}, "credentials.host"),
        ({"credentials": {"host": "127.0.0.2", "port": 25}}, "credentials.host"),
        ({"credentials": {"host": "167772161", "port": 25}}, "credentials.host"),
        ({"credentials": {"host": "::1", "port": 25}}, "credentials.host"),
        ({"base_url": "smtp://169.254.169.254"}, "base_url"),
        ({"provider": "postmark", "credentials": WORKING["postmark"], "base_url": "http://[::ffff:10.0.0.1]/"}, "base_url"),
        ({"provider": "gmail", "credentials": WORKING["gmail"], "auth_url": "http://192.168.1.1"}, "auth_url"),
    ],
)  # fmt: skip
def test_hosts_that_are_not_public_are_refused(client: TestClient, changes: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/mailers", json=SMTP | changes)
    assert fields_of(answer) == {field}
    assert "POSTROAD_MAILER_ALLOWED_HOSTS" in answer.text


def test_a_name_that_does_not_resolve_now_may_do_so_later(client: TestClient) -> None:
    made(client, credentials={"host": "relay.invalid", "port": 25})


def test_a_change_leaves_alone_what_it_does_not_name(
    client: TestClient, app_services: Services, session: Session
) -> None:
    before = made(client)
    body = {"name": "renamed", "domains": ["Other.TEST"], "caps": {"per_second": 5}}
    answer = client.patch(f"/v1/mailers/{before['id']}", json=body)
    assert answer.status_code == 200
    caps = {"per_second": 5, "per_minute": None, "per_day": None, "connections": None}
    assert answer.json() == before | {"name": "renamed", "domains": ["other.test"], "caps": caps}
    assert sealed(app_services, session, before["id"])["port"] == 2525


def test_credentials_are_replaced_as_a_whole(client: TestClient, app_services: Services, session: Session) -> None:
    id_ = made(client, credentials=WORKING["smtp"])["id"]
    client.patch(f"/v1/mailers/{id_}", json={"credentials": {"host": "127.0.0.1", "port": 2526}})
    assert sealed(app_services, session, id_) == {"host": "127.0.0.1", "port": 2526, "security": "none"}


@pytest.mark.parametrize(("status", "then"), [("reconnect_required", "active"), ("paused", "paused")])
def test_new_credentials_revive_a_mailer_that_waited_for_them(
    client: TestClient, session: Session, status: str, then: str
) -> None:
    id_ = made(client)["id"]
    session.execute(update(Mailer).where(Mailer.id == UUID(id_)).values(status=status, status_reason="why"))
    session.commit()
    answer = client.patch(f"/v1/mailers/{id_}", json={"credentials": SMTP["credentials"]}).json()
    assert answer["status"] == then
    assert answer["status_reason"] == (None if then == "active" else "why")


def test_credentials_cannot_be_lured_to_another_host(client: TestClient) -> None:
    id_ = made(client, provider="postmark", credentials=WORKING["postmark"])["id"]
    lure = {"base_url": "http://127.0.0.1:9"}
    assert fields_of(client.patch(f"/v1/mailers/{id_}", json=lure)) == {"base_url"}
    moved = client.patch(f"/v1/mailers/{id_}", json=lure | {"credentials": WORKING["postmark"]})
    assert moved.json()["base_url"] == "http://127.0.0.1:9"
    assert client.patch(f"/v1/mailers/{id_}", json={"base_url": "http://127.0.0.1:10"}).status_code == 200
    assert client.patch(f"/v1/mailers/{id_}", json={"base_url": None}).json()["base_url"] is None


def test_only_one_mailer_is_the_default(client: TestClient, other: TestClient) -> None:
    theirs = made(other, default=True)["id"]
    first, second = made(client, default=True)["id"], made(client, default=True)["id"]
    assert [row["id"] for row in client.get("/v1/mailers").json()["data"] if row["default"]] == [second]
    client.patch(f"/v1/mailers/{first}", json={"default": True})
    assert [row["id"] for row in client.get("/v1/mailers").json()["data"] if row["default"]] == [first]
    assert other.get(f"/v1/mailers/{theirs}").json()["default"] is True


def test_a_users_mailbox_cannot_be_the_default(client: TestClient, tenant: Tenant) -> None:
    personal = {"user_id": str(tenant.user_id)}
    assert fields_of(client.post("/v1/mailers", json=SMTP | personal | {"default": True})) == {"default"}
    id_ = made(client, **personal)["id"]
    assert fields_of(client.patch(f"/v1/mailers/{id_}", json={"default": True})) == {"default"}
    assert [row["id"] for row in client.get("/v1/mailers", params=personal).json()["data"]] == [id_]


def test_pause_and_resume_are_told_and_audited(client: TestClient) -> None:
    id_ = made(client)["id"]
    paused = client.post(f"/v1/mailers/{id_}/pause").json()
    assert paused["status"] == "paused"
    assert paused["status_reason"]
    assert [row["id"] for row in client.get("/v1/mailers?status=paused").json()["data"]] == [id_]
    resumed = client.post(f"/v1/mailers/{id_}/resume").json()
    assert (resumed["status"], resumed["status_reason"]) == ("active", None)
    client.post(f"/v1/mailers/{id_}/resume")
    actions = [row["action"] for row in client.get("/v1/ops/audit", params={"target": id_}).json()["data"]]
    assert actions == ["mailer.resumed", "mailer.paused", "mailer.created"]


def test_a_test_logs_in_to_the_real_server(client: TestClient) -> None:
    with SmtpEmulator(Offer(passwords={"u": "right"})) as server:
        credentials = {"host": "127.0.0.1", "port": server.port, "username": "u", "password": "right"}
        id_ = made(client, credentials=credentials)["id"]
        answer = client.post(f"/v1/mailers/{id_}/test")
        assert (answer.status_code, answer.json()["ok"]) == (200, True), answer.text
        client.patch(f"/v1/mailers/{id_}", json={"credentials": credentials | {"password": "wr0ng-one"}})
        answer = client.post(f"/v1/mailers/{id_}/test")
    assert answer.json()["ok"] is False
    assert answer.json()["code"].startswith("535")
    assert "wr0ng-one" not in answer.text


def test_a_test_asks_a_providers_api_under_its_base_url(client: TestClient) -> None:
    with PostmarkEmulator() as server:
        changes = {"provider": "postmark", "credentials": WORKING["postmark"], "base_url": server.url}
        id_ = made(client, **changes)["id"]
        answer = client.post(f"/v1/mailers/{id_}/test").json()
        assert set(answer) == {"ok", "detail", "code"}
        assert len(server.calls) == 1


def test_a_test_of_a_server_that_is_away_says_so(client: TestClient) -> None:
    with SmtpEmulator() as server:
        port = server.port
    id_ = made(client, credentials={"host": "127.0.0.1", "port": port})["id"]
    answer = client.post(f"/v1/mailers/{id_}/test").json()
    assert answer["ok"] is False
    assert answer["detail"]


@pytest.mark.parametrize("provider", ["gmail", "microsoft365", "outlook_smtp"])
def test_a_mailbox_without_a_refresh_token_waits_to_be_connected(client: TestClient, provider: str) -> None:
    credentials = {name: value for name, value in WORKING[provider].items() if name != "refresh_token"}
    waiting = made(client, provider=provider, credentials=credentials)
    assert waiting["status"] == "reconnect_required"
    answer = client.post(f"/v1/mailers/{waiting['id']}/test").json()
    assert (answer["ok"], answer["code"]) == (False, "not_connected")
    connected = client.patch(f"/v1/mailers/{waiting['id']}", json={"credentials": WORKING[provider]}).json()
    assert connected["status"] == "active"


def test_a_deleted_mailer_is_hidden_and_its_credentials_are_erased(
    client: TestClient, tenant: Tenant, session: Session
) -> None:
    id_ = made(client, default=True)["id"]
    follower = made(client, fallback_id=id_)["id"]
    config = EmailConfig(
        workspace_id=tenant.workspace_id, from_email_handle="a", from_name="A", staff_email="a@b.test", mailer_id=UUID(id_)
    )  # fmt: skip
    session.add(config)
    session.commit()
    assert client.delete(f"/v1/mailers/{id_}").status_code == 204
    calls = [
        client.get(f"/v1/mailers/{id_}"),
        client.patch(f"/v1/mailers/{id_}", json={}),
        client.post(f"/v1/mailers/{id_}/test"),
        client.post(f"/v1/mailers/{id_}/resume"),
        client.delete(f"/v1/mailers/{id_}"),
        send(client, id_),
    ]
    assert [answer.status_code for answer in calls] == [404] * 6
    assert [row["id"] for row in client.get("/v1/mailers").json()["data"]] == [follower]
    session.expire_all()
    assert session.get_one(Mailer, UUID(id_)).sealed_credentials == b""
    assert session.get_one(Mailer, UUID(follower)).fallback_id is None
    assert config.mailer_id is None


def test_no_mail_goes_out_by_default_over_a_deleted_mailer(client: TestClient) -> None:
    id_ = made(client, default=True)["id"]
    body = {"to_email": "grace@example.com", "subject": "Hello", "html_body": "<p>Hello</p>"}
    headers = {"Prefer": "respond-async"}
    assert client.post("/v1/email/send", json=body, headers=headers).status_code == 202
    other_id = made(client)["id"]
    assert client.delete(f"/v1/mailers/{id_}").status_code == 409
    assert client.delete(f"/v1/mailers/{other_id}").status_code == 204


def test_a_workspace_whose_only_mailer_is_deleted_has_none(client: TestClient) -> None:
    client.delete(f"/v1/mailers/{made(client)['id']}")
    body = {"to_email": "grace@example.com", "subject": "Hello", "html_body": "<p>Hello</p>"}
    answer = client.post("/v1/email/send", json=body)
    assert (answer.status_code, answer.json()["error"]) == (403, "NOT_CONNECTED")


def test_a_mailer_with_open_mail_cannot_be_deleted(client: TestClient, session: Session) -> None:
    id_ = made(client)["id"]
    answer = send(client, id_)
    assert answer.status_code == 202, answer.text
    mine = Message.mailer_id == UUID(id_)
    assert client.delete(f"/v1/mailers/{id_}").json()["error"] == "CONFLICT"
    message_ids = list(session.scalars(select(Message.id).where(mine)))
    session.execute(update(Message).where(mine).values(state="claimed", due_at=None))
    lease = Lease(
        id=10**9, worker="w", mailer_id=UUID(id_), priority=0, message_ids=message_ids, expires_at=Message.created_at
    )
    lease.expires_at = session.scalars(select(Message.created_at).where(mine)).one()
    session.add(lease)
    session.commit()
    assert client.delete(f"/v1/mailers/{id_}").status_code == 409
    session.execute(delete(Lease).where(Lease.id == lease.id))
    session.execute(update(Message).where(mine).values(state="sent"))
    session.commit()
    assert client.delete(f"/v1/mailers/{id_}").status_code == 204


def test_a_mailer_is_not_deleted_under_a_mail_that_is_just_being_accepted(
    client: TestClient, tenant: Tenant, session: Session, settings: Settings
) -> None:
    id_ = made(client)["id"]
    caller, submission = Caller(workspace_id=tenant.workspace_id), mailer.parse(mail(id_))
    resolve_sender(Known(session), caller, submission)
    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(client.delete, f"/v1/mailers/{id_}")
        with pytest.raises(TimeoutError):
            deleting.result(0.3)
        accept(session, caller, submission, settings=settings)
        session.commit()
        assert deleting.result(5).status_code == 409


def test_another_workspaces_mailer_does_not_exist(client: TestClient, other: TestClient) -> None:
    one = f"/v1/mailers/{made(client)['id']}"
    answers = [
        other.get(one),
        other.patch(one, json={"name": "theirs"}),
        other.delete(one),
        *(other.post(f"{one}/{verb}") for verb in ("test", "pause", "resume")),
    ]
    assert [answer.status_code for answer in answers] == [404] * 6
    assert other.get("/v1/mailers").json()["data"] == []
    assert other.get("/v1/ops/audit").json()["data"] == []
    foreign = SMTP | {"fallback_id": one.rpartition("/")[2]}
    assert fields_of(other.post("/v1/mailers", json=foreign)) == {"fallback_id"}


def test_a_change_and_its_audit_entry_are_one(client: TestClient, tenant: Tenant, session: Session) -> None:
    id_ = made(client)["id"]
    client.patch(f"/v1/mailers/{id_}", json={"name": "new", "from": ["a@demo.test"]})
    client.patch(f"/v1/mailers/{id_}", json={"fallback_id": id_})
    entries = session.scalars(select(AuditEntry).where(AuditEntry.target == id_).order_by(AuditEntry.id)).all()
    assert [entry.action for entry in entries] == ["mailer.created", "mailer.changed"]
    assert entries[1].detail == {"fields": ["from", "name"]}
    assert {entry.api_key_id for entry in entries} == {tenant.key_id}


def test_reading_and_writing_are_different_scopes(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("mailers:read",)).key)
    writer = as_caller(api, new_tenant(app_services, ("mailers:write",)).key)
    assert reader.get("/v1/mailers").status_code == 200
    assert reader.post("/v1/mailers", json=SMTP).status_code == 403
    assert writer.get("/v1/mailers").status_code == 403
    assert writer.post("/v1/mailers", json=SMTP).status_code == 201
    assert writer.get("/v1/ops/audit").status_code == 403
