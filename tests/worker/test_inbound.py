"""Mail that comes in: read, stored, threaded, told."""

import base64
import json
from collections.abc import Iterator
from email.message import EmailMessage
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from models.event import Event
from models.record import InboundMessage, Thread
from models.webhook import WebhookEndpoint
from providers.base import HookRequest
from providers.emulators.postmark import PostmarkEmulator
from providers.sparkpost_hooks import hook_events
from tests.worker.house import settings_for
from tests.worker.postmark_house import PostmarkHouse
from worker.inbound_mail import InboundMail, read_inbound
from worker.settings import Settings
from worker.wire import FACTS, body


@pytest.fixture(scope="module")
def postmark() -> Iterator[PostmarkEmulator]:
    with PostmarkEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def configured(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url)


@pytest.fixture
def house(configured: Settings, postmark: PostmarkEmulator) -> Iterator[PostmarkHouse]:
    opened = PostmarkHouse(configured, postmark)
    yield opened
    opened.close()


PDF_HASH = sha256(b"%PDF-").hexdigest()


def _inbound(
    message_id: str = "<reply-1@client.test>", sender: str = "ann@example.com", **fields: Any
) -> dict[str, Any]:
    headers = {"Message-ID": message_id} | fields.pop("headers", {})
    return {
        "FromFull": {"Email": sender, "Name": "Ann"},
        "ToFull": [{"Email": "hello@demo.test", "Name": ""}],
        "CcFull": [],
        "Subject": "Re: Hello",
        "MessageID": str(uuid4()),
        "Date": "Sat, 21 Nov 2026 10:05:00 +0000",
        "TextBody": "Thanks!",
        "HtmlBody": "<p>Thanks!</p><script>x</script>",
        "Headers": [{"Name": name, "Value": value} for name, value in headers.items()],
        "Attachments": [{"Name": "a.pdf", "Content": "JVBERi0=", "ContentType": "application/pdf"}],
        **fields,
    }


def _mails(house: PostmarkHouse) -> list[InboundMessage]:
    with house.session() as session:
        query = select(InboundMessage).where(InboundMessage.workspace_id == house.workspace_id)
        return list(session.scalars(query.order_by(InboundMessage.id)))


def _threads(house: PostmarkHouse) -> list[Thread]:
    with house.session() as session:
        return list(
            session.scalars(select(Thread).where(Thread.workspace_id == house.workspace_id).order_by(Thread.id))
        )


def _told(house: PostmarkHouse) -> list[dict[str, Any]]:
    """The INCOMING_EMAIL bodies as the outside sees them."""
    query = FACTS.where(Event.workspace_id == house.workspace_id, Event.type == "received").order_by(Event.cursor)
    with house.runtime.engine.connect() as connection:
        return [body(row) for row in connection.execute(query).mappings()]


def test_a51_an_answer_joins_the_thread_of_the_mail_it_answers(house: PostmarkHouse) -> None:
    accepted, _ = house.sent(links=house.links)
    house.told(_inbound(headers={"In-Reply-To": accepted.rfc_message_id}, Subject="Something else"))
    [mail] = _mails(house)
    [thread] = _threads(house)
    assert (mail.thread_id, thread.id) == (accepted.thread_id, accepted.thread_id)
    assert (mail.from_email, mail.from_name, mail.to, mail.text) == (
        "ann@example.com",
        "Ann",
        ["hello@demo.test"],
        "Thanks!",
    )
    assert mail.html == "<p>Thanks!</p><script>x</script>"
    assert mail.attachments == [{"name": "a.pdf", "mimeType": "application/pdf", "size": 5, "sha256": PDF_HASH}]
    assert (thread.is_read, thread.last_direction, thread.has_inbound, thread.has_outbound) == (
        False,
        "inbound",
        True,
        True,
    )


def test_c31_an_answer_is_told_in_the_documented_words(house: PostmarkHouse) -> None:
    accepted, _ = house.sent()
    references = f"<first@client.test> {accepted.rfc_message_id}"
    house.told(_inbound(headers={"In-Reply-To": accepted.rfc_message_id, "References": references}))
    [told] = _told(house)
    assert told["event"] == "INCOMING_EMAIL"
    assert told["details"] == {
        "message-id": "<reply-1@client.test>",
        "in-reply-to": accepted.rfc_message_id,
        "thread-id": str(accepted.thread_id),
        "references": references,
        "from": "ann@example.com",
        "subject": "Re: Hello",
        "mailer-service": "postmark",
    }


