from typing import Any

import pytest

from models.content import Address, SendSettings
from providers.base import Form
from tests.worker.samples import (
    EVERYTHING,
    MESSAGE,
    OUTLOOK_ID,
    SUBMISSION,
    TRACKER,
    WORKSPACE,
    assert_wire_format,
    attached,
    compiled,
    content,
    letter,
    mime,
    parsed,
    read,
    refused,
    stored,
)
from worker.compose import Compiled, CompositionError


def test_the_headers_are_exactly_the_intended_ones() -> None:
    mail = content(
        sender=Address("hello@demo.test", "Müller, Demo"),
        cc=(Address("cc@example.test", "C. C."),),
        reply_to=(Address("reply@bücher.test"),),
        in_reply_to="<parent@example.test>",
        references=("<root@example.test>", OUTLOOK_ID, "<parent@example.test>"),
        headers={"X-Campaign": "autumn", "X-Long": "word " * 40 + "end", "X-Name": "Grüße"},
        settings=EVERYTHING,
    )
    raw = mime(mail, letter({"name": "Zoë"}, to=Address("ann@example.test", 'Ann "A" Lee')))
    assert_wire_format(raw)
    message = read(raw)
    unsubscribe = message["List-Unsubscribe"]
    assert [(name, str(value)) for name, value in message.items()] == [
        ("From", '"Müller, Demo" <hello@demo.test>'),
        ("To", '"Ann \\"A\\" Lee" <ann@example.test>'),
        ("Cc", '"C. C." <cc@example.test>'),
        ("Reply-To", "reply@xn--bcher-kva.test"),
        ("In-Reply-To", "<parent@example.test>"),
        ("References", f"<root@example.test> {OUTLOOK_ID} <parent@example.test>"),
        ("X-Campaign", "autumn"),
        ("X-Long", "word " * 40 + "end"),
        ("X-Name", "Grüße"),
        ("MIME-Version", "1.0"),
        ("Subject", "Hello Zoë"),
        ("Date", "Sat, 21 Nov 2026 12:30:15 +0000"),
        ("Message-ID", f"<postroad{MESSAGE}@demo.test>"),
        ("X-Postroad-Ref", MESSAGE.hex),
        ("List-Unsubscribe", unsubscribe),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("Content-Type", f'multipart/alternative; boundary="{message.get_boundary()}"'),
    ]
    assert OUTLOOK_ID.encode() in raw


def test_thirty_long_references_are_no_encoded_words() -> None:
    ids = tuple(OUTLOOK_ID.replace("AM0", f"AM{number}") for number in range(30))
    raw = mime(content(references=ids, in_reply_to=ids[-1], subject="s", html=None, text="t"))
    assert_wire_format(raw)
    assert b"=?" not in raw
    assert read(raw)["References"].split() == list(ids)
    assert read(raw)["In-Reply-To"] == ids[-1]


def test_b7_bcc_recipients_are_served_and_not_shown() -> None:
    mail = content(individual=False, personalised=False, to=(Address("a@x.test"),), bcc=(Address("hidden@x.test"),))
    email = compiled(mail).email(letter(to=None, recipients=("a@x.test", "hidden@x.test")))
    assert email.recipients == ("a@x.test", "hidden@x.test")
    assert email.mime is not None
    assert b"hidden" not in email.mime


def test_a_shared_mail_names_all_its_recipients() -> None:
    people = (Address("a@x.test", "A"), Address("b@x.test"))
    message = parsed(content(individual=False, personalised=False, to=people), letter(to=None))
    assert [address.addr_spec for address in message["To"].addresses] == ["a@x.test", "b@x.test"]


def test_a_mail_to_nobody_visible_says_so() -> None:
    mail = content(individual=False, personalised=False, bcc=(Address("a@x.test"),))
    assert b"\r\nTo: undisclosed-recipients:;\r\n" in mime(mail, letter(to=None))


def test_the_outbound_mail_carries_what_an_adapter_needs() -> None:
    mail = content(provider_thread_id="t1", settings=SendSettings(ip_pool="pool"))
    email = compiled(mail).email(letter())
    assert email.ref == MESSAGE.hex
    assert email.rfc_message_id == f"<postroad{MESSAGE}@demo.test>"
    assert (email.envelope_from, email.recipients) == ("hello@demo.test", ("ann@example.test",))
    assert (email.provider_thread_id, email.ip_pool, email.smtputf8, email.fields) == ("t1", "pool", False, None)


def test_bounces_can_go_elsewhere() -> None:
    made = Compiled(
        content(),
        seed=SUBMISSION,
        form=Form.MIME,
        files={},
        tracker=None,
        workspace=WORKSPACE,
        envelope_from="b+1@bücher.test",
    )
    assert made.email(letter()).envelope_from == "b+1@xn--bcher-kva.test"


