"""Contacts, deals and customers, under both of their names, and their timelines."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from models.crm import Activity
from tests.api_shim.conftest import Tenant, as_caller, new_tenant

ALIASES = [("deals", "opportunities"), ("customers", "companies")]
COLLECTIONS = ["contacts", "deals", "opportunities", "customers", "companies"]


def put(client: TestClient, path: str, body: dict[str, Any]) -> str:
    """Makes an entity; returns its id."""
    id_ = str(uuid4())
    answer = client.put(f"/v1/{path}/{id_}", json=body)
    assert answer.status_code == 201, answer.text
    return id_


def add_activity(session: Session, tenant: Tenant, entity_id: str, *, minutes: int, kind: str = "email_sent") -> UUID:
    activity = Activity(
        workspace_id=tenant.workspace_id,
        entity_type="contact",
        entity_id=UUID(entity_id),
        message_id=uuid4(),
        kind=kind,
        direction="outbound",
        subject=f"minute {minutes}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes),
    )
    session.add(activity)
    session.commit()
    return activity.id


def test_a50_a_contact_put_under_the_callers_id_is_read_back_under_it(client: TestClient) -> None:
    id_ = put(client, "contacts", {"email": "Grace@EXAMPLE.com", "name": "Grace"})
    found = client.get(f"/v1/contacts/{id_}").json()
    assert found.pop("created_at")
    assert found == {"id": id_, "email": "Grace@example.com", "name": "Grace"}


def test_a_second_put_replaces_and_answers_200(client: TestClient) -> None:
    id_ = put(client, "contacts", {"email": "grace@example.com", "name": "Grace"})
    answer = client.put(f"/v1/contacts/{id_}", json={"name": "G. Hopper"})
    assert answer.status_code == 200
    assert client.get(f"/v1/contacts/{id_}").json()["email"] is None
    assert client.get(f"/v1/contacts/{id_}").json()["name"] == "G. Hopper"


@pytest.mark.parametrize(("name", "alias"), ALIASES)
def test_a50_what_is_put_under_one_name_is_found_under_its_alias(client: TestClient, name: str, alias: str) -> None:
    id_ = put(client, alias, {"name": "First"})
    assert client.get(f"/v1/{name}/{id_}").json() == client.get(f"/v1/{alias}/{id_}").json()
    assert [row["id"] for row in client.get(f"/v1/{name}").json()["data"]] == [id_]
    assert client.get(f"/v1/{name}/{id_}/activities").json() == {"data": [], "next_cursor": None}


def test_a_deal_keeps_its_contact_and_customer(client: TestClient) -> None:
    contact, customer = put(client, "contacts", {}), put(client, "customers", {"domain": "example.com"})
    deal = put(client, "deals", {"name": "First", "contact_id": contact, "customer_id": customer})
    found = client.get(f"/v1/deals/{deal}").json()
    assert (found["contact_id"], found["customer_id"]) == (contact, customer)
    assert [row["id"] for row in client.get("/v1/deals", params={"contact_id": contact}).json()["data"]] == [deal]
    assert client.get("/v1/deals", params={"customer_id": str(uuid4())}).json()["data"] == []


def test_a_deal_with_links_that_do_not_exist_names_each_of_them(client: TestClient) -> None:
    body = {"contact_id": str(uuid4()), "customer_id": str(uuid4())}
    answer = client.put(f"/v1/deals/{uuid4()}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "VALIDATION_ERROR"
    missing = answer.json()["details"]["missing_entities"]
    assert all(value in str(missing) for value in body.values())


def test_a_deal_cannot_link_to_another_workspaces_contact(client: TestClient, other: TestClient) -> None:
    theirs = put(other, "contacts", {})
    assert client.put(f"/v1/deals/{uuid4()}", json={"contact_id": theirs}).status_code == 400


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a7_a50_another_workspaces_entity_does_not_exist(
    client: TestClient, other: TestClient, collection: str
) -> None:
    id_ = put(client, collection, {"name": "ours"})
    one = f"/v1/{collection}/{id_}"
    answers = [
        other.get(one),
        other.put(one, json={"name": "theirs"}),
        other.delete(one),
        other.get(one + "/activities"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert {answer.json()["error"] for answer in answers} == {"NOT_FOUND"}
    assert other.get(f"/v1/{collection}").json()["data"] == []
    assert client.get(one).json()["name"] == "ours"


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_deleted_entity_is_gone(client: TestClient, collection: str) -> None:
    one = f"/v1/{collection}/{put(client, collection, {})}"
    answer = client.delete(one)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(one).status_code == 404
    assert client.delete(one).status_code == 404
    assert client.get(one + "/activities").status_code == 404


def test_deleting_a_contact_unlinks_its_deals(client: TestClient) -> None:
    contact, customer = put(client, "contacts", {}), put(client, "customers", {})
    deal = put(client, "deals", {"contact_id": contact, "customer_id": customer})
    client.delete(f"/v1/contacts/{contact}")
    found = client.get(f"/v1/deals/{deal}").json()
    assert (found["contact_id"], found["customer_id"]) == (None, customer)


def test_the_timeline_shows_the_newest_activity_first(client: TestClient, tenant: Tenant, session: Session) -> None:
    id_ = put(client, "contacts", {})
    for minutes in (5, 1, 3):
        add_activity(session, tenant, id_, minutes=minutes)
    rows = client.get(f"/v1/contacts/{id_}/activities").json()["data"]
    assert [row["subject"] for row in rows] == ["minute 5", "minute 3", "minute 1"]
    assert set(rows[0]) == {
        "id", "entity_type", "entity_id", "message_id", "kind", "direction", "subject", "detail", "created_at",
    }  # fmt: skip
    assert (rows[0]["entity_type"], rows[0]["entity_id"], rows[0]["kind"]) == ("contact", id_, "email_sent")


def test_the_timelines_cursor_neither_repeats_nor_skips(client: TestClient, tenant: Tenant, session: Session) -> None:
    id_ = put(client, "contacts", {})
    made = {str(add_activity(session, tenant, id_, minutes=number // 2)) for number in range(5)}
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        body = client.get(f"/v1/contacts/{id_}/activities", params=params).json()
        seen += [row["id"] for row in body["data"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 5
    assert set(seen) == made


def test_the_timeline_outlives_its_contact(client: TestClient, tenant: Tenant, session: Session) -> None:
    id_ = put(client, "contacts", {})
    add_activity(session, tenant, id_, minutes=1)
    client.delete(f"/v1/contacts/{id_}")
    assert len(client.get(f"/v1/contacts/{id_}/activities").json()["data"]) == 1


def test_a_timeline_is_not_shown_to_another_workspace(
    client: TestClient, other: TestClient, tenant: Tenant, session: Session
) -> None:
    id_ = put(client, "contacts", {})
    add_activity(session, tenant, id_, minutes=1)
    assert other.get(f"/v1/contacts/{id_}/activities").status_code == 404


def test_a_contacts_activities_are_not_a_deals(client: TestClient, tenant: Tenant, session: Session) -> None:
    id_ = put(client, "contacts", {})
    assert client.put(f"/v1/deals/{id_}", json={}).status_code == 201
    add_activity(session, tenant, id_, minutes=1)
    assert client.get(f"/v1/deals/{id_}/activities").json()["data"] == []


def test_contacts_are_found_by_address_in_either_case_and_by_part_of_a_name(client: TestClient) -> None:
    grace = put(client, "contacts", {"email": "Grace@example.com", "name": "Grace Hopper"})
    put(client, "contacts", {"email": "ada@example.com", "name": "100% Ada"})
    assert [row["id"] for row in client.get("/v1/contacts?email=grace@example.com").json()["data"]] == [grace]
    assert [row["id"] for row in client.get("/v1/contacts?search=hopp").json()["data"]] == [grace]
    assert [row["name"] for row in client.get("/v1/contacts", params={"search": "%"}).json()["data"]] == ["100% Ada"]


def test_a_list_is_paged(client: TestClient) -> None:
    made = sorted((put(client, "customers", {"name": str(number)}) for number in range(3)), reverse=True)
    first = client.get("/v1/customers?limit=2").json()
    second = client.get("/v1/customers", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in first["data"] + second["data"]] == made
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"email": "no address"}', "email"),
        ('{"email": 5}', "email"),
        ('{"name": "a\\u0000b"}', "name"),
        ('{"name": "a\\ud800b"}', "name"),
        ('{"name": "a\\nb"}', "name"),
        ('{"nmae": "typo"}', "nmae"),
        ('{"\\ud800": 1}', "ud800"),
        ('{"email": NaN}', "email"),
    ],
)
def test_a_bad_body_names_its_field(client: TestClient, body: str, field: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.put(f"/v1/contacts/{uuid4()}", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "VALIDATION_ERROR"
    assert field in answer.text


@pytest.mark.parametrize(
    "query", ["email=%00", "search=%00", "search=%ED%A0%80", "cursor=%00", "cursor=W10", "limit=0"]
)
def test_a_bad_query_is_a_400_or_finds_nothing(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/contacts?{query}")
    assert answer.status_code == 400 or answer.json()["data"] == []


def test_an_id_that_is_no_uuid_is_a_400(client: TestClient) -> None:
    assert client.get("/v1/contacts/5").status_code == 400


def test_each_scope_opens_its_own_calls(api: TestClient, app_services: Any) -> None:
    reader = as_caller(api, new_tenant(app_services, ("crm:read",)).key)
    writer = as_caller(api, new_tenant(app_services, ("crm:write",)).key)
    id_ = uuid4()
    refused = [
        reader.put(f"/v1/contacts/{id_}", json={}),
        reader.delete(f"/v1/contacts/{id_}"),
        writer.get("/v1/contacts"),
        writer.get(f"/v1/contacts/{id_}"),
        writer.get(f"/v1/contacts/{id_}/activities"),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert reader.get("/v1/contacts").status_code == 200
    assert writer.put(f"/v1/contacts/{id_}", json={}).status_code == 201
    assert api.get("/v1/contacts").status_code == 401
