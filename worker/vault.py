"""Secrets at rest: sealed with the first key, opened with any of them."""

import json
from collections.abc import Mapping
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SecretUnreadable(Exception):
    """None of POSTROAD_SECRET_KEYS opens this secret: a key was removed too early, or the row was tampered with."""


class Vault:
    """Seals and opens small JSON objects.

    ``purpose`` binds a sealed value to its row: moved elsewhere it does not open.
    """

    def __init__(self, keys: str) -> None:
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",") if key.strip()])

    def seal(self, purpose: str, value: Mapping[str, Any]) -> bytes:
        return self._fernet.encrypt(json.dumps({"for": purpose, "value": dict(value)}).encode())

    def open(self, purpose: str, sealed: bytes) -> dict[str, Any]:
        """The value sealed for ``purpose``. Raises SecretUnreadable."""
        try:
            opened = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise SecretUnreadable(f"the secret of {purpose} does not open with POSTROAD_SECRET_KEYS") from error
        if opened["for"] != purpose:
            raise SecretUnreadable(f"the secret of {purpose} was sealed for another row")
        value: dict[str, Any] = opened["value"]
        return value

    def rotate(self, sealed: bytes) -> bytes:
        """The same secret under the newest key. Raises SecretUnreadable."""
        try:
            return self._fernet.rotate(sealed)
        except InvalidToken as error:
            raise SecretUnreadable("the secret does not open with POSTROAD_SECRET_KEYS") from error
