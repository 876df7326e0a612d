"""Composed mails read by two parsers that share no code: Python's, and the Rust one of fast-mail-parser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.headerregistry import Address as ParsedAddress
from email.message import MIMEPart
from urllib.parse import unquote_to_bytes

import fast_mail_parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.content import Address, AttachmentRef
from providers.base import Form
from tests.worker.golden_mails import FILENAMES, MAILS, GoldenMail
from tests.worker.samples import OUTLOOK_ID, attached, compiled, content, letter, mime, read, stored
from worker.headers import to_ascii_domain


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    name: str
    kind: str
    content_id: str | None
    disposition: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a reader makes of a mail."""

    subject: str
    people: Mapping[str, tuple[tuple[str, str], ...]]
    """Header -> names and addresses."""
    text: str | None
    html: str | None
    files: tuple[File, ...]


def by_python(raw: bytes) -> Seen:
    mail = read(raw)
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    bodies = [part for part in (text, html) if part is not None]
    leaves = [part for part in _parts(mail) if part not in bodies]
    return Seen(
        subject=str(mail["Subject"]),
        people={name: tuple(map(_person, mail[name].addresses)) for name in ("From", "To", "Reply-To") if mail[name]},
        text=None if text is None else _text(text),
        html=None if html is None else _text(html),
        files=tuple(map(_file, leaves)),
    )


def _parts(mail: MIMEPart) -> list[MIMEPart]:
    """The parts that hold no others, mails in the mail whole."""
    if mail.get_content_maintype() != "multipart":
        return [mail]
    return [leaf for part in mail.iter_parts() for leaf in _parts(part)]


def _person(address: ParsedAddress) -> tuple[str, str]:
    """Python leaves raw UTF-8 in an address (RFC 6532) as surrogates."""
    return address.display_name.strip(), address.addr_spec.encode("utf-8", "surrogateescape").decode()


def _text(part: MIMEPart) -> str:
    return str(part.get_content()).replace("\r\n", "\n")


def _file(part: MIMEPart) -> File:
    data = part.get_payload(decode=True)
    if part.get_content_type() == "message/rfc822":
        data = part.get_content().as_bytes().replace(b"\n", b"\r\n")
    assert isinstance(data, bytes)
    return File(
        name=part.get_filename() or "",
        kind=part.get_content_type(),
        content_id=part["Content-ID"] and str(part["Content-ID"]).strip("<>"),
        disposition=part.get_content_disposition() or "",
        data=data,
    )


def by_rust(raw: bytes) -> Seen:
    mail = fast_mail_parser.parse_email(raw, strict=True)
    assert mail.warnings == []
    assert len(mail.text_plain) <= 1
    assert len(mail.text_html) <= 1
    assert mail.from_ is not None
    people = {"From": [mail.from_], "To": mail.to, "Reply-To": mail.reply_to}
    return Seen(
        subject=mail.subject,
        people={
            name: tuple((each.display_name or "", each.address) for each in found)
            for name, found in people.items()
            if found
        },
        text=next((text.replace("\r\n", "\n") for text in mail.text_plain), None),
        html=next((html.replace("\r\n", "\n") for html in mail.text_html), None),
        files=tuple(
            File(
                name=each.filename,
                kind=each.mimetype,
                content_id=each.content_id,
                disposition=each.disposition or "",
                data=each.content,
            )
            for each in mail.attachments
        ),
    )


READERS: Mapping[str, Callable[[bytes], Seen]] = {"python": by_python, "rust": by_rust}


def meant(mail: GoldenMail) -> Seen:
    """What went in: the texts as a provider that composes mails itself is given them."""
    fields = compiled(mail.content, Form.FIELDS, mail.files).email(mail.letter).fields
    assert fields is not None
    assert mail.letter.to is not None
    people = {"From": (mail.content.sender,), "To": (mail.letter.to,), "Reply-To": mail.content.reply_to}
    refs = sorted(mail.content.attachments, key=lambda ref: not ref.content_id)
    return Seen(
        subject=fields.subject,
        people={name: tuple(map(_written, each)) for name, each in people.items() if each},
        text=None if fields.text is None else _unix(fields.text),
        html=None if fields.html is None else _unix(fields.html),
        files=tuple(_sent(ref, mail.files[ref.sha256]) for ref in refs),
    )


def _written(address: Address) -> tuple[str, str]:
    return address.name or "", to_ascii_domain(address.email)


def _unix(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def _sent(ref: AttachmentRef, data: bytes) -> File:
    is_mail = ref.content_type == "message/rfc822"
    return File(
        name=ref.filename,
        kind=ref.content_type,
        content_id=ref.content_id,
        disposition="inline" if ref.inline else "attachment",
        data=data.replace(b"\n", b"\r\n") if is_mail else data,
    )


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", MAILS)
def test_c10_c28_what_went_in_comes_out(name: str, reader: str) -> None:
    mail = MAILS[name]()
    seen, wanted = READERS[reader](mail.raw), meant(mail)
    assert seen == wanted


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60, deadline=None)
@given(
    subject=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), max_size=80).map(str.strip),
    filename=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" \"'\\;=%()<>*é語"), min_size=1, max_size=70).map(str.strip).filter(bool),
    data=st.binary(max_size=200),
    text=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from(".\n =-\t"), max_size=200),
)  # fmt: skip
def test_any_subject_name_text_and_bytes_come_out(
    reader: str, subject: str, filename: str, data: bytes, text: str
) -> None:
    mail = content(
        subject=subject, personalised=False, text=text, attachments=(attached(data, filename, "application/pdf"),)
    )
    seen = READERS[reader](mime(mail, letter(), stored(data)))
    assert (seen.subject, seen.text) == (subject, _unix(text))
    assert [(each.name, each.data) for each in seen.files] == [(filename, data)]


def test_the_ids_of_a_thread_come_out_of_the_second_parser() -> None:
    raw = MAILS["attachments"]().raw
    headers = fast_mail_parser.parse_email(raw, strict=True).headers
    assert headers["References"][0].split() == ["<root@example.test>", OUTLOOK_ID]
    assert headers["In-Reply-To"] == [OUTLOOK_ID]


@pytest.mark.parametrize("filename", FILENAMES)
def test_no_letter_of_a_name_is_torn_between_the_sections_of_rfc_2231(filename: str) -> None:
    """Some readers decode each section by itself."""
    raw = mime(content(attachments=(attached(b"x", filename, "text/plain"),)), files=stored(b"x")).decode()
    sections = [
        line.partition("*=")[2].rstrip(";").removeprefix("utf-8''") for line in raw.split("\r\n") if "*=" in line
    ]
    assert ("filename*" in raw) is bool(sections)
    for section in sections:
        unquote_to_bytes(section).decode()