def test_an_answer_stands_on_the_timelines_of_the_mail_it_answers(house: PostmarkHouse) -> None:
    accepted, _ = house.sent(links=house.links)
    house.told(_inbound(headers={"In-Reply-To": accepted.rfc_message_id}))
    found = house.rows(
        "select entity_type, kind, direction, message_id from activity where workspace_id = :w and kind <> 'email_sent'"
    )
    [mail] = _mails(house)
    lines = {(row["entity_type"], row["kind"], row["direction"], row["message_id"]) for row in found}
    assert lines == {
        (entity, kind, "inbound", id_)
        for entity in ("contact", "deal", "customer")
        for kind, id_ in (("email_received", mail.id), ("email_replied", house.message(accepted).id))
    }


def test_the_same_mail_reported_again_is_stored_and_told_once(house: PostmarkHouse) -> None:
    report = _inbound()
    house.told(report, report)
    house.told({**report, "MessageID": str(uuid4())})
    assert (len(_mails(house)), len(_threads(house)), len(_told(house))) == (1, 1, 1)


def test_an_answer_to_a_campaigns_mail_opens_its_conversation(house: PostmarkHouse) -> None:
    accepted = house.submit("ann@example.com", "bob@example.com")
    house.deliver_all()
    house.record_all()
    assert _threads(house) == []
    first, second = sorted(house.messages(accepted), key=lambda message: message.recipients)
    house.told(_inbound(headers={"References": first.rfc_message_id}))
    house.told(_inbound("<reply-2@client.test>", headers={"In-Reply-To": "<reply-1@client.test>"}))
    [thread] = _threads(house)
    assert [mail.thread_id for mail in _mails(house)] == [thread.id, thread.id]
    logged = "select thread_id from email_log where message_id = :id"
    assert (
        house.scalar(logged, id=first.id)
        == house.scalar("select thread_id from message where id = :id", id=first.id)
        == thread.id
    )
    assert thread.participants == ["ann@example.com", "hello@demo.test"]
    assert house.scalar(logged, id=second.id) is None


def test_a_mail_without_references_joins_by_subject_and_people_only_as_an_answer(house: PostmarkHouse) -> None:
    accepted, _ = house.sent()
    house.told(_inbound("<1@client.test>", Subject="AW: RE[2]: hello"))
    house.told(_inbound("<2@client.test>", Subject="Hello"))
    house.told(_inbound("<3@client.test>", "eve@example.com", Subject="Re: Hello"))
    assert [mail.thread_id == accepted.thread_id for mail in _mails(house)] == [True, False, False]


def test_nobody_joins_another_workspaces_thread(house: PostmarkHouse, configured: Settings) -> None:
    stranger = PostmarkHouse(configured, house.postmark)
    accepted, _ = stranger.sent()
    house.told(_inbound(headers={"In-Reply-To": accepted.rfc_message_id}))
    [mail] = _mails(house)
    assert mail.thread_id != accepted.thread_id
    assert [thread.has_inbound for thread in _threads(stranger)] == [False]
    stranger.close()


def test_a_new_conversation_is_linked_to_the_contact_who_writes(house: PostmarkHouse) -> None:
    house.told(_inbound(sender="ANN@example.com", Subject="A question"))
    [thread] = _threads(house)
    assert (thread.contact_id, thread.subject, thread.is_read) == (house.contact_id, "A question", False)


def test_an_answer_reopens_an_archived_conversation(house: PostmarkHouse) -> None:
    accepted, _ = house.sent()
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update thread set status = 'archived', is_read = true where id = :id"), {"id": accepted.thread_id}
        )
    house.told(_inbound(headers={"In-Reply-To": accepted.rfc_message_id}))
    [thread] = _threads(house)
    assert (thread.status, thread.is_read) == ("active", False)


def test_an_automatic_note_is_no_reply(house: PostmarkHouse) -> None:
    accepted, _ = house.sent(links=house.links)
    headers = {"In-Reply-To": accepted.rfc_message_id, "Auto-Submitted": "auto-replied"}
    house.told(_inbound(headers=headers))
    kinds = house.rows("select distinct kind from activity where workspace_id = :w order by 1")
    assert [row["kind"] for row in kinds] == ["email_received", "email_sent"]


def test_an_endpoint_that_filters_by_campaign_hears_of_the_answers_to_it(house: PostmarkHouse) -> None:
    with house.session() as session:
        session.add(
            WebhookEndpoint(
                workspace_id=house.workspace_id, url="https://x.test/", events=["INCOMING_EMAIL"], campaign_id="spring",
                sealed_secret=b"",
            )
        )  # fmt: skip
        session.commit()
    accepted, _ = house.sent(campaign_id="spring")
    house.told(_inbound(headers={"In-Reply-To": accepted.rfc_message_id}))
    house.told(_inbound("<other@client.test>", Subject="No answer"))
    assert house.scalar("select count(*) from webhook_delivery where workspace_id = :w") == 1


