"""Single features of the mailbox gateway (B), from the request to what the recipient and the CRM have."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.crm import Deal
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Emulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.smtp import Does, Fault, Stage
from tests.api_shim.office import Office, open_office
from tests.contract.houses import ApiHouse
from tests.contract.received import only, read, text_of
from worker.settings import Settings

MAILBOX: dict[str, Any] = {"to": "Grace <grace@example.com>", "subject": "Our call", "body_text": "As promised."}


@pytest.mark.parametrize(
    ("emulator_class", "provider"), [(GmailEmulator, "gmail"), (Microsoft365Emulator, "microsoft365")]
)
def test_b1_mail_leaves_through_the_connected_gmail_or_microsoft_365_account(
    api: TestClient, app_services: Services, settings: Settings, emulator_class: type[Emulator], provider: str
) -> None:
    with emulator_class() as emulator, open_office(api, app_services, ApiHouse(settings, emulator)) as office:
        answer = office.send(MAILBOX)
        assert answer.status_code == 200, answer.text
        sent = answer.json()
        assert (sent["status"], sent["provider"]) == ("sent", provider)
        assert sent["provider_message_id"] in _taken(emulator)


def _taken(emulator: Emulator) -> list[str]:
    """Ids of what lies in the mailbox as sent."""
    if isinstance(emulator, GmailEmulator):
        return [mail.id for mail in emulator.messages.values() if mail.labels == ["SENT"]]
    assert isinstance(emulator, Microsoft365Emulator)
    return [mail.id for mail in emulator.mails.values() if not mail.is_draft]


@pytest.mark.parametrize(
    ("bodies", "kind"),
    [
        ({"body_text": "Hi"}, "text/plain"),
        ({"body_text": None, "body_html": "<p>Hi</p>"}, "multipart/alternative"),
        ({"body_text": None, "body_html": "<img src='https://example.com/a.png'>"}, "text/html"),
        ({"body_text": "Hi", "body_html": "<p>Hi</p>"}, "multipart/alternative"),
    ],
)
def test_b6_two_bodies_go_as_alternatives_and_html_brings_its_words_as_text(
    office: Office, bodies: dict[str, Any], kind: str
) -> None:
    assert office.send(MAILBOX | bodies).status_code == 200
    _, mail = only(office)
    assert mail.get_content_type() == kind
    for name, words in (("plain", bodies["body_text"]), ("html", bodies.get("body_html"))):
        assert words is None or text_of(mail, name) == words


def test_b7_cc_is_shown_to_all_and_bcc_to_nobody(office: Office) -> None:
    copies = {"cc": ["c@example.com", "D <d@example.com>"], "bcc": ["eve@example.com", "Fay <fay@example.com>"]}
    assert office.send(MAILBOX | copies).status_code == 200
    received, mail = only(office)
    assert set(received.recipients) == {f"{name}@example.com" for name in ("grace", "c", "d", "eve", "fay")}
    assert mail["Cc"] == "c@example.com, D <d@example.com>"
    assert b"eve@example.com" not in received.data
    assert b"fay@example.com" not in received.data


def test_b8_answers_go_to_the_sending_mailbox_unless_reply_to_says_otherwise(office: Office) -> None:
    office.send(MAILBOX)
    office.send(MAILBOX | {"reply_to": "Desk <desk@example.com>"})
    by_default, redirected = (read(received.data) for received in office.house.server.received)
    assert (by_default["From"], by_default["Reply-To"]) == ("hello@demo.test", None)
    assert redirected["Reply-To"] == "Desk <desk@example.com>"


def test_b9_b10_a_linked_mail_stands_on_the_timelines_of_contact_and_deal(office: Office, session: Session) -> None:
    deal = Deal(workspace_id=office.house.workspace_id, name="First order")
    session.add(deal)
    session.commit()
    contact_id = office.house.contact_id
    sent = office.send(MAILBOX | {"contact_id": str(contact_id), "deal_id": str(deal.id)}).json()
    for path in (f"contacts/{contact_id}", f"deals/{deal.id}"):
        assert [line["message_id"] for line in office.get(f"/v1/{path}/activities")["data"]] == [sent["id"]]


def test_b11_a_thread_id_continues_its_conversation_and_without_one_a_new_begins(office: Office) -> None:
    first = office.send(MAILBOX).json()
    another = office.send(MAILBOX).json()
    again = office.send(MAILBOX | {"thread_id": first["thread_id"]}).json()
    assert another["thread_id"] != first["thread_id"] == again["thread_id"]
    mails = office.get(f"/v1/email/threads/{first['thread_id']}/messages")["data"]
    assert [mail["id"] for mail in mails] == [first["id"], again["id"]]
    answer = read(office.house.server.received[-1].data)
    assert (answer["In-Reply-To"], answer["References"]) == (first["message_id"], first["message_id"])


def test_b11_a_thread_that_is_not_there_is_named_and_nothing_is_sent(office: Office) -> None:
    unknown = str(uuid4())
    answer = office.send(MAILBOX | {"thread_id": unknown})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")
    assert answer.json()["error"]["details"]["missing_entities"] == [{"field": "thread_id", "id": unknown}]
    assert office.house.server.received == []


@pytest.mark.parametrize(
    ("reply", "status"),
    [("451 4.3.0 try later", 502), ("550 5.1.1 no such user", 422)],
)
def test_b18_an_error_of_the_provider_is_answered_as_such(office: Office, reply: str, status: int) -> None:
    office.house.server.fail(*[Fault(Stage.RCPT, Does.REPLY, reply)] * 10)
    answer = office.send(MAILBOX)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "provider_error")
    assert answer.json()["error"]["details"]["reason"].endswith(reply.partition(" ")[2])
    assert office.house.server.received == []
