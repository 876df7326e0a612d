"""API keys: shown once, bound to what their maker may do, gone when revoked."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.auth import CHECKSUM_CHARACTERS, checksum
from api_shim.services import Services
from models.access import ApiKey
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.record_rows import add_mailer


def made(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"name": "shop", "scopes": ["crm:read"], "expires_at": None} | changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_new_key_opens_what_it_was_made_for_and_nothing_else(api: TestClient, client: TestClient) -> None:
    fresh = as_caller(api, made(client)["key"])
    assert fresh.get("/v1/contacts").status_code == 200
    refused = fresh.get("/v1/keys")
    assert (refused.status_code, refused.json()["details"]) == (403, {"required_scope": "keys:read"})


def test_a_key_is_shown_once_and_stored_as_a_hash(client: TestClient, session: Session) -> None:
    body = made(client)
    shown = client.get("/v1/keys").text + client.get(f"/v1/keys/{body['id']}").text + client.get("/v1/ops/audit").text
    secret = body["key"].removeprefix("postroad_live_")[12:]
    assert secret not in shown
    assert body["key"].startswith(body["prefix"])
    row = session.get_one(ApiKey, UUID(body["id"]))
    assert secret.encode() not in row.secret_hash
    assert {name: value for name, value in body.items() if name != "key"} == client.get(f"/v1/keys/{body['id']}").json()


def test_the_alias_of_the_mailbox_api_becomes_its_scopes(client: TestClient) -> None:
    assert made(client, scopes=["write:email"])["scopes"] == ["email:send", "email:write"]


def test_a_key_cannot_grant_what_it_lacks(api: TestClient, app_services: Services) -> None:
    small = as_caller(api, new_tenant(app_services, ("keys:write", "crm:read")).key)
    assert small.post("/v1/keys", json={"name": "a", "scopes": ["crm:read"]}).status_code == 201
    answer = small.post("/v1/keys", json={"name": "a", "scopes": ["crm:read", "mailers:write"]})
    assert answer.status_code == 400
    assert "mailers:write" in answer.text
    assert small.post("/v1/keys", json={"name": "a", "scopes": ["write:email"]}).status_code == 400


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scopes": ["email:fly"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "crm:read"}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": "a\0"}, "name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"user_id": str(uuid4())}, "user_id"),
        ({"caps": {"per_second": 0}}, "caps.per_second"),
        ({"caps": {"per_year": 1}}, "caps.per_year"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(client: TestClient, changes: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/keys", json={"name": "shop", "scopes": ["crm:read"]} | changes)
    assert answer.status_code == 400, answer.text
    assert f'"field":"{field}' in answer.text
    assert len(client.get("/v1/keys").json()["data"]) == 1


def test_a_body_without_a_content_type_is_json(client: TestClient) -> None:
    answer = client.post("/v1/keys", content=b'{"name": "shop", "scopes": ["crm:read"]}')
    assert answer.status_code == 201, answer.text


def test_a_key_ends_at_its_time(api: TestClient, client: TestClient) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    fresh = as_caller(api, made(client, expires_at=soon.isoformat())["key"])
    assert fresh.get("/v1/contacts").status_code == 200
    with time_machine.travel(soon + timedelta(seconds=1), tick=True):
        assert fresh.get("/v1/contacts").status_code == 401


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(api: TestClient, client: TestClient) -> None:
    body = made(client)
    fresh = as_caller(api, body["key"])
    for _ in range(2):
        assert client.delete(f"/v1/keys/{body['id']}").status_code == 204
    assert fresh.get("/v1/contacts").status_code == 401
    assert client.get(f"/v1/keys/{body['id']}").json()["revoked_at"] is not None
    actions = [row["action"] for row in client.get("/v1/ops/audit", params={"target": body["id"]}).json()["data"]]
    assert actions == ["key.revoked", "key.created"]


def test_caps_and_user_are_kept(client: TestClient, tenant: Tenant, session: Session) -> None:
    body = made(client, caps={"per_second": 5, "per_day": None}, user_id=str(tenant.user_id))
    assert (body["caps"], body["user_id"]) == ({"per_second": 5}, str(tenant.user_id))
    assert session.get_one(ApiKey, UUID(body["id"])).caps == {"per_second": 5}


def test_a_key_that_is_capped_cannot_grant_more_than_it_has(api: TestClient, client: TestClient) -> None:
    own = {"name": "own", "scopes": ["keys:write", "email:send"], "caps": {"per_second": 5, "per_day": 100}}
    capped = as_caller(api, client.post("/v1/keys", json=own).json()["key"])
    new = {"name": "new", "scopes": ["email:send"]}
    assert capped.post("/v1/keys", json=new).json()["caps"] == own["caps"]
    fewer = capped.post("/v1/keys", json=new | {"caps": {"per_day": 10}})
    assert fewer.json()["caps"] == {"per_second": 5, "per_day": 10}
    more = capped.post("/v1/keys", json=new | {"caps": {"per_day": 101}})
    assert more.status_code == 400
    assert [fault["field"] for fault in more.json()["details"]["fields"]] == ["caps.per_day"]


def test_keys_made_with_a_capped_key_share_its_cap_however_many_they_are(
    api: TestClient, client: TestClient, session: Session, tenant: Tenant
) -> None:
    mailer_id = add_mailer(session, tenant)
    scopes = {"scopes": ["keys:write", "email:send"]}
    capped = as_caller(api, made(client, caps={"per_day": 3}, **scopes)["key"])
    children = [as_caller(api, made(capped, **scopes)["key"]) for _ in range(3)]
    grandchild = as_caller(api, made(children[0], caps={"per_day": 2}, **scopes)["key"])
    senders = [capped, *children, grandchild]
    mail = {"from": {"email": "hello@mail.test"}, "to": [{"email": "b@example.com"}], "subject": "x", "settings": {},
            "mailer_id": str(mailer_id), "content": [{"type": "text/plain", "value": "x"}]}  # fmt: skip
    statuses = [sender.post("/v1/email/send", json=mail).status_code for sender in senders]
    assert statuses == [202, 202, 202, 429, 429]


def test_a_key_that_ends_makes_none_that_outlives_it(api: TestClient, client: TestClient) -> None:
    end = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    ending = as_caller(api, made(client, scopes=["keys:write", "crm:read"], expires_at=end.isoformat())["key"])
    assert datetime.fromisoformat(made(ending)["expires_at"]) == end
    sooner = end - timedelta(hours=1)
    assert datetime.fromisoformat(made(ending, expires_at=sooner.isoformat())["expires_at"]) == sooner
    later = {"name": "a", "scopes": ["crm:read"], "expires_at": (end + timedelta(seconds=1)).isoformat()}
    answer = ending.post("/v1/keys", json=later)
    assert answer.status_code == 400
    assert "your own key ends at" in answer.text


def test_a_key_can_be_told_from_what_only_looks_like_one(client: TestClient) -> None:
    key = made(client)["key"]
    assert key[-CHECKSUM_CHARACTERS:] == checksum(key[:-CHECKSUM_CHARACTERS])
    assert key[-CHECKSUM_CHARACTERS:] != checksum(key[: -CHECKSUM_CHARACTERS - 1] + "x")
    assert len(key.removeprefix("postroad_live_")) == 12 + 43 + CHECKSUM_CHARACTERS


def test_another_workspaces_key_does_not_exist(api: TestClient, client: TestClient, other: TestClient) -> None:
    body = made(client)
    assert other.get(f"/v1/keys/{body['id']}").status_code == 404
    assert other.delete(f"/v1/keys/{body['id']}").status_code == 404
    assert body["id"] not in other.get("/v1/keys").text
    assert as_caller(api, body["key"]).get("/v1/contacts").status_code == 200


def test_another_workspaces_user_is_missing(other: TestClient, tenant: Tenant) -> None:
    body = {"name": "a", "scopes": ["crm:read"], "user_id": str(tenant.user_id)}
    answer = other.post("/v1/keys", json=body)
    missing = [{"field": "user_id", "id": str(tenant.user_id)}]
    assert (answer.status_code, answer.json()["details"]["missing_entities"]) == (400, missing)


def test_reading_and_writing_are_different_scopes(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("keys:read",)).key)
    writer = as_caller(api, new_tenant(app_services, ("keys:write",)).key)
    assert reader.get("/v1/keys").status_code == 200
    assert reader.post("/v1/keys", json={"name": "a", "scopes": ["keys:read"]}).status_code == 403
    assert reader.delete(f"/v1/keys/{uuid4()}").status_code == 403
    assert writer.get("/v1/keys").status_code == 403