def _relayed(message: EmailMessage | bytes) -> InboundMail | None:
    raw = message if isinstance(message, bytes) else message.as_bytes()
    content = {"email_rfc822": base64.b64encode(raw).decode(), "email_rfc822_is_base64": True}
    relay = {"content": content, "rcpt_to": "in@demo.test", "msg_from": "bounce@client.test"}
    call = HookRequest(headers={}, query={}, body=json.dumps([{"msys": {"relay_message": relay}}]).encode())
    [event] = hook_events(call, "")
    return read_inbound(event)


def test_a_raw_mail_is_read_in_full() -> None:
    message = EmailMessage()
    message["From"] = "Änne <ann@client.test>"
    message["To"] = "hello@demo.test, Two <two@demo.test>"
    message["Subject"] = "Grüße"
    message["Message-ID"] = "<1@client.test>"
    message["References"] = "<a@x.test> <b@x.test>"
    message.set_content("text")
    message.add_alternative("<p>html</p>", subtype="html")
    message.add_attachment(b"12345", maintype="application", subtype="pdf", filename="a.pdf")
    mail = _relayed(message)
    assert mail is not None
    assert (mail.from_email, mail.from_name, mail.subject) == ("ann@client.test", "Änne", "Grüße")
    assert mail.to == ("hello@demo.test", "two@demo.test")
    assert mail.references == ("<a@x.test>", "<b@x.test>")
    assert ((mail.text or "").strip(), (mail.html or "").strip()) == ("text", "<p>html</p>")
    assert [(file.name, file.mime_type, file.data) for file in mail.files] == [("a.pdf", "application/pdf", b"12345")]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"From: nobody\r\n\r\nhi",
        b"From: a@x.test\r\nContent-Type: text/plain; charset=nosuch\r\n\r\nh\xffi",
        b"From: a@x.test\r\nMessage-ID: <[broken\r\nTo: ,;:<\r\nSubject: =?utf-8?q?x=0D=0ABcc?=\r\n\r\nhi",
        b"From: a@x.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: x\r\n\r\n",
        b"From: a@x.test\r\nSubject: a\0b\r\n\r\n\0",
        b"From: a@x.test\r\n" + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 200,
    ],
)
def test_a_malformed_mail_is_read_as_far_as_it_goes_and_can_be_stored(raw: bytes) -> None:
    mail = _relayed(raw)
    if mail is not None:
        assert "@" in mail.from_email
        for value in (mail.subject, mail.text or "", mail.rfc_message_id):
            assert "\0" not in value
            value.encode()


def test_a_mail_without_an_id_gets_one_that_stays_the_same(house: PostmarkHouse) -> None:
    report = _inbound(headers={"Message-ID": ""})
    house.told(report)
    house.told(report)
    [mail] = _mails(house)
    assert mail.rfc_message_id.endswith("@no-message-id.invalid>")


def test_a_mail_that_cannot_be_taken_in_waits_and_holds_up_nothing(house: PostmarkHouse) -> None:
    accepted, mail = house.sent()
    broken = _inbound("<broken@client.test>", "broken@client.test")
    house.hand_over(broken)
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("alter table inbound_message add constraint refuse check (from_email <> 'broken@client.test')")
        )
    try:
        house.told(house.postmark.report("Delivery", mail))
    finally:
        with house.runtime.engine.begin() as connection:
            connection.execute(text("alter table inbound_message drop constraint refuse"))
    assert house.message(accepted).state == "delivered"
    [waiting] = house.rows("select error from provider_report where mailer_id = :m")
    assert waiting == {"error": "could not be applied: CheckViolation"}


def test_a_message_id_that_came_into_another_workspace_leads_nowhere(
    house: PostmarkHouse, configured: Settings
) -> None:
    stranger = PostmarkHouse(configured, house.postmark)
    stranger.told(_inbound("<shared@client.test>"))
    house.told(_inbound("<answer@client.test>", headers={"In-Reply-To": "<shared@client.test>"}))
    assert _mails(house)[0].thread_id != _mails(stranger)[0].thread_id
    stranger.close()


def test_an_answer_is_matched_by_the_message_id_that_the_provider_put(house: PostmarkHouse) -> None:
    accepted, _ = house.sent()
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update email_log set rfc_message_id = '<CAx1@mail.gmail.com>' where message_id = :id"),
            {"id": accepted.message_id},
        )
    house.told(_inbound(headers={"In-Reply-To": "<CAx1@mail.gmail.com>"}, Subject="No subject in common"))
    assert _mails(house)[0].thread_id == accepted.thread_id
