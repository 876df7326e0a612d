"""Addresses at which mail comes back to us: signed, so that nothing is stored and nobody can make one up.

``bounce+TOKEN@domain``    the return path of one mail (VERP): what comes there is about that mail
``reply+TOKEN@domain``     an answer to one mail
``inbox+TOKEN@domain``     mail for a mailer: where its mailbox forwards to

The token is base32 of ``id (16) | tag (9)``, 40 letters and digits, so the local part keeps within the 64 octets of RFC
5321 section 4.5.3.1.1, and survives servers that change the case of letters. The tag is HMAC-SHA-256 under a key of its
own for each kind, cut to 72 bit.
"""

import base64
import enum
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

_TAG = 9
_LOCAL = re.compile(r"(bounce|reply|inbox)[+-]([a-z2-7]{40})")


class Kind(enum.StrEnum):
    """What an address is for; the word it begins with."""

    BOUNCE = "bounce"
    REPLY = "reply"
    INBOX = "inbox"


@dataclass(frozen=True, slots=True)
class Found:
    """What an address of ours leads to."""

    kind: Kind
    id: UUID
    """Of the message; for an inbox of the mailer."""


class ReturnPaths:
    """Makes and reads such addresses. Immutable and safe to share between threads."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """secrets: those of `worker.settings.Settings.keys`; the first signs, all are read."""
        self._keys = [
            {kind: hmac.digest(secret.encode(), f"postroad address v1 {kind}".encode(), "sha256") for kind in Kind}
            for secret in secrets
        ]

    def address(self, kind: Kind, id_: UUID, domain: str) -> str:
        body = id_.bytes
        token = base64.b32encode(body + _tag(self._keys[0][kind], body)).decode("ascii").lower()
        return f"{kind}+{token}@{domain}"

    def bounce(self, domain: str, message_id: UUID) -> str:
        """The return path of one message."""
        return self.address(Kind.BOUNCE, message_id, domain)

    def reply(self, domain: str, message_id: UUID) -> str:
        """Where answers to one message go."""
        return self.address(Kind.REPLY, message_id, domain)

    def read(self, address: str) -> Found | None:
        """What an address leads to, whatever its domain; None if it is not one that we made."""
        match = _LOCAL.fullmatch(address.rpartition("@")[0].lower())
        if match is None:
            return None
        kind, raw = Kind(match[1]), base64.b32decode(match[2].upper())
        body, tag = raw[:16], raw[16:]
        good = [hmac.compare_digest(_tag(keys[kind], body), tag) for keys in self._keys]
        return Found(kind, UUID(bytes=body)) if any(good) else None


def _tag(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_TAG]
