"""The conversations of the inbox: found by what people look for, shown with whom they belong to."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.blob import Blob
from models.crm import Contact, Customer, Deal
from models.record import Thread
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.record_rows import add_inbound, add_log, add_thread


def found(client: TestClient, query: str = "") -> list[str]:
    answer = client.get(f"/v1/email/threads?{query}")
    assert answer.status_code == 200, answer.text
    return [thread["id"] for thread in answer.json()["data"]]


def link(session: Session, tenant: Tenant) -> dict[str, Any]:
    """A contact, a deal and a customer, by the column that names them."""
    contact = Contact(id=uuid4(), workspace_id=tenant.workspace_id, email="grace@example.com", name="Grace")
    deal = Deal(id=uuid4(), workspace_id=tenant.workspace_id, name="First order")
    customer = Customer(id=uuid4(), workspace_id=tenant.workspace_id, name="Example Ltd", domain="example.com")
    session.add_all([contact, deal, customer])
    session.commit()
    return {"contact_id": contact.id, "deal_id": deal.id, "customer_id": customer.id}


def test_a37_a38_a_thread_is_shown_with_everything_it_belongs_to(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    linked = link(session, tenant)
    id_ = add_thread(session, tenant, at=5, **linked)
    add_log(session, tenant, thread_id=id_)
    add_inbound(session, tenant, id_)
    shown = client.get(f"/v1/email/threads/{id_}").json()
    assert shown.pop("created_at")
    assert shown == {
        "id": str(id_),
        "subject": "Offer",
        "participants": ["grace@example.com"],
        "status": "active",
        "is_read": True,
        "direction": "outbound",
        "has_inbound": False,
        "has_outbound": True,
        "message_count": 2,
        "contact": {"id": str(linked["contact_id"]), "name": "Grace", "email": "grace@example.com"},
        "deal": {"id": str(linked["deal_id"]), "name": "First order"},
        "customer": {"id": str(linked["customer_id"]), "name": "Example Ltd", "domain": "example.com"},
        "last_message_at": "2026-01-01T00:05:00Z",
    }
    assert client.get("/v1/email/threads").json()["data"][0]["contact"] == shown["contact"]


def test_a_thread_whose_contact_was_deleted_is_shown_unlinked(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    id_ = add_thread(session, tenant, contact_id=uuid4())
    shown = client.get(f"/v1/email/threads/{id_}").json()
    assert shown["contact"] is shown["deal"] is shown["customer"] is None


def test_a_contact_of_another_workspace_is_never_shown(
    client: TestClient, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    id_ = add_thread(session, tenant, contact_id=link(session, other_tenant)["contact_id"])
    assert client.get(f"/v1/email/threads/{id_}").json()["contact"] is None


def test_pages_follow_each_other_by_latest_activity_even_at_the_same_moment(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    ids = [str(add_thread(session, tenant, at=at)) for at in (0, 1, 1, 1, 2)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/v1/email/threads?limit=2{cursor}").json()
        seen += [thread["id"] for thread in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


def test_a_list_takes_the_same_number_of_queries_however_long(
    client: TestClient, session: Session, tenant: Tenant, app_services: Services
) -> None:
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    def queries() -> int:
        statements.clear()
        client.get("/v1/email/threads")
        return len(statements)

    event.listen(app_services.engine, "before_cursor_execute", note)
    try:
        add_thread(session, tenant, **link(session, tenant))
        queries()  # the first call of a key notes its use
        of_one = queries()
        for _ in range(4):
            add_thread(session, tenant, **link(session, tenant))
        assert queries() == of_one
    finally:
        event.remove(app_services.engine, "before_cursor_execute", note)


@pytest.mark.parametrize(
    ("search", "matches"),
    [
        ("invoice", True),
        ("INVOICE november", True),
        ("november+inv", True),
        ("inv", True),
        ("voice", False),
        ("invoice december", False),
        ('"for november"', True),
        ('"november for"', False),
        ("december or november", True),
        ("invoice -november", False),
        ("invoice -december", True),
        ("été", True),
        ("!&|:*()<->'\\", False),
        ("   ", False),
    ],
)
def test_a37_search_finds_words_of_the_subject_and_the_word_being_typed(
    client: TestClient, session: Session, tenant: Tenant, search: str, matches: bool
) -> None:
    id_ = add_thread(session, tenant, subject="Invoice 42 for November, été")
    add_thread(session, tenant, subject="Something else")
    answer = client.get("/v1/email/threads", params={"search": search.replace("+", " ")})
    assert answer.status_code == 200, answer.text
    assert [thread["id"] for thread in answer.json()["data"]] == ([str(id_)] if matches else [])


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("contact_id", "contact_id"),
        ("deal_id", "deal_id"),
        ("opportunity_id", "deal_id"),
        ("customer_id", "customer_id"),
        ("company_id", "customer_id"),
    ],
)
def test_a37_threads_are_found_by_entity_under_either_name(
    client: TestClient, session: Session, tenant: Tenant, name: str, column: str
) -> None:
    mine: dict[str, Any] = {column: uuid4()}
    another: dict[str, Any] = {column: uuid4()}
    id_ = add_thread(session, tenant, **mine)
    add_thread(session, tenant, **another)
    assert found(client, f"{name}={mine[column]}") == [str(id_)]


def test_two_names_of_one_entity_that_differ_are_refused(client: TestClient) -> None:
    answer = client.get(f"/v1/email/threads?deal_id={uuid4()}&opportunity_id={uuid4()}")
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "opportunity_id"


def test_a37_threads_are_found_by_participant_in_either_case(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    id_ = add_thread(session, tenant, participants=["ada@mail.test", "grace@example.com"])
    add_thread(session, tenant, participants=["bob@example.com"])
    assert found(client, "participant=Grace@Example.com") == [str(id_)]


def test_a37_direction_finds_threads_that_hold_such_a_mail(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    sent = str(add_thread(session, tenant, at=1))
    received = str(add_thread(session, tenant, at=2, has_inbound=True, has_outbound=False, last_direction="inbound"))
    both = str(add_thread(session, tenant, at=3, has_inbound=True, last_direction="inbound"))
    assert found(client, "direction=inbound") == [both, received]
    assert found(client, "direction=outbound") == [both, sent]


def test_status_and_is_read_narrow_the_list(client: TestClient, session: Session, tenant: Tenant) -> None:
    spam = str(add_thread(session, tenant, at=1, status="spam"))
    unread = str(add_thread(session, tenant, at=2, is_read=False))
    assert found(client, "status=spam") == [spam]
    assert found(client, "is_read=false") == [unread]
    assert found(client, "is_read=true&status=active") == []


@pytest.mark.parametrize(
    "query",
    ["status=deleted", "direction=up", "is_read=perhaps", "search=%00", "participant=%00", "contact_id=1", "cursor=x"],
)
def test_a_filter_that_means_nothing_is_a_400(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/email/threads?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_a39_a_conversation_is_read_in_order_from_both_sides(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    id_ = add_thread(session, tenant)
    first = add_log(session, tenant, thread_id=id_, at=0, attachment_filename="offer.pdf", cc=["c@example.com"])
    files = [{"name": "order.pdf", "mimeType": "application/pdf", "size": 123}]
    html = '<p onclick="x()">Yes<script>steal()</script></p>'
    second = add_inbound(session, tenant, id_, at=1, text="Yes", html=html, attachments=files)
    third = add_log(session, tenant, thread_id=id_, at=2)
    add_log(session, tenant, thread_id=uuid4(), at=1)
    mails = client.get(f"/v1/email/threads/{id_}/messages").json()["data"]
    assert [(mail["id"], mail["direction"]) for mail in mails] == [
        (str(first), "outbound"),
        (str(second), "inbound"),
        (str(third), "outbound"),
    ]
    assert (mails[0]["has_attachment"], mails[0]["attachment_filename"]) == (True, "offer.pdf")
    assert (mails[2]["has_attachment"], mails[2]["attachment_filename"]) == (False, None)
    assert mails[0]["from"] == "hello@mail.test"
    assert mails[0]["recipients"] == ["grace@example.com"]
    assert mails[0]["cc"] == ["c@example.com"]
    assert mails[1]["attachments"] == [{**files[0], "url": None}]
    assert (mails[1]["text"], mails[1]["html"]) == ("Yes", "<p>Yes</p>")
    assert "attachments" not in mails[0]


def test_a39_a_file_that_came_with_a_mail_is_downloaded_and_never_shown(
    client: TestClient, other: TestClient, session: Session, tenant: Tenant
) -> None:
    data = b"<script>alert(1)</script>"
    session.add(Blob(workspace_id=tenant.workspace_id, sha256="a" * 64, size=len(data), data=data))
    file = {"name": 'Ü "x".html', "mimeType": "text/html", "size": len(data), "sha256": "a" * 64}
    add_inbound(session, tenant, (thread := add_thread(session, tenant)), attachments=[file])
    [mail] = client.get(f"/v1/email/threads/{thread}/messages").json()["data"]
    url = mail["attachments"][0]["url"]
    answer = client.get(url)
    assert answer.content == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''%C3%9C%20%22x%22.html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [other.get(url).status_code, client.get(url[:-1] + "1").status_code] == [404, 404]


def test_a_conversation_is_paged_without_gap_or_repeat(client: TestClient, session: Session, tenant: Tenant) -> None:
    id_ = add_thread(session, tenant)
    ids = []
    for at in range(3):
        ids.append(str(add_log(session, tenant, thread_id=id_, at=at)))
        ids.append(str(add_inbound(session, tenant, id_, at=at)))
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = client.get(f"/v1/email/threads/{id_}/messages?limit=2{cursor}").json()
        seen += [mail["id"] for mail in page["data"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert seen == ids


def test_a40_a_thread_is_marked_and_moved(client: TestClient, session: Session, tenant: Tenant) -> None:
    id_ = add_thread(session, tenant)
    changed = client.patch(f"/v1/email/threads/{id_}", json={"is_read": False, "status": "archived"})
    assert changed.status_code == 200
    assert (changed.json()["is_read"], changed.json()["status"]) == (False, "archived")
    back = client.patch(f"/v1/email/threads/{id_}", json={"status": "active", "is_read": None}).json()
    assert (back["is_read"], back["status"]) == (False, "active")


@pytest.mark.parametrize("body", [{"status": "gone"}, {"is_read": "yes"}, {"is_read": 1}, {"subject": "x"}, [], "x"])
def test_a40_a_change_that_means_nothing_changes_nothing(
    client: TestClient, session: Session, tenant: Tenant, body: Any
) -> None:
    id_ = add_thread(session, tenant)
    answer = client.patch(f"/v1/email/threads/{id_}", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_a41_marking_some_read_counts_those_that_were_unread(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    unread = [str(add_thread(session, tenant, is_read=False)) for _ in range(3)]
    read = str(add_thread(session, tenant))
    answer = client.post("/v1/email/threads/mark-read", json={"thread_ids": [unread[0], unread[0], unread[1], read]})
    assert (answer.status_code, answer.json()) == (200, {"updated": 2})
    assert found(client, "is_read=false") == [unread[2]]


def test_a41_marking_all_read_leaves_other_workspaces_alone(
    client: TestClient, session: Session, tenant: Tenant, other: TestClient, other_tenant: Tenant
) -> None:
    for owner in (tenant, tenant, other_tenant):
        add_thread(session, owner, is_read=False)
    assert client.post("/v1/email/threads/mark-read", json={"all": True}).json() == {"updated": 2}
    assert client.post("/v1/email/threads/mark-read", json={"all": True}).json() == {"updated": 0}
    assert len(found(other, "is_read=false")) == 1


def test_an_unknown_or_foreign_id_stops_the_whole_mark(
    client: TestClient, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    mine, foreign, unknown = add_thread(session, tenant, is_read=False), add_thread(session, other_tenant), uuid4()
    ids = [str(mine), str(foreign), str(unknown)]
    answer = client.post("/v1/email/threads/mark-read", json={"thread_ids": ids})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "VALIDATION_ERROR",
        "details": {"missing_entities": [{"field": "thread_ids", "id": id_} for id_ in ids[1:]]},
    }
    assert found(client, "is_read=false") == [str(mine)]


@pytest.mark.parametrize(
    "body",
    [{}, {"all": False}, {"all": True, "thread_ids": [str(uuid4())]}, {"thread_ids": []}, {"thread_ids": ["1"]}, {"all": "yes"}],
)  # fmt: skip
def test_mark_read_takes_exactly_one_of_its_two_forms(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/v1/email/threads/mark-read", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_another_workspaces_thread_is_not_there(
    client: TestClient, other: TestClient, session: Session, tenant: Tenant
) -> None:
    id_ = add_thread(session, tenant)
    add_inbound(session, tenant, id_)
    answers = [
        other.get(f"/v1/email/threads/{id_}"),
        other.get(f"/v1/email/threads/{id_}/messages"),
        other.patch(f"/v1/email/threads/{id_}", json={"status": "spam"}),
    ]
    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [(404, "NOT_FOUND")] * 3
    assert found(other) == []
    assert client.get(f"/v1/email/threads/{id_}").json()["status"] == "active"


def test_a5_reading_and_changing_need_their_own_scopes(
    api: TestClient, app_services: Services, session: Session
) -> None:
    reader = new_tenant(app_services, ("email:read",))
    id_ = add_thread(session, reader)
    client = as_caller(api, reader.key)
    assert client.get(f"/v1/email/threads/{id_}/messages").status_code == 200
    for answer in (
        client.patch(f"/v1/email/threads/{id_}", json={"is_read": False}),
        client.post("/v1/email/threads/mark-read", json={"all": True}),
    ):
        assert answer.status_code == 403
        assert answer.json()["details"] == {"required_scope": "email:write"}


def test_threads_answer_under_the_other_base_too(client: TestClient, session: Session, tenant: Tenant) -> None:
    id_ = add_thread(session, tenant)
    assert client.get(f"/functions/v1/api/v1/email/threads/{id_}").json()["id"] == str(id_)
    assert session.get_one(Thread, id_).workspace_id == tenant.workspace_id
