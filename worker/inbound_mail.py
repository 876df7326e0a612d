"""A mail that came in, as values: read from a provider's fields or from the raw mail."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

from providers.base import ProviderEvent
from worker.storable import text

LONGEST_BODY = 1_000_000
"""Characters kept of each body."""
MOST_ADDRESSES = 200
MOST_REFERENCES = 100

_IDS = re.compile(r"<[^<>\s]{1,990}>")
_REPLY = re.compile(r"^(?:\s*(?:re|aw|antw|sv|vs|odp|rif|res|tr|wg|fw|fwd)\s*(?:\[\d+\])?\s*:)+\s*", re.IGNORECASE)


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
    attachments: tuple[Mapping[str, Any], ...]
    """``{"name", "mimeType", "size"}`` each."""
    is_spam: bool
    automatic: bool
    """Written by a machine: a vacation note, a list, a report. Nobody answered."""
    provider_thread_id: str | None = None

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
        attachments=tuple(
            _attachment(file.get("filename"), file.get("content_type"), _decoded_size(file.get("content_base64")))
            for file in data.get("attachments") or ()
        ),
        **_nature(headers),
    )


def _from_raw(event: ProviderEvent) -> InboundMail:
    raw = event.data["raw"]
    message = message_from_bytes(
        raw if isinstance(raw, bytes) else str(raw).encode("utf-8", "replace"), policy=policy.default
    )
    assert isinstance(message, EmailMessage)  # noqa: S101 -- the policy makes no other
    headers = {name: value for name in _READ if (value := _header(message, name))}
    name, address = next(iter(getaddresses([headers.get("from", "")])), ("", ""))
    return InboundMail(
        **_threading(headers, event),
        from_email=_address(address or event.data.get("envelope_from")),
        from_name=text(name, 320) or None,
        to=_unique(address for _, address in getaddresses([headers.get("to", "")])),
        cc=_unique(address for _, address in getaddresses([headers.get("cc", "")])),
        subject=_line(headers.get("subject")),
        text=_body(_part(message, "plain")),
        html=_body(_part(message, "html")),
        attachments=tuple(_attachments(message)),
        **_nature(headers),
    )


_READ = (
    "from", "to", "cc", "subject", "message-id", "in-reply-to", "references", "auto-submitted", "precedence",
    "list-id", "x-auto-response-suppress", "x-spam-flag", "x-spam-status", "content-type",
)  # fmt: skip


def _header(message: EmailMessage, name: str) -> str:
    """A header's text; the parser raises all kinds of errors on malformed ones, which then are not there."""
    try:
        return str(message[name] or "")
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return ""


def _part(message: EmailMessage, kind: str) -> str | None:
    try:
        part = message.get_body((kind,))
        return None if part is None else _decoded(part)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None


def _decoded(part: Any) -> str:
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # a charset that nobody knows
        return bytes(part.get_payload(decode=True) or b"").decode("utf-8", "replace")


def _attachments(message: EmailMessage) -> Iterable[Mapping[str, Any]]:
    try:
        for part in message.iter_attachments():
            size = len(part.get_payload(decode=True) or b"")
            yield _attachment(part.get_filename(), part.get_content_type(), size)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return


def _attachment(name: object, mime_type: object, size: int) -> Mapping[str, Any]:
    return {
        "name": _line(name) or "attachment",
        "mimeType": _line(mime_type) or "application/octet-stream",
        "size": size,
    }


def _decoded_size(content: object) -> int:
    encoded = str(content or "").rstrip()
    return len(encoded) * 3 // 4 - (len(encoded) - len(encoded.rstrip("=")))


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
    }


def _ids(value: str) -> list[str]:
    return [text(found) for found in _IDS.findall(value)]


def _nature(headers: Mapping[str, str]) -> dict[str, Any]:
    """RFC 3834 section 5, and what else machines are known by."""
    automatic = (
        headers.get("auto-submitted", "no").strip().lower() not in ("no", "")
        or headers.get("precedence", "").strip().lower() in ("bulk", "list", "junk")
        or "list-id" in headers
        or headers.get("content-type", "").lower().startswith("multipart/report")
    )
    spam = [headers.get(name, "").strip().lower() for name in ("x-spam-flag", "x-spam-status")]
    return {"automatic": automatic, "is_spam": any(value.startswith("yes") for value in spam)}


def _unique(addresses: Iterable[object]) -> tuple[str, ...]:
    found = dict.fromkeys(address for given in addresses if "@" in (address := _address(given)))
    return tuple(found)[:MOST_ADDRESSES]


def _address(value: object) -> str:
    return text(str(value or "").strip(), 320)


def _line(value: object) -> str:
    return text(" ".join(str(value or "").split()), 998)


def _body(value: object) -> str | None:
    return text(str(value), LONGEST_BODY) if value else None