@pytest.mark.parametrize("changes", [
    {"sender": Address("jürgen@demo.test")}, {"cc": (Address("jürgen@demo.test"),)}, {"reply_to": (Address("jürgen@demo.test", "J"),)},
])  # fmt: skip
def test_a_local_part_beyond_ascii_is_written_raw(changes: dict[str, Any]) -> None:
    email = compiled(content(**changes)).email(letter())
    assert email.smtputf8
    assert email.mime is not None
    assert "jürgen@demo.test".encode() in email.mime


def test_a_recipient_beyond_ascii_needs_smtputf8_and_an_international_domain_does_not() -> None:
    made = compiled(content(subject="s", html=None, text="t"))
    raw = made.email(letter(to=Address("jürgen@bücher.test", "Jürgen"), recipients=("jürgen@bücher.test",)))
    assert raw.smtputf8
    assert raw.mime is not None
    assert "<jürgen@xn--bcher-kva.test>".encode() in raw.mime
    plain = made.email(letter(to=Address("ann@bücher.test"), recipients=("ann@bücher.test",)))
    assert not plain.smtputf8
    assert plain.mime is not None
    assert b"To: ann@xn--bcher-kva.test\r\n" in plain.mime


def test_a_hidden_recipient_beyond_ascii_needs_smtputf8() -> None:
    mail = content(individual=False, personalised=False, to=(Address("a@x.test"),), bcc=(Address("jürgen@x.test"),))
    made = compiled(mail)
    assert made.email(letter(to=None, recipients=("a@x.test", "jürgen@x.test"))).smtputf8
    assert not made.email(letter(to=None, recipients=("a@x.test",))).smtputf8


def test_nothing_personal_shows_in_a_repr() -> None:
    shown = repr(letter({"name": "SECRET"})) + repr(compiled(content())) + repr(TRACKER)
    assert "ann@example.test" not in shown
    assert "SECRET" not in shown


def test_the_unsubscribe_link_cannot_stand_in_the_subject() -> None:
    assert "subject" in refused(content(subject="{{unsubscribe_url}}", settings=EVERYTHING))


BREAKS = ["\r\nBcc: x@evil.test", "\n", "\r", "\0", "\u2028", "\x85", "=?utf-8?q?=0D=0ABcc:_x=40evil.test?="]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize(
    "place",
    ["subject", "sender name", "cc name", "reply name", "sender", "cc", "header value", "header name", "in_reply_to", "reference",
     "to", "to name", "message id", "filename", "content id", "content type"],
)  # fmt: skip
def test_nothing_injects_a_header(place: str, bad: str, form: Form) -> None:
    hurts: dict[str, dict[str, Any]] = {
        "subject": {"subject": f"s{bad}"},
        "sender name": {"sender": Address("a@b.test", f"n{bad}")},
        "cc name": {"cc": (Address("a@b.test", f"n{bad}"),)},
        "reply name": {"reply_to": (Address("a@b.test", f"n{bad}"),)},
        "sender": {"sender": Address(f"a@b.test{bad}")},
        "cc": {"cc": (Address(f"a{bad}@b.test"),)},
        "header value": {"headers": {"X-Own": f"v{bad}"}},
        "header name": {"headers": {f"X-Own{bad}": "v"}},
        "in_reply_to": {"in_reply_to": f"<a@b.test{bad}>"},
        "reference": {"references": ("<a@b.test>", f"<a@b.test>{bad}")},
        "filename": {"attachments": (attached(b"x", f"f{bad}", "text/plain"),)},
        "content id": {"attachments": (attached(b"x", "f", "text/plain", content_id=f"c{bad}"),)},
        "content type": {"attachments": (attached(b"x", "f", f"text/plain{bad}"),)},
    }
    hurt = hurts.get(place, {})
    note = {
        "to": letter(to=Address(f"a@b.test{bad}")),
        "to name": letter(to=Address("a@b.test", f"n{bad}")),
        "message id": letter(rfc_message_id=f"<a@b.test>{bad}"),
    }.get(place, letter())
    harmless = bad.startswith("=?") and place in ("header name", "in_reply_to", "content id", "sender", "cc", "to")
    if harmless:  # printable where nothing decodes it: it must come out as one line, or be refused
        try:
            made = compiled(content(**hurt), form, stored(b"x")).email(note)
        except CompositionError:
            return
        assert made.mime is None or b"\r\nBcc" not in made.mime
        return
    complaint = refused(content(**hurt), note, form, stored(b"x"))
    assert "evil" not in complaint


def test_reserved_headers_are_refused_when_composing_too() -> None:
    assert "written by the server" in refused(content(headers={"bcc": "x@evil.test"}))


def test_content_that_cannot_be_composed_fails_its_messages_and_not_the_compiling() -> None:
    made = compiled(content(subject="a\nb"))
    assert made.size_estimate == 0
    with pytest.raises(CompositionError, match="the subject contains a line break"):
        made.email(letter())
    with pytest.raises(CompositionError):
        made.subject({"name": "x"})


def test_a_lost_attachment_is_no_mail() -> None:
    assert (
        refused(content(attachments=(attached(b"x", "a", "text/plain"),))) == "the bytes of 1 of 1 attachments are gone"
    )
