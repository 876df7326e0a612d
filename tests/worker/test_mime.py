import quopri
from email import message_from_bytes, policy
from email.message import EmailMessage
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.worker.samples import SUBMISSION, assert_wire_format, attached, content, letter, mime, parsed, stored
from worker.mime import Boundaries, attachment, check_attachment, quoted_value, text_entity
from worker.template import CompositionError, Scene, Variable, raw

TEXT = st.text(st.sampled_from(list("ab =.-_é語😀\n\r\t\0")) | st.characters(codec="utf-8"), max_size=200)


def unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("x" * 74)
@example("x" * 75)
@example("x" * 76)
@example("x" * 75 + " ")
@example("x" * 150)
@example("x" * 151)
@example("x" * 150 + " y")
@example("=" * 100)
@example("語" * 100)
@example("a\n")
@example(" ")
@example("")
def test_a_quoted_value_decodes_to_itself_in_lines_of_76(value: str) -> None:
    encoded = quoted_value(value)
    assert encoded.isascii()
    assert encoded.endswith(b"=\r\n")
    assert_wire_format(encoded, 76)
    assert quopri.decodestring(encoded + b"\r\n") == (unix(value).replace("\n", "\r\n") + "\r\n").encode()


@settings(max_examples=150, deadline=None)
@given(before=TEXT, value=TEXT, after=TEXT)
@example(before="x" * 76, value="y" * 76, after="z" * 76)
@example(before="a ", value=" ", after=" b ")
@example(before="", value="", after="")
def test_a_spliced_text_equals_the_text_filled_in_naively(before: str, value: str, after: str) -> None:
    before, after = unix(before), unix(after)
    entity = text_entity("plain", [before, Variable("v", raw), after])
    scene = Scene(message_id=SUBMISSION, workspace=SUBMISSION, variables={"v": value}, unsubscribe_url="", tracker=None)
    body = b"".join(piece if isinstance(piece, bytes) else piece.fill(scene) for piece in entity.body)
    assert_wire_format(body, 76)
    wanted = before + unix(value) + after
    wanted += "" if after.endswith("\n") else "\n"
    assert quopri.decodestring(body).replace(b"\r\n", b"\n").decode() == wanted


def test_a_short_ascii_text_without_holes_travels_as_it_is() -> None:
    entity = text_entity("plain", ["Hello = there\n\nBye"])
    assert entity.headers[1] == "Content-Transfer-Encoding: 7bit\r\n"
    assert entity.body == (b"Hello = there\r\n\r\nBye\r\n",)


@pytest.mark.parametrize("text", ["x" * 79, "é", "a\0b"])
def test_a_text_that_7bit_cannot_carry_is_quoted(text: str) -> None:
    entity = text_entity("plain", [text])
    assert entity.headers[1] == "Content-Transfer-Encoding: quoted-printable\r\n"
    assert quopri.decodestring(b"".join(piece for piece in entity.body if isinstance(piece, bytes))).decode() == (
        f"{text}\r\n"
    )


FILENAMES = [
    "report.pdf", 'a "quoted" \\ name.txt', "naïve café.pdf", "报告 第一部分.docx", "تقرير.pdf", "отчёт.xlsx", "דוח.txt",
    "😀 emoji.png", "x" * 200 + ".txt", "語" * 80 + ".txt", "semi;colon=x'y%41.txt", "100%.txt", "a'b''c.txt",
]  # fmt: skip


@pytest.mark.parametrize("filename", FILENAMES)
def test_a_file_name_survives_in_every_script(filename: str) -> None:
    data = b"bytes"
    mail = content(attachments=(attached(data, filename, "application/octet-stream"),))
    raw_mail = mime(mail, files=stored(data))
    assert_wire_format(raw_mail, 78)
    (part,) = parsed(mail, files=stored(data)).iter_attachments()
    assert part.get_filename() == filename
    assert part.get_content() == data


def test_attachments_of_every_length_decode_to_themselves() -> None:
    files = [bytes(range(256)) * 3, b"", b"x", b"y" * 57, b"z" * 58, b"\r\n.\r\n--x\r\n"]
    mail = content(attachments=tuple(attached(data, f"{n}.bin", "image/png") for n, data in enumerate(files)))
    raw_mail = mime(mail, files=stored(*files))
    assert_wire_format(raw_mail, 78)
    assert [part.get_content() for part in parsed(mail, files=stored(*files)).iter_attachments()] == files


