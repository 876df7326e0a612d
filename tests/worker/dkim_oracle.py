"""dkimpy as the judge of our signatures. Of Ed25519 it leaves the primitive to PyNaCl; here cryptography does it."""

import base64
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class _VerifyKey:
    """As much of ``nacl.signing.VerifyKey`` as dkimpy uses."""

    def __init__(self, key: bytes, encoder: object) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))

    def verify(self, message: bytes, signature: bytes) -> bytes:
        try:
            self._key.verify(signature, message)
        except InvalidSignature as error:
            raise dkim.ValidationError(error) from error
        return message


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    nacl = SimpleNamespace(
        signing=SimpleNamespace(VerifyKey=_VerifyKey),
        encoding=SimpleNamespace(Base64Encoder=None),
        exceptions=SimpleNamespace(BadSignatureError=dkim.ValidationError),
    )
    monkeypatch.setattr(dkim, "nacl", nacl, raising=False)


def verdicts(mail: bytes, zone: Mapping[str, str]) -> list[bool]:
    """Whether each signature of the mail holds, the first on top. zone: TXT records by name."""
    found = {f"{name}.".encode(): value.encode() for name, value in zone.items()}
    checked = dkim.DKIM(mail)
    count = mail.partition(b"\r\n\r\n")[0].lower().count(b"dkim-signature:")
    return [_holds(checked, number, found) for number in range(count)]


def _holds(checked: Any, number: int, zone: Mapping[bytes, bytes]) -> bool:
    try:
        return bool(checked.verify(number, dnsfunc=lambda name, timeout=5: zone.get(name)))
    except dkim.DKIMException:
        return False


def signed_names(mail: bytes) -> Sequence[str]:
    """``h=`` of the first signature."""
    value = mail.partition(b"h=")[2].partition(b";")[0]
    return [name.strip().decode() for name in value.split(b":")]
