"""Signed addresses for opens, clicks and unsubscribing. Nothing is stored: the token says it all.

A token is base64url of ``key id (2) | tag (16) | message (16) | workspace (16) | rest``. The tag is HMAC-SHA-256, cut
to 128 bit, under a key of its own for each purpose, so that no token can be read as one of another kind. The target of
a click lies inside the signed part: a redirect can only lead where the mail's author wrote. The message id is
time-ordered (RFC 9562), so a reader that wants links to expire can tell their age from it.
"""

import base64
import binascii
import copy
import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID

import idna

WEB = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)
_CLEAN = re.compile(r"[!#-;=?-_a-z~]+")
_BREAKS = str.maketrans("", "", "\t\r\n")
_KEY_ID = 2
_TAG = 16
_ID = 16
_HEAD = _KEY_ID + _TAG
_MAX_URL = 8_192
_MAX_TOKEN = 16_384
_HOST = re.compile(r"[^@:\[\]]+(?=(?::\d*)?$)")


class Purpose(enum.Enum):
    """What a token is for, and the path it stands under."""

    OPEN = "o"
    CLICK = "c"
    UNSUBSCRIBE = "u"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    message_id: UUID
    workspace: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicked:
    message_id: UUID
    workspace: UUID
    url: str
    """Absolute, http or https, printable ASCII only: fit for a Location header as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribed:
    message_id: UUID
    workspace: UUID
    recipient: str = field(repr=False)
    """Empty where several recipients share the message: the page has to ask."""
    list_id: str
    """Empty for every list of the workspace."""


class _Signature:
    """HMAC-SHA-256 (RFC 2104) under one key. Both blocks of the key are hashed once, `hmac` would for each token."""

    def __init__(self, key: bytes) -> None:
        """key: of at most 64 bytes."""
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def tag(self, body: bytes) -> bytes:
        """As much of it as stands in a token."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()[:_TAG]


_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


@dataclass(frozen=True, slots=True, repr=False)
class _Keys:
    """The keys derived from one secret."""

    id: bytes
    by_purpose: dict[Purpose, _Signature]

    @classmethod
    def derive(cls, secret: bytes) -> Self:
        def key(label: str) -> bytes:
            return hmac.digest(secret, f"postroad tracking v1 {label}".encode(), "sha256")

        return cls(key("id")[:_KEY_ID], {purpose: _Signature(key(purpose.name)) for purpose in Purpose})


class Tracker:
    """Signs and reads tracking addresses under one root. Immutable and safe to share between threads.

    public_url: root as the outside reaches it, or a mailer's own tracking domain; the paths are ``/t/o/TOKEN`` (open),
    ``/t/c/TOKEN`` (click) and ``/t/u/TOKEN`` (unsubscribe).
    secret: at least 16 bytes. previous: secrets of before a rotation; their tokens are still read, never signed.
    """

    def __init__(self, public_url: str, secret: bytes, previous: Sequence[bytes] = ()) -> None:
        if any(len(item) < 16 for item in (secret, *previous)):
            raise ValueError("a tracking secret must have at least 16 bytes")
        self._keys = _Keys.derive(secret)
        self._readable = [self._keys, *(_Keys.derive(item) for item in previous)]
        self._prefix = _prefixes(public_url)

    def at(self, public_url: str) -> Self:
        """The same keys under another root: a mailer's tracking domain."""
        other = copy.copy(self)
        other._prefix = _prefixes(public_url)
        return other

    def open_url(self, message_id: UUID, workspace: UUID) -> str:
        return self._sign(Purpose.OPEN, message_id, workspace, b"")

    def click_url(self, message_id: UUID, workspace: UUID, url: str) -> str:
        """The redirecting address for ``url``. Raises ValueError unless it is an absolute http or https URL."""
        return self._sign(Purpose.CLICK, message_id, workspace, location(url).encode("ascii"))

    def unsubscribe_url(self, message_id: UUID, workspace: UUID, recipient: str, list_id: str = "") -> str:
        return self._sign(Purpose.UNSUBSCRIBE, message_id, workspace, f"{list_id}\0{recipient}".encode())

    def read_open(self, token: str) -> Opened | None:
        body = self._read(Purpose.OPEN, token)
        if body is None:
            return None
        message_id, workspace, rest = _split(body)
        return None if rest else Opened(message_id=message_id, workspace=workspace)

    def read_click(self, token: str) -> Clicked | None:
        body = self._read(Purpose.CLICK, token)
        if body is None:
            return None
        message_id, workspace, rest = _split(body)
        return Clicked(message_id=message_id, workspace=workspace, url=rest.decode("ascii"))

    def read_unsubscribe(self, token: str) -> Unsubscribed | None:
        body = self._read(Purpose.UNSUBSCRIBE, token)
        if body is None:
            return None
        message_id, workspace, rest = _split(body)
        list_id, _, recipient = rest.decode().partition("\0")
        return Unsubscribed(message_id=message_id, workspace=workspace, recipient=recipient, list_id=list_id)

    def _sign(self, purpose: Purpose, message_id: UUID, workspace: UUID, rest: bytes) -> str:
        body = message_id.bytes + workspace.bytes + rest
        tag = self._keys.by_purpose[purpose].tag(body)
        token = base64.urlsafe_b64encode(self._keys.id + tag + body).rstrip(b"=")
        return self._prefix[purpose] + token.decode("ascii")

    def _read(self, purpose: Purpose, token: str) -> bytes | None:
        raw = _decode(token)
        if raw is None or len(raw) < _HEAD + 2 * _ID:
            return None
        key_id, tag, body = raw[:_KEY_ID], raw[_KEY_ID:_HEAD], raw[_HEAD:]
        for keys in self._readable:
            if keys.id == key_id and hmac.compare_digest(keys.by_purpose[purpose].tag(body), tag):
                return body
        return None


def made_at(message_id: UUID) -> datetime:
    """When the message was made, by its id (RFC 9562 section 5.7)."""
    return datetime.fromtimestamp((message_id.int >> 80) / 1000, UTC)


def location(url: str) -> str:
    """``url`` as printable ASCII, meaning the same to a browser.

    Raises ValueError unless it is absolute, http or https, and at most 8192 characters long.
    """
    is_clean = _CLEAN.fullmatch(url)
    if not is_clean:
        url = url.strip().translate(_BREAKS)
        is_clean = _CLEAN.fullmatch(url)
    if not WEB.match(url):
        raise ValueError("only absolute http and https addresses can be tracked")
    clean = url if is_clean else _escaped(url)
    if len(clean) > _MAX_URL:
        raise ValueError(f"an address of {len(clean)} characters is too long to be tracked")
    return clean


def _escaped(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else _HOST.sub(_a_labels, parts.netloc)
    return quote(urlunsplit(parts._replace(netloc=host)), safe="!#$%&'()*+,/:;=?@[]^_|~\\-.")


def _a_labels(host: re.Match[str]) -> str:
    return idna.encode(host[0], uts46=True).decode("ascii")


def _prefixes(public_url: str) -> dict[Purpose, str]:
    return {purpose: f"{public_url.rstrip('/')}/t/{purpose.value}/" for purpose in Purpose}


def _decode(token: str) -> bytes | None:
    """The bytes of a token in its one canonical spelling, or None."""
    if len(token) > _MAX_TOKEN or not token.isascii():
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=") == token.encode("ascii") else None


def _split(body: bytes) -> tuple[UUID, UUID, bytes]:
    return UUID(bytes=body[:_ID]), UUID(bytes=body[_ID : 2 * _ID]), body[2 * _ID :]
