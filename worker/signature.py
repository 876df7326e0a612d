"""Standard Webhooks signatures (standardwebhooks.com): secrets, and what goes into the header."""

import base64
import hmac
import secrets
from collections.abc import Iterable

_PREFIX = "whsec_"


def new_secret() -> str:
    """A fresh signing secret as the endpoint's owner gets it: ``whsec_`` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(owner_secrets: Iterable[str], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature`` header: one signature per secret, so that receivers can change over in their time."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(_v1(base64.b64decode(secret.removeprefix(_PREFIX) + "=="), signed) for secret in owner_secrets)


def _v1(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
