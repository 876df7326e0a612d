"""A mail that came in, as values: read from a provider's fields or from the raw mail."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

from providers.base import ProviderEvent
from worker.auto_reply import why_automatic
from worker.mail_tree import Part, read_mail, unwrapped
from worker.storable import text

LONGEST_BODY = 1_000_000
"""Characters kept of each body."""
MOST_ADDRESSES = 200
MOST_REFERENCES = 100
MOST_FILES = 100

_IDS = re.compile(r"<[^<>\s]{1,990}>")
_REPLY = re.compile(r"^(?:\s*(?:re|aw|antw|sv|vs|odp|rif|res|tr|wg|fw|fwd)\s*(?:\[\d+\])?\s*:)+\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class InboundFile:
    """An attachment."""

    name: str = field(repr=False)
    mime_type: str
    data: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def listing(self) -> dict[str, Any]:
        """As it stands with the mail; the bytes lie in `models.blob.Blob`."""
        return {"name": self.name, "mimeType": self.mime_type, "size": len(self.data), "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMail:
    """Everything in it can be stored as it is."""

    rfc_message_id: str
    """With angle brackets; made up from the provider's id where the mail has none."""
    in_reply_to: str | None
    references: tuple[str, ...]
    """Oldest first."""
    from_email: str = field(repr=False)
    from_name: str | None = field(repr=False)
    to: tuple[str, ...] = field(repr=False)
    cc: tuple[str, ...] = field(repr=False)
    subject: str = field(repr=False)
    text: str | None = field(repr=False)
    html: str | None = field(repr=False)
    files: tuple["InboundFile", ...]
    is_spam: bool
    automatic: bool
    """Written by a machine: a vacation note, a list, a report. Nobody answered."""
    provider_thread_id: str | None = None
    thread_id: UUID | None = None
    """Of its Thread-Id header, which a mail may have that was written in answer to one with such a header."""

    @property
    def answers(self) -> list[str]:
        """Message-IDs that it may be an answer to, the likeliest first."""
        nearest_first = ([self.in_reply_to] if self.in_reply_to else []) + list(reversed(self.references))
        return list(dict.fromkeys(nearest_first))

    @property
    def topic(self) -> str | None:
        """The subject without its ``Re:``, lower case; None where nothing says that it is an answer."""
        bare = _REPLY.sub("", self.subject).strip().lower()
        return bare if bare and _REPLY.match(self.subject) else None


def read_inbound(event: ProviderEvent) -> InboundMail | None:
    """The mail of a ``received`` event, from Postmark's fields or from ``data["raw"]``.

    None where the event brings no mail, only word of one, or one without a sender.
    """
    data = event.data
    if data.get("from"):
        mail = _from_fields(event)
    elif data.get("raw"):
        mail = _from_raw(event)
    else:
        return None
    return mail if "@" in mail.from_email else None


def _from_fields(event: ProviderEvent) -> InboundMail:
    data = event.data
    headers: dict[str, str] = {}
    for name, value in data.get("headers") or ():
        headers.setdefault(str(name).lower(), str(value))
    sender = data["from"][0]
    return InboundMail(
        **_threading(headers, event),
        from_email=_address(sender.get("email")),
        from_name=text(sender["name"], 320) if sender.get("name") else None,
        to=_unique(box.get("email") for box in data.get("to") or ()),
        cc=_unique(box.get("email") for box in data.get("cc") or ()),
        subject=_line(data.get("subject")),
        text=_body(data.get("text")),
        html=_body(data.get("html")),
        files=tuple(
            _file(file.get("filename"), file.get("content_type"), _of_base64(file.get("content_base64")))
            for file in (data.get("attachments") or ())[:MOST_FILES]
        ),
        **_nature({"subject": str(data.get("subject") or "")} | headers),
    )


