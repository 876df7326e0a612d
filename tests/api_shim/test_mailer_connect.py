"""Connecting a mailbox: the consent is asked for, given, declined, misused, and given back."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import requests
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

import providers.oauth
from api_shim.services import Services
from models.access import AuditEntry
from models.mailer import Mailer
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Fault
from providers.emulators.microsoft365 import TENANT, Microsoft365Emulator
from worker.mailers import mailer_purpose

CALLBACK = "http://127.0.0.1:8025/v1/mailers/oauth/callback"


@pytest.fixture
def google() -> Iterator[GmailEmulator]:
    providers.oauth._cache.clear()
    with GmailEmulator() as emulator:
        yield emulator


@pytest.fixture
def mailer_id(client: TestClient, google: GmailEmulator) -> str:
    return made(client, google)


def made(client: TestClient, google: GmailEmulator, provider: str = "gmail", **credentials: str) -> str:
    given = {"client_id": google.oauth.client_id, "client_secret": google.oauth.client_secret, **credentials}
    body = {"provider": provider, "credentials": given, "auth_url": google.url}
    answer = client.post("/v1/mailers", json=body | ({"base_url": google.url} if provider == "gmail" else {}))
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "reconnect_required"
    return str(answer.json()["id"])


def asked(client: TestClient, mailer_id: str, **body: Any) -> str:
    answer = client.post(f"/v1/mailers/{mailer_id}/connect", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["authorization_url"])


def consented(url: str) -> dict[str, str]:
    """What the user's browser brings back, after they agreed at the provider."""
    location = requests.get(url, allow_redirects=False, timeout=5).headers["Location"]
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def sealed(services: Services, session: Session, mailer_id: str) -> dict[str, Any]:
    session.expire_all()
    row = session.get_one(Mailer, UUID(mailer_id))
    return services.vault.open(mailer_purpose(row.id), row.sealed_credentials)


def status(client: TestClient, mailer_id: str) -> str:
    return str(client.get(f"/v1/mailers/{mailer_id}").json()["status"])


def test_the_address_asks_for_what_is_needed_and_hides_the_secrets(client: TestClient, mailer_id: str) -> None:
    url = asked(client, mailer_id)
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert query["redirect_uri"] == CALLBACK
    assert query["scope"] == "https://www.googleapis.com/auth/gmail.modify"
    assert (query["code_challenge_method"], query["access_type"], query["prompt"]) == ("S256", "offline", "consent")
    assert "client-secret" not in url
    assert "code_verifier" not in url


def test_a_consent_makes_the_mailer_work_and_tells_its_addresses(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str, app_services: Services, session: Session
) -> None:
    google.aliases.append({"sendAsEmail": "desk@demo.test", "verificationStatus": "accepted"})
    google.aliases.append({"sendAsEmail": "pending@demo.test", "verificationStatus": "pending"})
    page = api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    assert page.status_code == 200, page.text
    assert "desk@demo.test" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    body = client.get(f"/v1/mailers/{mailer_id}").json()
    assert (body["status"], body["from"]) == ("active", ["ann@demo.test", "desk@demo.test"])
    assert sealed(app_services, session, mailer_id)["refresh_token"] == google.oauth.refresh_token
    assert client.post(f"/v1/mailers/{mailer_id}/test").json()["ok"]
    actions = session.scalars(select(AuditEntry.action).where(AuditEntry.target == mailer_id)).all()
    assert "mailer.connected" in actions


def test_microsoft_is_connected_in_its_tenant(client: TestClient, api: TestClient) -> None:
    with Microsoft365Emulator() as microsoft:
        body = {
            "provider": "microsoft365",
            "credentials": {
                "tenant": TENANT, "client_id": microsoft.client_id, "client_secret": microsoft.client_secret
            },
            "base_url": microsoft.url,
            "auth_url": microsoft.url,
            "from": ["ann@demo.test"],
        }  # fmt: skip
        mailer_id = client.post("/v1/mailers", json=body).json()["id"]
        url = asked(client, mailer_id)
        assert parse_qs(urlsplit(url).query)["scope"] == ["offline_access Mail.ReadWrite Mail.Send"]
        page = api.get("/v1/mailers/oauth/callback", params=consented(url))
        assert page.status_code == 200, page.text
        assert reading(client, mailer_id) == 200
        assert client.get(f"/v1/mailers/{mailer_id}").json()["from"] == ["ann@demo.test"]
        assert client.post(f"/v1/mailers/{mailer_id}/test").json()["ok"]
        answer = client.post(f"/v1/mailers/{mailer_id}/disconnect").json()
        assert (answer["status"], answer["revoked"]) == ("reconnect_required", False)


