"""Contents and letters for the tests of composing."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import pytest

from models.content import Address, AttachmentRef, Content, SendSettings
from providers.base import Fields, Form
from worker.compose import Compiled, CompositionError, Letter
from worker.tracking import Tracker

SUBMISSION = UUID("01938c5e-0000-7000-8000-000000000001")
MESSAGE = UUID("01938c5e-0000-7000-8000-0000000000aa")
WORKSPACE = UUID("01938c5e-0000-7000-8000-0000000000bb")
TRACKER = Tracker("https://t.demo.test", b"0123456789abcdef0123456789abcdef")
DATE = datetime(2026, 11, 21, 12, 30, 15, 999, tzinfo=UTC)
EVERYTHING = SendSettings(open_tracking=True, click_tracking=True, unsubscribe=True)

OUTLOOK_ID = f"<{'AM0PR04MB' + 'x' * 120}@AM0PR04MB0000.eurprd04.prod.outlook.com>"
"""As long as Outlook makes them."""

CONTENT = Content(
    sender=Address("hello@demo.test", "Demo"),
    subject="Hello {{name}}",
    html="<p>Hello {{name}}</p>",
    text="Hello {{name}}",
    individual=True,
    personalised=True,
)


def content(**changes: Any) -> Content:
    return replace(CONTENT, **changes)


def letter(variables: Mapping[str, str] | None = None, **changes: Any) -> Letter:
    plain = Letter(
        message_id=MESSAGE,
        rfc_message_id=f"<postroad{MESSAGE}@demo.test>",
        recipients=("ann@example.test",),
        to=Address("ann@example.test", "Ann"),
        variables={"name": "Ann"} if variables is None else variables,
        date=DATE,
    )
    return replace(plain, **changes)


def compiled(mail: Content, form: Form = Form.MIME, files: Mapping[str, bytes] | None = None) -> Compiled:
    return Compiled(mail, seed=SUBMISSION, form=form, files=files or {}, tracker=TRACKER, workspace=WORKSPACE)


def mime(mail: Content, note: Letter | None = None, files: Mapping[str, bytes] | None = None) -> bytes:
    made = compiled(mail, files=files).email(note or letter()).mime
    assert made is not None
    return made


def parsed(mail: Content, note: Letter | None = None, files: Mapping[str, bytes] | None = None) -> EmailMessage:
    return read(mime(mail, note, files))


def fields(mail: Content, note: Letter | None = None, files: Mapping[str, bytes] | None = None) -> Fields:
    made = compiled(mail, Form.FIELDS, files).email(note or letter()).fields
    assert made is not None
    return made


def read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
    return message


def body(message: EmailMessage, subtype: str) -> str:
    """The text of the one part of that kind, without the line end that every part has."""
    part = message.get_body((subtype,))
    assert part is not None
    made = part.get_content()
    assert isinstance(made, str)
    assert made.endswith("\n")
    return made.replace("\r\n", "\n")[:-1]


def attached(data: bytes, filename: str, content_type: str, **more: Any) -> AttachmentRef:
    return AttachmentRef(
        sha256=hashlib.sha256(data).hexdigest(), size=len(data), filename=filename, content_type=content_type, **more
    )


def stored(*contents: bytes) -> dict[str, bytes]:
    return {hashlib.sha256(data).hexdigest(): data for data in contents}


def assert_wire_format(raw: bytes, longest: int = 998) -> None:
    """CRLF everywhere, no line too long."""
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert max(len(line) for line in raw.split(b"\r\n")) <= longest


def refused(mail: Content, note: Any = None, form: Form = Form.MIME, files: dict[str, bytes] | None = None) -> str:
    with pytest.raises(CompositionError) as caught:
        compiled(mail, form, files).email(note or letter())
    return str(caught.value)


IMAGE, PDF = b"\x89PNG", b"%PDF"
LOGO = attached(IMAGE, "logo.png", "image/png", inline=True, content_id="logo@demo", content_location="logo.png")
PAPER = attached(PDF, "a.pdf", "application/pdf")