def _from_raw(event: ProviderEvent) -> InboundMail:
    mail = tree_of(event)
    headers: dict[str, str] = {}
    for name, _ in mail.headers:
        headers.setdefault(name, mail.header(name))
    name, address = next(iter(mail.addresses("from")), ("", ""))
    sender = event.data.get("envelope_from")
    plain, html = mail.first("text/plain"), mail.first("text/html")
    return InboundMail(
        **_threading(headers, event),
        from_email=_address(address or sender),
        from_name=text(name, 320) or None,
        to=_unique(address for _, address in mail.addresses("to")),
        cc=_unique(address for _, address in mail.addresses("cc")),
        subject=_line(headers.get("subject")),
        text=None if plain is None else _body(plain.text),
        html=None if html is None else _body(html.text),
        files=tuple(_attached(mail, {id(plain), id(html)}))[:MOST_FILES],
        **_nature(headers, sender),
    )


def tree_of(event: ProviderEvent) -> Part:
    """The raw mail that a ``received`` event brings, taken apart."""
    raw = event.data["raw"]
    return read_mail(raw if isinstance(raw, bytes) else str(raw).encode("utf-8", "replace"))


def _attached(part: Part, bodies: set[int]) -> Iterator[InboundFile]:
    """The files of a mail: all its leaves but the two bodies. An attached mail is one file."""
    if id(part) in bodies:
        return
    if part.media_type.startswith("multipart/") and part.parts:
        for inner in part.parts:
            yield from _attached(inner, bodies)
    elif part.media_type in ("message/rfc822", "message/global"):
        yield _file(part.filename or "message.eml", part.media_type, part.payload)
    elif part.payload and (
        part.disposition == "attachment" or part.filename or not part.media_type.startswith("text/")
    ):
        yield _file(part.filename, part.media_type, part.payload)


def _file(name: object, mime_type: object, data: bytes) -> InboundFile:
    return InboundFile(
        name=_line(name)[:255] or "attachment",
        mime_type=_line(mime_type)[:255] or "application/octet-stream",
        data=data,
    )


def _of_base64(content: object) -> bytes:
    return unwrapped(str(content or "").encode("ascii", "replace"), "base64")


def _threading(headers: Mapping[str, str], event: ProviderEvent) -> dict[str, Any]:
    own = _ids(headers.get("message-id", "")) or _ids(event.rfc_message_id or "")
    made_up = f"<{hashlib.sha256(event.natural_key.encode('utf-8', 'replace')).hexdigest()[:32]}@no-message-id.invalid>"
    answered = _ids(headers.get("in-reply-to", ""))
    conversation = event.data.get("provider_thread_id")
    return {
        "rfc_message_id": own[0] if own else made_up,
        "in_reply_to": answered[0] if answered else None,
        "references": tuple(_ids(headers.get("references", ""))[-MOST_REFERENCES:]),
        "provider_thread_id": text(str(conversation)) if conversation else None,
        "thread_id": _uuid(headers.get("thread-id", "")),
    }


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value.strip().strip("<>").partition("@")[0])
    except ValueError:
        return None


def _ids(value: str) -> list[str]:
    return [text(found) for found in _IDS.findall(value)]


def _nature(headers: Mapping[str, str], envelope_from: object = None) -> dict[str, Any]:
    sender = None if envelope_from is None else str(envelope_from)
    spam = [headers.get(name, "").strip().lower() for name in ("x-spam-flag", "x-spam-status", "x-spam")]
    return {
        "automatic": why_automatic(headers, headers.get("subject", ""), sender) is not None,
        "is_spam": any(value.startswith("yes") for value in spam),
    }


def _unique(addresses: Iterable[object]) -> tuple[str, ...]:
    found = dict.fromkeys(address for given in addresses if "@" in (address := _address(given)))
    return tuple(found)[:MOST_ADDRESSES]


def _address(value: object) -> str:
    return text(str(value or "").strip(), 320)


def _line(value: object) -> str:
    return text(" ".join(str(value or "").split()), 998)


def _body(value: object) -> str | None:
    return text(str(value), LONGEST_BODY) if value else None
