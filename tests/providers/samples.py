"""A mail, an account and the failures of the wire, for the adapters of HTTP APIs."""

import uuid
from typing import Any

import pytest

from providers.base import Account, Fields, File, Mailbox, OutboundEmail, Result
from providers.emulators.http import Emulator, Fault
from providers.guard import Guard
from providers.http import Timeout

QUICK = Timeout(connect=1.0, read=0.6, total=1.2)

ON_THE_WIRE = [
    pytest.param(Fault.CLOSE, Result.UNCERTAIN, id="close"),
    pytest.param(Fault.RESET, Result.UNCERTAIN, id="reset"),
    pytest.param(Fault.ERROR_500, Result.UNCERTAIN, id="500"),
    pytest.param(Fault.ERROR_503, Result.TRANSIENT, id="503"),
    pytest.param(Fault.PROXY_503, Result.UNCERTAIN, id="503 of a proxy"),
    pytest.param(Fault.THROTTLED, Result.THROTTLED, id="429"),
    pytest.param(Fault.HANG, Result.UNCERTAIN, id="hang"),
    pytest.param(Fault.UNAUTHORIZED, Result.CREDENTIALS, id="401"),
    pytest.param(Fault.ACCEPT_THEN_504, Result.UNCERTAIN, id="accepted, then 504"),
    pytest.param(Fault.ACCEPT_THEN_CLOSE, Result.UNCERTAIN, id="accepted, then close"),
    pytest.param(Fault.ACCEPT_THEN_CUT, Result.UNCERTAIN, id="accepted, then cut"),
    pytest.param(Fault.ACCEPT_THEN_DRIP, Result.UNCERTAIN, id="accepted, then too slow"),
]
"""How a sending request can fail, and what an adapter must make of it."""


def account(provider: str, emulator: Emulator, **credentials: str) -> Account:
    return Account(
        mailer_id="m1",
        provider=provider,
        credentials=credentials,
        base_url=emulator.url,
        auth_url=emulator.url,
        guard=Guard(frozenset({"127.0.0.1"})),
    )


def mail(*recipients: str, mime: bytes | None = None, **changes: Any) -> OutboundEmail:
    """A mail with both forms; ``changes`` are fields of `OutboundEmail`."""
    ref = uuid.uuid4().hex
    message_id = changes.setdefault("rfc_message_id", f"<postroad{ref}@demo.test>")
    to = recipients or ("bob@client.test",)
    head = f"From: ann@demo.test\r\nTo: {', '.join(to)}\r\nSubject: Offer\r\nMessage-ID: {message_id}\r\n"
    values: dict[str, Any] = {
        "ref": ref,
        "envelope_from": "ann@demo.test",
        "recipients": to,
        "mime": head.encode() + b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
        if mime is None
        else mime,
        "fields": fields(to=tuple(Mailbox(email=address) for address in to)),
    }
    return OutboundEmail(**{**values, **changes})


def fields(**changes: Any) -> Fields:
    values: dict[str, Any] = {
        "sender": Mailbox(email="ann@demo.test", name="Ann"),
        "to": (Mailbox(email="bob@client.test", name="Bob"),),
        "subject": "Offer",
        "html": "<p>Hello</p>",
    }
    return Fields(**{**values, **changes})


def file(size: int, **changes: Any) -> File:
    return File(**{"filename": "a.bin", "content_type": "application/octet-stream", "data": b"a" * size, **changes})