def reading(client: TestClient, mailer_id: str) -> int:
    return client.get(f"/v1/mailers/{mailer_id}/mailbox").status_code


def test_a_mailbox_is_read_from_its_connection_on_until_somebody_ends_that(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str, session: Session
) -> None:
    assert reading(client, mailer_id) == 404
    api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    shown = client.get(f"/v1/mailers/{mailer_id}/mailbox").json()
    assert (shown["status"], shown["topic"]) == ("starting", None)
    failing = "update mailbox_watch set due_at = now() + interval '1 hour', tries = 7 where mailer_id = :id"
    due = "select due_at <= now() and tries = 0 from mailbox_watch where mailer_id = :id"
    resume, credentials = (
        f"/v1/mailers/{mailer_id}/resume",
        {"client_id": "c", "client_secret": "s", "refresh_token": "r"},
    )
    again: list[Callable[[], object]] = [
        lambda: api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id))),
        lambda: client.post(resume),
        lambda: client.patch(f"/v1/mailers/{mailer_id}", json={"credentials": credentials}),
    ]
    for reconnect in again:
        session.execute(text(failing), {"id": mailer_id})
        session.commit()
        reconnect()
        assert session.scalar(text(due), {"id": mailer_id}) is True
        session.rollback()
    assert client.delete(f"/v1/mailers/{mailer_id}/mailbox").status_code == 204
    client.patch(f"/v1/mailers/{mailer_id}", json={"credentials": {**credentials, "client_id": google.oauth.client_id}})
    again[0]()
    assert reading(client, mailer_id) == 404


def test_a_consent_that_only_sends_reads_nothing(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str
) -> None:
    google.oauth.scopes = "https://www.googleapis.com/auth/gmail.compose"
    assert api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id))).status_code == 200
    assert reading(client, mailer_id) == 404


def test_a_password_gives_way_to_the_consent(
    client: TestClient, api: TestClient, google: GmailEmulator, app_services: Services, session: Session
) -> None:
    mailer_id = made(client, google, "gmail_smtp", username="ann@demo.test")
    credentials = {
        "username": "ann@demo.test",
        "password": "old",
        "client_id": "client",
        "client_secret": "client-secret",
    }
    assert client.patch(f"/v1/mailers/{mailer_id}", json={"credentials": credentials}).json()["status"] == "active"
    url = asked(client, mailer_id)
    assert "login_hint=ann%40demo.test" in url
    assert api.get("/v1/mailers/oauth/callback", params=consented(url)).status_code == 200
    kept = sealed(app_services, session, mailer_id)
    assert "password" not in kept
    assert kept["refresh_token"] == google.oauth.refresh_token


def test_a_user_who_declines_is_told_so_and_nothing_changes(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str
) -> None:
    google.oauth.codes.declined = True
    page = api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    assert page.status_code == 400
    assert "access_denied" in page.text
    assert status(client, mailer_id) == "reconnect_required"


def test_a_consent_without_the_right_to_send_is_not_enough(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str
) -> None:
    google.oauth.scopes = "https://www.googleapis.com/auth/gmail.readonly"
    page = api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    assert page.status_code == 400
    assert "permission to send" in page.text
    assert status(client, mailer_id) == "reconnect_required"


def test_a_mailbox_whose_aliases_may_not_be_read_is_connected_all_the_same(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str
) -> None:
    google.oauth.scopes = "https://www.googleapis.com/auth/gmail.compose"
    page = api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    assert page.status_code == 200
    assert status(client, mailer_id) == "active"


@pytest.mark.parametrize("state", ["", "made-up", "\u00e4"])
def test_a_state_that_is_not_ours_reaches_no_provider(
    api: TestClient, google: GmailEmulator, mailer_id: str, state: str
) -> None:
    page = api.get("/v1/mailers/oauth/callback", params={"state": state, "code": "x"})
    assert page.status_code == 400
    assert google.calls == []