INNER = b"Subject: inner\nFrom: a@b.test\n\nbody\n"


@pytest.mark.parametrize(("data", "encoding"), [(INNER, "7bit"), (INNER + "é\r\n".encode(), "8bit")])
def test_a_mail_in_a_mail_is_never_encoded(data: bytes, encoding: str) -> None:
    mail = content(attachments=(attached(data, "inner.eml", "message/rfc822"),))
    raw_mail = mime(mail, files=stored(data))
    assert_wire_format(raw_mail)
    message = parsed(mail, files=stored(data))
    (part,) = message.iter_attachments()
    assert part.get_content_type() == "message/rfc822"
    assert part["Content-Transfer-Encoding"] == encoding
    assert part.get_content()["Subject"] == "inner"
    # RFC 2045 section 6.4: what encloses 8bit is 8bit
    assert message.get("Content-Transfer-Encoding", "7bit") == encoding


@pytest.mark.parametrize("data", [b"Subject: x\n\n" + b"y" * 1000, b"Subject: x\n\n\0"])
def test_a_mail_that_cannot_travel_as_it_is_goes_as_a_file(data: bytes) -> None:
    mail = content(attachments=(attached(data, "inner.eml", "message/rfc822"),))
    assert_wire_format(mime(mail, files=stored(data)))
    (part,) = parsed(mail, files=stored(data)).iter_attachments()
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_filename() == "inner.eml"
    assert part.get_content() == data


def test_an_attached_mail_cannot_forge_the_boundary() -> None:
    boundaries = Boundaries(SUBMISSION, [])
    foreseen = [boundaries.take() for _ in range(5)]
    data = "".join(["Subject: x\n\n", *(f"--{boundary}--\n" for boundary in foreseen)]).encode()
    mail = content(html=None, attachments=(attached(data, "inner.eml", "message/rfc822"),))
    message = parsed(mail, files=stored(data))
    assert message.get_boundary() not in foreseen
    assert len(list(message.iter_parts())) == 2


def test_boundaries_follow_from_the_seed_alone() -> None:
    one, same, other = (Boundaries(seed, []) for seed in (SUBMISSION, SUBMISSION, UUID(int=5)))
    assert [one.take(), one.take()] == [same.take(), same.take()]
    assert one.take() != other.take()


def test_the_same_letter_is_the_same_bytes() -> None:
    mail = content(attachments=(attached(b"x", "x.txt", "text/plain"),))
    assert mime(mail, files=stored(b"x")) == mime(mail, files=stored(b"x"))
    assert mime(mail, letter({"name": "Eve"}), stored(b"x")) != mime(mail, files=stored(b"x"))


@pytest.mark.parametrize("bad", ["\r\nBcc: x@evil.test", "\n", "\r", "\0", "\u2028", "\u2029", "\x85", "\x1f", "\x7f"])
@pytest.mark.parametrize("field", ["filename", "content_type", "content_id", "content_location"])
def test_nothing_of_an_attachment_breaks_its_header(field: str, bad: str) -> None:
    values = {"filename": "a.txt", "content_type": "text/plain", "content_id": "a", "content_location": "a"}
    values[field] += bad
    ref = attached(b"x", values.pop("filename"), values.pop("content_type"), **values)
    with pytest.raises(CompositionError):
        check_attachment(ref)


@pytest.mark.parametrize("kind", ["text", "text/", "/plain", "text/plain; x", "text/plain,a", "", "a/" + "b" * 300])
def test_a_media_type_must_be_one(kind: str) -> None:
    with pytest.raises(CompositionError, match="media type"):
        check_attachment(attached(b"x", "a.txt", kind))


def test_a_media_type_keeps_its_parameters() -> None:
    entity = attachment(attached(b"x", "a.ics", 'text/calendar; method=REQUEST; charset="utf-8"'), b"x")
    raw_part = "".join(entity.headers).encode() + b"\r\n" + b"".join(p for p in entity.body if isinstance(p, bytes))
    part = message_from_bytes(raw_part, policy=policy.default)
    assert isinstance(part, EmailMessage)
    assert part.get_content_type() == "text/calendar"
    assert part["Content-Type"].params["method"] == "REQUEST"
    assert part.get_filename() == "a.ics"
