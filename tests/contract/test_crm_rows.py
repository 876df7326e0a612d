"""Single features of the crm API (A), from the request to what the recipient and the CRM have."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.auth import SCOPES
from api_shim.services import Services
from models.access import User
from models.base import uuid7
from models.crm import Customer, Deal
from models.mailer import Mailer
from providers.emulators.gmail import GmailEmulator
from tests.api_shim.conftest import as_caller, new_tenant
from tests.api_shim.office import Office
from tests.contract.houses import access
from tests.contract.received import only, text_of
from worker.delivery import deliver
from worker.mailers import mailer_purpose

CRM = {"to_email": "grace@example.com", "subject": "Your report", "html_body": "<p>It is ready.</p>"}


def test_a2_a_key_comes_as_a_bearer_token_and_a_body_as_json(api: TestClient, office: Office) -> None:
    for header in ({}, {"Authorization": office.key}, {"Authorization": f"Basic {office.key}"}):
        answer = api.post("/v1/email/send", json=CRM, headers=header)
        assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
    assert office.client.post("/v1/email/send", data=CRM).status_code == 400
    assert office.send(CRM).status_code == 200


GUARDED = [
    ("email:read", "GET", "threads"), ("email:read", "GET", "threads/{id}"), ("email:read", "GET", "threads/{id}/messages"),
    ("email:read", "GET", "capabilities"), ("email:read", "GET", "logs"), ("email:read", "GET", "configs"),
    ("email:read", "GET", "configs/{id}"), ("email:send", "POST", "send"), ("email:send", "POST", "reply"),
    ("email:write", "PATCH", "threads/{id}"), ("email:write", "POST", "threads/mark-read"),
    ("email-config:write", "POST", "configs"), ("email-config:write", "PATCH", "configs/{id}"),
    ("email-config:write", "DELETE", "configs/{id}"),
]  # fmt: skip
"""Scope, method and path of each documented endpoint below ``/v1/email/``."""


@pytest.mark.parametrize(("scope", "method", "path"), GUARDED)
def test_a3_a4_a5_a6_each_endpoint_opens_to_its_own_scope_alone(
    api: TestClient, app_services: Services, scope: str, method: str, path: str
) -> None:
    url = f"/v1/email/{path.format(id=uuid4())}"
    body: Any = None if method in ("GET", "DELETE") else CRM
    holding = as_caller(api, new_tenant(app_services, (scope,)).key).request(method, url, json=body)
    lacking = as_caller(api, new_tenant(app_services, tuple(set(SCOPES) - {scope})).key).request(method, url, json=body)
    assert "required_scope" not in holding.text
    assert (lacking.status_code, lacking.json()["details"]) == (403, {"required_scope": scope})


def test_a10_a11_a12_name_subject_and_html_reach_the_recipient(office: Office) -> None:
    assert office.send(CRM | {"to_name": "Grace Hopper"}).status_code == 200
    received, mail = only(office)
    assert received.recipients == ("grace@example.com",)
    assert (mail["To"], mail["Subject"]) == ("Grace Hopper <grace@example.com>", "Your report")
    assert text_of(mail, "html") == "<p>It is ready.</p>"


def test_a12_there_is_no_field_for_plain_text(office: Office) -> None:
    answer = office.client.post("/v1/email/send", json=CRM | {"body_text": "It is ready."})
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")
    assert [fault["field"] for fault in answer.json()["details"]["fields"]] == ["body_text"]


def test_a13_without_a_mode_the_company_sends_and_personal_mail_leaves_from_the_users_gmail(office: Office) -> None:
    house, user_id, mailbox_id = office.house, uuid7(), uuid7()
    with GmailEmulator() as gmail:
        provider, credentials = access(gmail)
        with house.session() as session:
            session.add(User(id=user_id, workspace_id=house.workspace_id, email=gmail.address, name="Ann"))
            session.flush()
            session.add(
                Mailer(
                    id=mailbox_id, workspace_id=house.workspace_id, provider=provider, name="Ann's", user_id=user_id, domains=[],
                    from_addresses=[gmail.address], base_url=gmail.url, auth_url=gmail.url, hook_token=str(mailbox_id),
                    sealed_credentials=house.runtime.vault.seal(mailer_purpose(mailbox_id), credentials),
                )
            )  # fmt: skip
            session.commit()
        assert office.send(CRM).json()["provider"] == "smtp"
        assert office.send(CRM | {"mode": "company"}).json()["provider"] == "smtp"
        personal = CRM | {"mode": "personal", "sender_user_id": str(user_id)}
        assert office.send(personal, Prefer="respond-async").json()["provider"] == "gmail"
        assert deliver(house.runtime, mailbox_id, 0).done == 1
        [sent] = gmail.messages.values()
        assert [mail.sender for mail in house.server.received] == ["hello@demo.test"] * 2
        assert sent.header("From") == f"Ann <{gmail.address}>"


def test_a16_a17_a18_a20_a_linked_mail_stands_in_log_thread_and_on_every_timeline(
    office: Office, session: Session
) -> None:
    deal = Deal(workspace_id=office.house.workspace_id, name="First order")
    customer = Customer(workspace_id=office.house.workspace_id, name="Example Ltd")
    session.add_all([deal, customer])
    session.commit()
    links = {"contact_id": office.house.contact_id, "opportunity_id": deal.id, "company_id": customer.id}
    sent = office.send(CRM | {name: str(id_) for name, id_ in links.items()}).json()
    for name, id_ in (("contacts", office.house.contact_id), ("deals", deal.id), ("customers", customer.id)):
        [activity] = office.get(f"/v1/{name}/{id_}/activities")["data"]
        assert (activity["message_id"], activity["direction"], activity["kind"]) == (
            sent["id"],
            "outbound",
            "email_sent",
        )
    thread = office.get(f"/v1/email/threads/{sent['thread_id']}")
    log = office.get(f"/v1/email/logs/{sent['id']}")
    ids = [str(office.house.contact_id), str(deal.id), str(customer.id)]
    assert [thread[name]["id"] for name in ("contact", "deal", "customer")] == ids
    assert [log[f"{name}_id"] for name in ("contact", "deal", "customer")] == ids


def test_a19_null_links_give_an_unlinked_thread_and_log_row(office: Office) -> None:
    sent = office.send(CRM | {"contact_id": None, "deal_id": None, "customer_id": None})
    assert sent.status_code == 200
    thread = office.get(f"/v1/email/threads/{sent.json()['thread_id']}")
    assert thread["contact"] is thread["deal"] is thread["customer"] is None
    assert office.get(f"/v1/email/logs/{sent.json()['id']}")["contact_id"] is None


def test_a30_a_mail_whose_log_row_cannot_be_written_is_sent_and_answered_so(office: Office) -> None:
    with log_refusing(office):
        answer = office.send(CRM)
    assert len(office.house.server.received) == 1
    provider_id = office.house.scalar("select provider_message_id from message where workspace_id = :w")
    assert (answer.status_code, answer.json()) == (422, {"error": "EMAIL_LOG_FAILED", "message_id": provider_id})
    assert office.get("/v1/email/logs")["data"] == []


@contextmanager
def log_refusing(office: Office) -> Iterator[None]:
    """Meanwhile no row can be added to the log of the office."""
    workspace_id = office.house.workspace_id
    with office.house.runtime.engine.begin() as connection:
        connection.execute(text(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'full'; end $$"
        ))  # fmt: skip
        connection.execute(text(
            "create trigger refuse before insert on email_log for each row"
            f" when (new.workspace_id = '{workspace_id}') execute function refuse()"
        ))  # fmt: skip
    try:
        yield
    finally:
        with office.house.runtime.engine.begin() as connection:
            connection.execute(text("drop function refuse cascade"))


def test_a45_what_was_answered_200_stands_in_the_log_and_among_the_threads(office: Office) -> None:
    sent = office.send(CRM).json()
    assert [row["id"] for row in office.get("/v1/email/logs")["data"]] == [sent["id"]]
    assert [row["id"] for row in office.get("/v1/email/threads")["data"]] == [sent["thread_id"]]


def test_a24_a48_a_config_that_is_changed_changes_the_address_that_mail_leaves_from(office: Office) -> None:
    config = {"from_email_handle": "support", "from_name": "Support", "staff_email": "team@example.com"}
    made = office.client.post("/v1/email/configs", json=config).json()
    office.client.patch(f"/v1/email/configs/{made['id']}", json={"from_email_handle": "help"})
    office.send(CRM | {"email_config_id": made["id"]})
    _, mail = only(office)
    assert mail["From"] == "Support <help@mail.test>"