def test_a_state_is_good_for_ten_minutes(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    came_back = consented(asked(client, mailer_id))
    monkeypatch.setattr("api_shim.connecting.STATE_SECONDS", -1)
    late = consented(asked(client, mailer_id))
    assert "ten minutes" in api.get("/v1/mailers/oauth/callback", params=late).text
    assert api.get("/v1/mailers/oauth/callback", params=came_back).status_code == 200


def test_a_code_is_good_once_and_only_with_its_own_state(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str
) -> None:
    mine, stolen = consented(asked(client, mailer_id)), consented(asked(client, mailer_id))
    mixed = api.get("/v1/mailers/oauth/callback", params=mine | {"code": stolen["code"]})
    assert (mixed.status_code, "invalid_grant" in mixed.text) == (502, True)
    assert api.get("/v1/mailers/oauth/callback", params=mine).status_code == 200
    assert api.get("/v1/mailers/oauth/callback", params=mine).status_code == 502


def test_a_client_that_was_changed_meanwhile_gets_no_foreign_token(
    client: TestClient, api: TestClient, mailer_id: str
) -> None:
    came_back = consented(asked(client, mailer_id))
    client.patch(f"/v1/mailers/{mailer_id}", json={"credentials": {"client_id": "other", "client_secret": "x"}})
    page = api.get("/v1/mailers/oauth/callback", params=came_back)
    assert (page.status_code, "changed meanwhile" in page.text) == (400, True)


def test_a_deleted_mailer_is_not_connected(client: TestClient, api: TestClient, mailer_id: str) -> None:
    came_back = consented(asked(client, mailer_id))
    assert client.delete(f"/v1/mailers/{mailer_id}").status_code == 204
    assert api.get("/v1/mailers/oauth/callback", params=came_back).status_code == 404


def test_a_provider_that_is_down_is_named_as_such(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str
) -> None:
    came_back = consented(asked(client, mailer_id))
    google.fail(Fault.ERROR_503, path="/token")
    assert api.get("/v1/mailers/oauth/callback", params=came_back).status_code == 502


def test_nothing_a_provider_says_is_taken_for_markup(client: TestClient, api: TestClient, mailer_id: str) -> None:
    state = consented(asked(client, mailer_id))["state"]
    page = api.get("/v1/mailers/oauth/callback", params={"state": state, "error": "<script>alert(1)</script>"})
    assert "<script>" not in page.text


def test_a_paused_mailer_stays_paused(client: TestClient, api: TestClient, mailer_id: str) -> None:
    client.post(f"/v1/mailers/{mailer_id}/pause")
    assert api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id))).status_code == 200
    assert status(client, mailer_id) == "paused"


def test_a_disconnected_mailbox_is_revoked_and_forgotten(
    client: TestClient, api: TestClient, google: GmailEmulator, mailer_id: str, app_services: Services, session: Session
) -> None:
    api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    answer = client.post(f"/v1/mailers/{mailer_id}/disconnect").json()
    assert (answer["status"], answer["revoked"]) == ("reconnect_required", True)
    assert google.oauth.revoked
    assert set(sealed(app_services, session, mailer_id)) == {"client_id", "client_secret"}
    assert client.post(f"/v1/mailers/{mailer_id}/disconnect").status_code == 409
    page = api.get("/v1/mailers/oauth/callback", params=consented(asked(client, mailer_id)))
    assert (page.status_code, status(client, mailer_id)) == (200, "active")


@pytest.mark.parametrize(
    ("provider", "credentials"),
    [("smtp", {"host": "127.0.0.1"}), ("gmail_smtp", {"username": "ann@demo.test", "password": "x"})],
)
def test_what_has_no_oauth_client_cannot_be_connected(
    client: TestClient, provider: str, credentials: dict[str, str]
) -> None:
    made = client.post("/v1/mailers", json={"provider": provider, "credentials": credentials}).json()
    assert client.post(f"/v1/mailers/{made['id']}/connect").status_code == 409


def test_a_redirect_uri_must_be_an_address_of_the_web(client: TestClient, mailer_id: str) -> None:
    assert client.post(f"/v1/mailers/{mailer_id}/connect", json={"redirect_uri": "ftp://x"}).status_code == 400
    assert "https%3A%2F%2Fcrm.test%2Fback" in asked(client, mailer_id, redirect_uri="https://crm.test/back")


def test_nobody_else_can_connect_or_disconnect_it(other: TestClient, mailer_id: str) -> None:
    assert other.post(f"/v1/mailers/{mailer_id}/connect").status_code == 404
    assert other.post(f"/v1/mailers/{mailer_id}/disconnect").status_code == 404
    assert other.get(f"/v1/mailers/{mailer_id}/budget").status_code == 404
