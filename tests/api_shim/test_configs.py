"""The company's senders: what may be written, under which code the rest is refused, and which one is the default."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.record_rows import add_mailer

PATH = "/v1/email/configs"


def body(**changes: Any) -> dict[str, Any]:
    return {"from_email_handle": "support", "from_name": "Support", "staff_email": "team@example.com"} | changes


def make(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post(PATH, json=body(**changes))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def refusal(client: TestClient, id_: str | None = None, **changes: Any) -> dict[str, Any]:
    """The answer to a POST, or to a PATCH of ``id_``, that must be refused with 400."""
    answer = client.patch(f"{PATH}/{id_}", json=changes) if id_ else client.post(PATH, json=body(**changes))
    assert answer.status_code == 400, answer.text
    refused: dict[str, Any] = answer.json()
    return refused


def defaults(client: TestClient) -> list[str]:
    return [config["id"] for config in client.get(PATH).json()["data"] if config["is_default"]]


def test_a46_a47_the_server_composes_the_address(client: TestClient) -> None:
    made = make(client, from_email_handle="Support.Team")
    assert made["from_email_handle"] == "support.team"
    assert made["from_email"] == "support.team@mail.test"
    assert made["created_at"]
    assert client.get(f"{PATH}/{made['id']}").json() == made
    assert client.get(PATH).json() == {"data": [made], "next_cursor": None}
    assert {name: made[name] for name in ("gmail_user_id", "gmail_sender_alias", "mailer_id")} == {
        "gmail_user_id": None,
        "gmail_sender_alias": None,
        "mailer_id": None,
    }


def test_a48_a_patch_changes_what_it_names(client: TestClient) -> None:
    made = make(client)
    changed = client.patch(f"{PATH}/{made['id']}", json={"from_email_handle": "help", "from_name": None})
    assert changed.status_code == 200
    assert changed.json() == made | {"from_email_handle": "help", "from_email": "help@mail.test"}
    assert client.get(f"{PATH}/{made['id']}").json() == changed.json()


@pytest.mark.parametrize(
    "handle",
    ["", " ", "a@b", "support@mail.test", ".a", "a.", "a..b", "a b", "a" * 65, "ü", "a\n", "a/b", "-a!"],
)
def test_a33_a_bad_handle_has_a_code_of_its_own(client: TestClient, handle: str) -> None:
    assert refusal(client, from_email_handle=handle)["error"] == "INVALID_FROM_EMAIL_HANDLE"
    made = make(client)
    assert refusal(client, made["id"], from_email_handle=handle)["error"] == "INVALID_FROM_EMAIL_HANDLE"


@pytest.mark.parametrize("handle", ["a", "a.b-c_d", "-a", "0", "a" * 64])
def test_a_good_handle_is_taken(client: TestClient, handle: str) -> None:
    assert make(client, from_email_handle=handle)["from_email"] == f"{handle}@mail.test"


@pytest.mark.parametrize("value", ["sales@mail.test", None, 5])
def test_a32_the_legacy_from_email_is_refused_whatever_else_is_wrong(client: TestClient, value: Any) -> None:
    made = make(client)
    assert refusal(client, from_email=value, from_name=5, unknown=1)["error"] == "FROM_EMAIL_NOT_WRITABLE"
    assert refusal(client, made["id"], from_email=value, staff_email="x")["error"] == "FROM_EMAIL_NOT_WRITABLE"


def test_a47_all_that_is_missing_or_wrong_is_listed_at_once(client: TestClient) -> None:
    answer = client.post(PATH, json={"staff_email": "nobody", "colour": "red"})
    assert answer.status_code == 400
    fields = {fault["field"] for fault in answer.json()["details"]["fields"]}
    assert fields == {"from_email_handle", "from_name", "staff_email", "colour"}


@pytest.mark.parametrize("name", ["", "a\r\nBcc: x@example.com", "a\0", "=?utf-8?q?a=0D=0Ab?="])
def test_a_name_that_does_not_fit_into_a_header_is_refused(client: TestClient, name: str) -> None:
    assert refusal(client, from_name=name)["error"] == "VALIDATION_ERROR"


def test_one_handle_is_one_sender(client: TestClient) -> None:
    first = make(client)
    again = client.post(PATH, json=body(from_email_handle="SUPPORT"))
    assert (again.status_code, again.json()["error"]) == (409, "CONFLICT")
    assert again.json()["details"]["used_by"] == first["id"]
    assert client.patch(f"{PATH}/{first['id']}", json={"from_email_handle": "support"}).status_code == 200


def test_a36_an_alias_needs_its_gmail_user(client: TestClient) -> None:
    made = make(client)
    assert refusal(client, gmail_sender_alias="sales@mail.test")["error"] == "GMAIL_USER_REQUIRED"
    assert refusal(client, made["id"], gmail_sender_alias="sales@mail.test")["error"] == "GMAIL_USER_REQUIRED"


@pytest.mark.parametrize(
    "mailer",
    [
        None,
        {"provider": "smtp"},
        {"provider": "gmail", "status": "reconnect_required"},
        {"provider": "gmail", "user_id": None},
    ],
)
def test_a35_a_user_without_a_connected_gmail_is_refused(
    client: TestClient, session: Session, tenant: Tenant, mailer: dict[str, Any] | None
) -> None:
    if mailer is not None:
        add_mailer(session, tenant, **({"user_id": tenant.user_id} | mailer))
    refused = refusal(client, gmail_user_id=str(tenant.user_id), gmail_sender_alias="hello@mail.test")
    assert refused["error"] == "GMAIL_NOT_CONNECTED"


def test_a34_an_alias_must_be_one_of_the_connected_mailbox(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    add_mailer(session, tenant, provider="gmail", user_id=tenant.user_id, from_addresses=["Sales@mail.test"])
    refused = refusal(client, gmail_user_id=str(tenant.user_id), gmail_sender_alias="boss@mail.test")
    assert refused["error"] == "ALIAS_NOT_CONNECTED"
    assert refused["details"]["send_as_aliases"] == ["Sales@mail.test"]
    made = make(client, gmail_user_id=str(tenant.user_id), gmail_sender_alias="sales@mail.test")
    assert made["gmail_sender_alias"] == "sales@mail.test"
    assert refusal(client, made["id"], gmail_sender_alias="boss@mail.test")["error"] == "ALIAS_NOT_CONNECTED"
    assert refusal(client, made["id"], gmail_user_id=None)["error"] == "GMAIL_USER_REQUIRED"
    emptied = client.patch(f"{PATH}/{made['id']}", json={"gmail_user_id": None, "gmail_sender_alias": None}).json()
    assert (emptied["gmail_user_id"], emptied["gmail_sender_alias"]) == (None, None)


def test_a_config_of_a_mailbox_that_was_lost_can_still_be_renamed(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    mailbox = add_mailer(session, tenant, provider="gmail", user_id=tenant.user_id)
    made = make(client, gmail_user_id=str(tenant.user_id), gmail_sender_alias="hello@mail.test", mailer_id=str(mailbox))
    assert client.delete(f"/v1/mailers/{mailbox}").status_code in (200, 204)
    assert client.patch(f"{PATH}/{made['id']}", json={"from_name": "New"}).status_code == 200


def test_foreign_and_unknown_ids_are_listed_together(
    client: TestClient, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    foreign, unknown = str(add_mailer(session, other_tenant)), str(uuid4())
    assert refusal(client, gmail_user_id=unknown, mailer_id=foreign) == {
        "error": "VALIDATION_ERROR",
        "details": {
            "missing_entities": [{"field": "gmail_user_id", "id": unknown}, {"field": "mailer_id", "id": foreign}]
        },
    }


def test_a_workspace_has_one_default_the_first_unless_another_is_made_it(client: TestClient) -> None:
    first, second = make(client), make(client, from_email_handle="sales")
    assert defaults(client) == [first["id"]]
    third = make(client, from_email_handle="third", is_default=True)
    assert defaults(client) == [third["id"]]
    client.patch(f"{PATH}/{second['id']}", json={"is_default": True})
    assert defaults(client) == [second["id"]]
    client.patch(f"{PATH}/{second['id']}", json={"is_default": True, "from_name": "Still"})
    assert defaults(client) == [second["id"]]


def test_a49_when_the_default_is_deleted_the_oldest_takes_its_place(client: TestClient) -> None:
    first, second = make(client), make(client, from_email_handle="sales")
    assert client.delete(f"{PATH}/{first['id']}").status_code == 204
    assert defaults(client) == [second["id"]]
    assert client.get(f"{PATH}/{first['id']}").status_code == 404
    assert client.delete(f"{PATH}/{second['id']}").status_code == 204
    assert client.get(PATH).json()["data"] == []


def test_a7_another_workspaces_config_is_not_there(client: TestClient, other: TestClient) -> None:
    made = make(client)
    path = f"{PATH}/{made['id']}"
    answers = [other.get(path), other.patch(path, json={"from_name": "Mine"}), other.delete(path)]
    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [(404, "NOT_FOUND")] * 3
    assert make(other)["is_default"], "the same handle is free in another workspace"
    assert client.get(path).json() == made


def test_a46_configs_are_paged(client: TestClient) -> None:
    ids = [make(client, from_email_handle=f"h{number}")["id"] for number in range(3)]
    page = client.get(f"{PATH}?limit=2").json()
    rest = client.get(f"{PATH}?limit=2&cursor={page['next_cursor']}").json()
    assert [row["id"] for row in page["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None


def test_a3_a6_reading_needs_email_read_and_writing_its_own_scope(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("email:read", "email:write")).key)
    assert reader.get(PATH).status_code == 200
    refused = reader.post(PATH, json={"from_email": "a@b"})
    assert (refused.status_code, refused.json()["details"]) == (403, {"required_scope": "email-config:write"})
    writer = as_caller(api, new_tenant(app_services, ("email-config:write",)).key)
    assert writer.get(PATH).status_code == 403
    assert writer.post(PATH, json=body()).status_code == 201
