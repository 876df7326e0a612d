"""A reply goes into its thread, to whoever is to be answered, and is answered as a send is."""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.content import Content
from models.crm import Activity, Contact, Deal
from models.message import Message, Submission
from models.record import Thread
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.office import Office, open_office
from tests.api_shim.record_rows import add_inbound, add_log, add_mailer, add_thread
from tests.worker.house import House
from worker.settings import Settings

PATH = "/v1/email/reply"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def mailer(session: Session, tenant: Tenant) -> UUID:
    """The company's mailer. Nobody works its queue."""
    return add_mailer(session, tenant)


def replied(client: TestClient, session: Session, thread_id: UUID, **body: Any) -> Content:
    """What was queued for a reply."""
    answer = client.post(PATH, json={"thread_id": str(thread_id), "html_body": "<p>Hi</p>"} | body, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    message = session.get_one(Message, UUID(answer.json()["id"]))
    assert message.thread_id == thread_id
    return Content.from_json(session.get_one(Submission, message.submission_id).content)


def faults(client: TestClient, body: Any) -> set[str]:
    answer = client.post(PATH, json=body, headers=ASYNC)
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")
    return {fault["field"] for fault in answer.json()["details"]["fields"]}


def test_whoever_wrote_last_is_answered_under_the_threads_subject(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    id_ = add_thread(session, tenant)
    add_log(session, tenant, thread_id=id_, at=0, rfc_message_id="<1@mail.test>")
    add_inbound(session, tenant, id_, at=1, from_email="first@example.com", rfc_message_id="<2@example.com>")
    add_inbound(session, tenant, id_, at=2, from_email="Grace@example.com", rfc_message_id="<3@example.com>")
    add_inbound(session, tenant, id_, at=3, from_email="Hello@mail.test", rfc_message_id="<4@mail.test>")
    content = replied(client, session, id_)
    assert [(to.email, to.name) for to in content.to] == [("Grace@example.com", "Grace")]
    assert content.subject == "Re: Offer"
    assert content.sender.email == "hello@mail.test"
    assert content.references == ("<1@mail.test>", "<2@example.com>", "<3@example.com>", "<4@mail.test>")
    assert content.html == "<p>Hi</p>"


def test_c28_the_chain_reaches_back_to_before_our_part_of_the_conversation(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    id_ = add_thread(session, tenant)
    older = ["<root@example.com>", "<forwarded@example.com>"]
    add_inbound(session, tenant, id_, at=0, rfc_message_id="<1@example.com>", references=older)
    add_log(session, tenant, thread_id=id_, at=1, rfc_message_id="<2@mail.test>")
    add_inbound(
        session, tenant, id_, at=2, rfc_message_id="<3@example.com>",
        references=[*older, "<1@example.com>", "<2@mail.test>", "<é@no-id>"],
    )  # fmt: skip
    content = replied(client, session, id_)
    assert content.references == (*older, "<1@example.com>", "<2@mail.test>", "<3@example.com>")
    assert content.in_reply_to == "<3@example.com>"


def test_c28_a_person_is_answered_and_not_the_automatic_note_that_came_later(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    id_ = add_thread(session, tenant)
    add_inbound(session, tenant, id_, at=0, rfc_message_id="<question@example.com>")
    add_inbound(session, tenant, id_, at=1, rfc_message_id="<away@example.com>", is_automatic=True)
    content = replied(client, session, id_)
    assert content.in_reply_to == "<question@example.com>"
    assert content.references == ("<question@example.com>", "<away@example.com>")


def test_c28_a_conversation_of_a_hundred_mails_keeps_its_whole_chain(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    id_ = add_thread(session, tenant)
    names = [f"<{number}@example.com>" for number in range(100)]
    add_inbound(session, tenant, id_, at=0, rfc_message_id=names[-1], references=names[:-1])
    assert replied(client, session, id_).references == tuple(names)


def test_where_nobody_wrote_yet_the_last_recipient_is_written_to(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    id_ = add_thread(session, tenant, subject="RE: Offer")
    add_log(session, tenant, thread_id=id_, at=0, recipient_email="old@example.com")
    add_log(session, tenant, thread_id=id_, at=1, recipient_email="new@example.com")
    content = replied(client, session, id_)
    assert [to.email for to in content.to] == ["new@example.com"]
    assert content.subject == "RE: Offer", "one Re: is enough"


def test_what_the_body_gives_wins(client: TestClient, session: Session, tenant: Tenant, mailer: UUID) -> None:
    id_ = add_thread(session, tenant)
    content = replied(
        client, session, id_, to_email="Bob <bob@example.com>", subject="New", cc=["c@example.com, d@example.com"],
        html_body=None, body_text="Hi", priority="high",
        attachments=[{"filename": "a.txt", "mime_type": "text/plain", "content": "aGk="}],
    )  # fmt: skip
    assert [(to.email, to.name) for to in content.to] == [("bob@example.com", "Bob")]
    assert [cc.email for cc in content.cc] == ["c@example.com", "d@example.com"]
    assert (content.subject, content.html, content.text) == ("New", None, "Hi")
    assert [file.filename for file in content.attachments] == ["a.txt"]


@pytest.mark.parametrize("name", ["html_body", "body_html"])
def test_a_body_goes_by_either_name(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID, name: str
) -> None:
    id_ = add_thread(session, tenant)
    body = {"html_body": None, name: "<b>x</b>", "to_email": "bob@example.com", "cc": "c@example.com"}
    assert replied(client, session, id_, **body).html == "<b>x</b>"


def test_a_reply_belongs_to_what_its_thread_belongs_to(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    contact = Contact(id=uuid4(), workspace_id=tenant.workspace_id, email="grace@example.com")
    deals = [Deal(id=uuid4(), workspace_id=tenant.workspace_id, name=name) for name in ("of the thread", "of the body")]
    session.add_all([contact, *deals])
    session.commit()
    id_ = add_thread(session, tenant, contact_id=contact.id, deal_id=deals[0].id, customer_id=uuid4())
    replied(client, session, id_, to_email="grace@example.com", opportunity_id=str(deals[1].id))
    row = session.scalars(select(Submission).where(Submission.workspace_id == tenant.workspace_id)).one()
    assert (row.contact_id, row.deal_id) == (contact.id, deals[1].id)
    assert row.customer_id is None, "the customer was deleted"


def test_a42_a_personal_reply_leaves_from_the_users_mailbox(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    aliases = ["ada@mail.test", "sales@mail.test"]
    add_mailer(session, tenant, provider="gmail", user_id=tenant.user_id, from_addresses=aliases)
    id_ = add_thread(session, tenant, provider_thread_id="gmail-thread")
    personal = {"mode": "personal", "sender_user_id": str(tenant.user_id), "to_email": "bob@example.com"}
    content = replied(client, session, id_, **personal, from_email="sales@mail.test")
    assert (content.sender.email, content.provider_thread_id) == ("sales@mail.test", "gmail-thread")
    body = {"thread_id": str(id_), "html_body": "x", **personal, "from_email": "boss@mail.test"}
    assert client.post(PATH, json=body, headers=ASYNC).json()["error"] == "ALIAS_NOT_CONNECTED"


def test_all_faults_of_a_body_are_listed_at_once(client: TestClient, session: Session, tenant: Tenant) -> None:
    assert faults(client, {}) == {"thread_id", "html_body"}
    body = {
        "thread_id": "1", "to_email": "nobody", "cc": 5, "mode": "loud", "html_body": "a", "body_html": "b", "subject": "a\r\nb",
        "from_email": "a@b.test", "attachments": [{}], "colour": "red", "contact_id": "1",
    }  # fmt: skip
    assert faults(client, body) == {
        "thread_id", "to_email", "cc", "mode", "body_html", "subject", "from_email", "colour", "contact_id",
        "attachments[0].filename", "attachments[0].mime_type", "attachments[0].content",
    }  # fmt: skip


def test_a_thread_with_nobody_to_answer_needs_an_address(client: TestClient, session: Session, tenant: Tenant) -> None:
    id_ = add_thread(session, tenant)
    add_inbound(session, tenant, id_, from_email="not an address")
    assert faults(client, {"thread_id": str(id_), "html_body": "x"}) == {"to_email"}


def test_a_subject_that_fits_into_no_header_must_be_given(client: TestClient, session: Session, tenant: Tenant) -> None:
    id_ = add_thread(session, tenant, subject="a\nb")
    assert faults(client, {"thread_id": str(id_), "html_body": "x", "to_email": "a@example.com"}) == {"subject"}


def test_an_unknown_thread_is_listed_with_every_other_stale_id(
    client: TestClient, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    foreign, contact, user = str(add_thread(session, other_tenant)), str(uuid4()), str(uuid4())
    body = {"thread_id": foreign, "html_body": "x", "contact_id": contact, "mode": "personal", "sender_user_id": user}
    answer = client.post(PATH, json=body)
    assert answer.status_code == 400
    missing = {(entry["field"], entry["id"]) for entry in answer.json()["details"]["missing_entities"]}
    assert missing == {("thread_id", foreign), ("contact_id", contact), ("sender_user_id", user)}
    queued = select(Message).where(Message.workspace_id.in_([tenant.workspace_id, other_tenant.workspace_id]))
    assert session.scalars(queued).all() == []


@pytest.mark.parametrize("raw", [b"", b"[]", b'"x"', b"{", b'{"thread_id": "\\u0000"}', b'{"subject": "\\ud800"}'])
def test_a_body_that_is_no_object_of_clean_json_is_a_400(client: TestClient, raw: bytes) -> None:
    answer = client.post(PATH, content=raw)
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_a_repeat_with_the_same_key_is_not_a_second_mail(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    id_ = add_thread(session, tenant)
    body = {"thread_id": str(id_), "html_body": "x", "to_email": "a@example.com"}
    headers = ASYNC | {"Idempotency-Key": "once"}
    first, again = (client.post(PATH, json=body, headers=headers) for _ in range(2))
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    another = client.post(PATH, json=body | {"html_body": "y"}, headers=headers)
    assert (another.status_code, another.json()["error"]) == (409, "IDEMPOTENCY_CONFLICT")


def test_a_mail_that_is_not_sent_in_time_is_queued(
    client: TestClient, session: Session, tenant: Tenant, mailer: UUID
) -> None:
    body = {"thread_id": str(add_thread(session, tenant)), "html_body": "x", "to_email": "a@example.com"}
    answer = client.post(PATH, json=body, headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["Preference-Applied"] == "wait=0"
    assert answer.headers["Location"] == f"/v1/submissions/{answer.json()['ref_id']}"


def test_a4_replying_needs_email_send(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("email:read", "email:write")).key)
    answer = reader.post(PATH, json={})
    assert (answer.status_code, answer.json()["details"]) == (403, {"required_scope": "email:send"})
    assert api.post(PATH, json={}).status_code == 401


def test_a_reply_may_be_as_large_as_a_send(client: TestClient, session: Session, tenant: Tenant, mailer: UUID) -> None:
    big = {"filename": "a.bin", "mime_type": "application/octet-stream", "content": "AAAA" * 500_000}
    id_ = add_thread(session, tenant)
    assert replied(client, session, id_, to_email="a@example.com", attachments=[big]).attachments[0].size == 1_500_000


def test_every_documented_field_is_read(client: TestClient, api: TestClient) -> None:
    operation = api.get("/openapi.json").json()["paths"][PATH]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert faults(client, {name: {"not": "this"} for name in schema["properties"]}) == set(schema["properties"])
    assert set(schema["example"]) <= set(schema["properties"])
    assert {"200", "202", "400", "422", "502"} <= set(operation["responses"])


@pytest.fixture
def office(api: TestClient, settings: Settings, app_services: Services) -> Iterator[Office]:
    with SmtpEmulator() as server, open_office(api, app_services, House(settings, server)) as opened:
        yield opened


def test_a42_a_reply_is_sent_logged_and_stands_in_its_thread(office: Office, session: Session) -> None:
    contact = Contact(id=uuid4(), workspace_id=office.tenant.workspace_id, email="grace@example.com")
    session.add(contact)
    session.commit()
    id_ = add_thread(session, office.tenant, contact_id=contact.id)
    add_inbound(session, office.tenant, id_, rfc_message_id="<question@example.com>")
    answer = office.reply(thread_id=str(id_), html_body="<p>Yes</p>", cc="c@example.com")
    assert answer.status_code == 200, answer.text
    sent = answer.json()
    assert (sent["status"], sent["thread_id"], sent["provider"]) == ("sent", str(id_), "smtp")
    (received,) = office.house.server.received
    assert set(received.recipients) == {"grace@example.com", "c@example.com"}
    mail = message_from_bytes(received.data, _class=EmailMessage, policy=policy.default)
    assert (mail["In-Reply-To"], mail["References"]) == ("<question@example.com>", "<question@example.com>")
    assert mail["Subject"] == "Re: Offer"
    client = as_caller(office.api, office.key)
    mails = client.get(f"/v1/email/threads/{id_}/messages").json()["data"]
    assert {item["direction"]: item["id"] for item in mails}["outbound"] == sent["id"]
    assert client.get(f"/v1/email/logs/{sent['id']}").json()["type"] == "reply"
    thread = client.get(f"/v1/email/threads/{id_}").json()
    assert "c@example.com" in thread["participants"]
    activity = session.scalars(select(Activity).where(Activity.entity_id == contact.id)).one()
    assert activity.message_id == UUID(sent["id"])
    assert session.get_one(Thread, id_).last_direction == "outbound"


def test_a31_a_recipient_refused_for_good_is_a_422(office: Office, session: Session) -> None:
    id_ = add_thread(session, office.tenant)
    answer = office.reply(thread_id=str(id_), html_body="x", to_email="bounce-550@example.com")
    assert (answer.status_code, answer.json()["error"]) == (422, "EMAIL_DELIVERY_FAILED")
    assert answer.json()["details"]["status"] == "failed"
