"""The people of a workspace."""

from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from api_shim.services import Services
from tests.api_shim.conftest import Tenant, as_caller, new_tenant


def made(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/users", json={"email": "grace@mail.test", "name": "Grace"} | changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_user_is_made_read_changed_and_deleted(client: TestClient) -> None:
    body = made(client)
    one = f"/v1/users/{body['id']}"
    assert client.get(one).json() == body
    changed = client.put(one, json={"email": "hopper@mail.test"})
    assert changed.json() == body | {"email": "hopper@mail.test", "name": None}
    assert client.get(one).json() == changed.json()
    assert client.delete(one).status_code == 204
    assert client.get(one).status_code == 404
    assert client.delete(one).status_code == 404


def test_users_are_listed_and_found_by_address(client: TestClient, tenant: Tenant) -> None:
    id_ = made(client, email="Grace@mail.test")["id"]
    assert [row["id"] for row in client.get("/v1/users").json()["data"]] == [id_, str(tenant.user_id)]
    assert [row["id"] for row in client.get("/v1/users?email=grace@MAIL.test").json()["data"]] == [id_]
    first = client.get("/v1/users?limit=1").json()
    rest = client.get("/v1/users", params={"cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in rest["data"]] == [str(tenant.user_id)]


def test_an_address_is_one_users_in_a_workspace(client: TestClient, other: TestClient) -> None:
    made(client)
    second = made(client, email="second@mail.test")["id"]
    taken = {"email": "grace@mail.test"}
    answers = [client.post("/v1/users", json=taken), client.put(f"/v1/users/{second}", json=taken)]
    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [(409, "CONFLICT")] * 2
    made(other)


@pytest.mark.parametrize(
    "body", [{}, {"email": "nobody"}, {"email": "a@b.test", "name": "a\0"}, {"email": "a@b.test", "role": "admin"}]
)
def test_a_bad_body_is_a_400(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/v1/users", json=body).status_code == 400


def test_a_user_with_a_mailbox_stays(client: TestClient, tenant: Tenant) -> None:
    body = {"provider": "postmark", "credentials": {"server_token": "t"}, "user_id": str(tenant.user_id)}
    mailer = client.post("/v1/mailers", json=body).json()["id"]
    answer = client.delete(f"/v1/users/{tenant.user_id}")
    assert (answer.status_code, answer.json()["error"]) == (409, "CONFLICT")
    assert mailer in answer.text
    client.delete(f"/v1/mailers/{mailer}")
    assert client.delete(f"/v1/users/{tenant.user_id}").status_code == 204


def test_the_keys_of_a_deleted_user_are_revoked(api: TestClient, client: TestClient, tenant: Tenant) -> None:
    body = {"name": "ada's", "scopes": ["crm:read"], "user_id": str(tenant.user_id)}
    key = client.post("/v1/keys", json=body).json()
    client.delete(f"/v1/users/{tenant.user_id}")
    assert as_caller(api, key["key"]).get("/v1/contacts").status_code == 401
    revoked = client.get("/v1/ops/audit?action=key.revoked").json()["data"]
    assert [entry["target"] for entry in revoked] == [key["id"]]


def test_another_workspaces_user_does_not_exist(client: TestClient, other: TestClient) -> None:
    one = f"/v1/users/{made(client)['id']}"
    answers = [other.get(one), other.put(one, json={"email": "a@b.test"}), other.delete(one)]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert one.rpartition("/")[2] not in other.get("/v1/users").text


def test_reading_and_writing_are_different_scopes(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("users:read",)).key)
    writer = as_caller(api, new_tenant(app_services, ("users:write",)).key)
    assert reader.get("/v1/users").status_code == 200
    assert reader.post("/v1/users", json={"email": "a@b.test"}).status_code == 403
    assert reader.delete(f"/v1/users/{uuid4()}").status_code == 403
    assert writer.get("/v1/users").status_code == 403
    assert writer.post("/v1/users", json={"email": "a@b.test"}).status_code == 201
