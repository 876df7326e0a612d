"""What a stack is from one run to the next: its secrets, ids and ports, kept in ``DIR/stack.secrets`` (0600)."""

import base64
import dataclasses
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from models.base import uuid7


def _id() -> str:
    return str(uuid7())


def _password() -> str:
    return secrets.token_urlsafe(24)


def _key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _api_secret() -> str:
    from api_shim.auth import new_secret

    return new_secret()


def _webhook_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


@dataclass(kw_only=True)
class Identity:
    """Made once; whoever loads it again finds the same."""

    path: Path = field(repr=False)
    database_password: str = field(default_factory=_password, repr=False)
    redis_password: str = field(default_factory=_password, repr=False)
    secret_keys: str = field(default_factory=_key, repr=False)
    webhook_secret: str = field(default_factory=_webhook_secret, repr=False)
    api_secret: str = field(default_factory=_api_secret, repr=False)
    """The API key without its prefix."""
    workspace_id: str = field(default_factory=_id)
    user_id: str = field(default_factory=_id)
    contact_id: str = field(default_factory=_id)
    deal_id: str = field(default_factory=_id)
    customer_id: str = field(default_factory=_id)
    mailer_id: str = field(default_factory=_id)
    email_config_id: str = field(default_factory=_id)
    endpoint_id: str = field(default_factory=_id)
    ports: dict[str, int] = field(default_factory=dict)
    """By program: those of the last run, taken again where they are free."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """The identity kept at ``path``; a new one, kept from now on, where there is none."""
        if path.exists():
            return cls(path=path, **json.loads(path.read_text()))
        identity = cls(path=path)
        identity.save()
        return identity

    def save(self) -> None:
        content = {name: value for name, value in dataclasses.asdict(self).items() if name != "path"}
        write_private(self.path, content)


def write_private(path: Path, content: object) -> None:
    """Writes JSON that only its owner may read; readers see the old file or the new one, never half of it."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    fresh.replace(path)
