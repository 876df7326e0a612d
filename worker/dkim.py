"""DKIM (RFC 6376, RFC 8463): keys, their records, and the signatures that a mail gets. Pure: no database, no clock.

Relaxed canonicalisation of header and body: what relays do to white space on the way breaks no signature. A signature
says nothing of when it was made, so every attempt at a mail is the same mail.
"""

import base64
import enum
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

RSA_BITS = 2048
"""What receivers are sure to take (RFC 8301); longer records do not fit every DNS host."""

SIGNED = frozenset(
    (
        b"from", b"to", b"cc", b"subject", b"date", b"message-id", b"mime-version", b"reply-to", b"in-reply-to",
        b"references", b"content-type", b"content-transfer-encoding", b"content-id", b"content-disposition",
        b"content-language", b"list-id", b"list-unsubscribe", b"list-unsubscribe-post",
    )
)  # fmt: skip
"""Header fields that are covered where the mail has them. From counts once more, so that none can be added."""

_FIELDS = re.compile(rb"\r\n(?![ \t])")
_RUNS = re.compile(rb"[ \t]{2,}|\t")
_LINE = 70
"""Characters of a value of ours before it is folded."""


class Algorithm(enum.StrEnum):
    """As ``a=`` of a signature says it."""

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    algorithm: Algorithm
    public: str
    """As in ``p=`` of the record: of RSA the SubjectPublicKeyInfo, of Ed25519 the 32 bytes, in base64."""
    private: str = field(repr=False)
    """PKCS 8 in PEM."""


def new_key(algorithm: Algorithm) -> KeyPair:
    """A fresh pair; RSA takes about a tenth of a second."""
    key: RSAPrivateKey | Ed25519PrivateKey
    match algorithm:
        case Algorithm.RSA:
            key = generate_private_key(65537, RSA_BITS)
            public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        case Algorithm.ED25519:
            key = Ed25519PrivateKey.generate()
            public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        case _:
            assert_never(algorithm)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyPair(algorithm=algorithm, public=_base64(public), private=private.decode("ascii"))


def record(algorithm: Algorithm, public: str) -> str:
    """The TXT record of a key, to be published at ``selector._domainkey.domain`` (RFC 6376 section 3.6.1)."""
    return f"v=DKIM1; k={algorithm.partition('-')[0]}; p={public}"


class SigningKey:
    """One key at work."""

    def __init__(self, selector: str, private: str) -> None:
        """private: PKCS 8 in PEM. Raises ValueError if it is neither RSA nor Ed25519."""
        key = load_pem_private_key(private.encode(), None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
            raise ValueError("a DKIM key is RSA or Ed25519")
        self.selector = selector
        self.algorithm = Algorithm.RSA if isinstance(key, RSAPrivateKey) else Algorithm.ED25519
        self._key = key

    def sign(self, data: bytes) -> bytes:
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(data, PKCS1v15(), hashes.SHA256())
        return self._key.sign(hashlib.sha256(data).digest())  # RFC 8463 section 3: the hash is what is signed


class Signer:
    """Signs for one domain, once with each of its keys."""

    def __init__(self, domain: str, keys: Sequence[SigningKey]) -> None:
        """domain: as A-labels."""
        self.domain = domain
        self.keys = tuple(keys)

    def signed(self, mime: bytes, hashed_body: str | None = None) -> bytes:
        """The mail with its signatures on top.

        mime: a whole mail with CRLF line ends. hashed_body: what `body_hash` says of its body, where that is known.
        """
        head, _, body = mime.partition(b"\r\n\r\n")
        names, data = _covered(head)
        hashed = body_hash(body) if hashed_body is None else hashed_body
        return b"".join([*(self._field(key, names, data, hashed) for key in self.keys), mime])

    def _field(self, key: SigningKey, names: str, data: bytes, hashed_body: str) -> bytes:
        unsigned = (
            f"v=1; a={key.algorithm.value}; c=relaxed/relaxed;\r\n d={self.domain};\r\n s={key.selector};\r\n"
            f" h={names};\r\n bh={hashed_body};\r\n b="
        ).encode("ascii")
        made = _base64(key.sign(data + b"dkim-signature:" + b" ".join(unsigned.split())))
        folded = "\r\n ".join(made[at : at + _LINE] for at in range(0, len(made), _LINE))
        return b"DKIM-Signature: " + unsigned + folded.encode("ascii") + b"\r\n"


def body_hash(body: bytes) -> str:
    """``bh=`` of a body with CRLF line ends (RFC 6376 section 3.4.4)."""
    if b"  " in body or b"\t" in body:
        body = _RUNS.sub(b" ", body)
    body = body.replace(b" \r\n", b"\r\n").rstrip(b" \r\n")
    digest = hashlib.sha256(body)
    if body:
        digest.update(b"\r\n")
    return _base64(digest.digest())


def _covered(head: bytes) -> tuple[str, bytes]:
    """``h=``, folded, and the canonical fields in its order: from the bottom, as a verifier picks repeated ones."""
    names, data = [], []
    for line in reversed(_FIELDS.split(head)):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in SIGNED:
            names.append(name.decode("ascii"))
            data.append(name + b":" + b" ".join(value.split()) + b"\r\n")
    return _folded([*names, "from"]), b"".join(data)


def _folded(names: Sequence[str]) -> str:
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > _LINE:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n  ".join(lines)[:-1]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
