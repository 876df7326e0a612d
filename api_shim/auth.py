"""Who is calling: API keys, their scopes, and the caller that a request acts for."""

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session

from api_shim.errors import ApiError
from models.access import ApiKey
from models.database import fetch

SCOPES = (
    "email:read", "email:send", "email:write", "email-config:write",
    "crm:read", "crm:write", "mailers:read", "mailers:write", "templates:read", "templates:write",
    "campaigns:read", "campaigns:write", "webhooks:read", "webhooks:write", "suppressions:read", "suppressions:write",
    "events:read", "keys:read", "keys:write", "users:read", "users:write", "ops:read", "ops:write",
)  # fmt: skip
"""Every scope a key can have."""

SCOPE_ALIASES = {"write:email": ("email:send", "email:write")}
"""Scopes that stand for others."""

PREFIX = "postroad_live_"
PUBLIC_CHARACTERS = 12
CHECKSUM_CHARACTERS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The workspace and key behind a request; also what a service that embeds `accept` acts as."""

    workspace_id: UUID
    key_id: UUID | None = None
    user_id: UUID | None = None
    scopes: frozenset[str] = frozenset(SCOPES)
    caps: dict[str, Any] = field(default_factory=dict)
    shares: tuple[Mapping[str, Any], ...] = ()
    """Caps it shares with others: see `models.access.ApiKey`."""
    expires_at: datetime | None = None

    def require(self, scope: str) -> None:
        """Raises FORBIDDEN, naming the scope, if the key lacks it."""
        if scope not in self.scopes:
            raise ApiError("FORBIDDEN", details={"required_scope": scope})


def expand(scopes: Collection[str]) -> list[str]:
    """Scopes with their aliases replaced, in the order of `SCOPES`. Raises ValueError naming the unknown ones."""
    expanded = {real for scope in scopes for real in SCOPE_ALIASES.get(scope, (scope,))}
    if unknown := sorted(expanded - set(SCOPES)):
        raise ValueError(f"unknown scopes: {', '.join(unknown)}; known are {', '.join(SCOPES)} and write:email")
    return [scope for scope in SCOPES if scope in expanded]


def issue_key(
    session: Session,
    *,
    workspace_id: UUID,
    name: str,
    scopes: Collection[str],
    pepper: str,
    expires_at: datetime | None = None,
    user_id: UUID | None = None,
    caps: dict[str, Any] | None = None,
    shares: Sequence[Mapping[str, Any]] = (),
    secret: str | None = None,
) -> tuple[ApiKey, str]:
    """Stores a new key and returns it with its text, which is never to be had again. The caller commits.

    secret: the part after the prefix, for a key that was made beforehand; by default a `new_secret`.
    """
    secret = secret or new_secret()
    key = ApiKey(
        workspace_id=workspace_id,
        user_id=user_id,
        name=name,
        public_id=secret[:PUBLIC_CHARACTERS],
        secret_hash=hash_secret(secret, pepper),
        scopes=expand(scopes),
        caps=caps or {},
        shares=[dict(share) for share in shares],
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, PREFIX + secret


def new_secret() -> str:
    """What stands after `PREFIX` in a key: 12 characters that find it, 256 random bits, and 7 digits of a checksum.

    By the checksum (CRC-32 of all before it, the prefix included, in base 36) those who look for leaked keys tell a key
    from what only looks like one, without asking us.
    """
    secret = secrets.token_hex(PUBLIC_CHARACTERS // 2) + secrets.token_urlsafe(32)
    return secret + checksum(PREFIX + secret)


def checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, 36)
        digits.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
    return "".join(reversed(digits))


def hash_secret(secret: str, pepper: str) -> bytes:
    """Keyed hash of a key. A fast one is right: the key has 256 bits of its own, there is nothing to guess."""
    return hmac.digest(pepper.encode(), secret.encode(), hashlib.sha256)


_KEY = """
    select id, workspace_id, user_id, scopes, caps, shares, secret_hash, expires_at, revoked_at, last_used_at
    from api_key where public_id = %s
"""


def authenticate(session: Session, authorization: str | None, peppers: Collection[str]) -> Caller:
    """The caller behind an ``Authorization`` header.

    Raises UNAUTHORIZED for a missing, unknown, expired or revoked key.
    """
    scheme, _, given = (authorization or "").partition(" ")
    secret = given.strip().removeprefix(PREFIX)
    if scheme.lower() != "bearer" or not secret:
        raise ApiError("UNAUTHORIZED", headers={"WWW-Authenticate": "Bearer"})
    key = next(iter(fetch(session, _KEY, [secret[:PUBLIC_CHARACTERS].replace("\0", "")])), None)
    hashes = [hash_secret(secret, pepper) for pepper in peppers]
    known = key is not None and any(hmac.compare_digest(key.secret_hash, one) for one in hashes)
    now = datetime.now(UTC)
    if key is None or not known or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise ApiError("UNAUTHORIZED", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    _note_use(session, key, hashes[0], now)
    return caller_of(key)


def caller_of(key: Any) -> Caller:
    """Who acts with a key (an `ApiKey`, or a row of it) that is known to be valid."""
    return Caller(
        workspace_id=key.workspace_id,
        key_id=key.id,
        user_id=key.user_id,
        scopes=frozenset(key.scopes),
        caps=key.caps,
        shares=tuple(key.shares),
        expires_at=key.expires_at,
    )


def _note_use(session: Session, key: Any, newest_hash: bytes, now: datetime) -> None:
    """Remembers the last use to the hour, exact enough to find unused keys; after a key rotation, hashes anew."""
    is_fresh = key.last_used_at is not None and (now - key.last_used_at).total_seconds() < 3600
    if is_fresh and key.secret_hash == newest_hash:
        return
    session.execute(update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=now, secret_hash=newest_hash))
    session.commit()
