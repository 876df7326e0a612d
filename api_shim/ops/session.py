"""Who is at the dashboard: a signed cookie that names an API key, and the key itself looked at on every request.

The cookie holds the key's id and an end, never the key. A key that is revoked, expired or has lost its scope ends the
session with the next request.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from api_shim.auth import Caller, caller_of
from models.access import ApiKey, Workspace

COOKIE = "postroad_ops"
NOTICE = "postroad_ops_notice"
PATH = "/ops"
HOURS = 12
READ, WRITE = "ops:read", "ops:write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A person at the dashboard, as the key they logged in with."""

    caller: Caller
    key_name: str
    workspace: str
    csrf: str
    """Must come back with every form that acts."""

    @property
    def can_act(self) -> bool:
        return WRITE in self.caller.scopes


def start_session(request: Request, response: Response, key_id: UUID, keys: Sequence[str]) -> None:
    """Sets the cookie of a session that begins now."""
    expires = time.time_ns() // 1_000_000 + HOURS * 3_600_000
    content = f"{key_id.hex}.{expires}.{secrets.token_urlsafe(12)}"
    value = f"{content}.{sign(keys[0], 'session', content)}"
    set_cookie(request, response, COOKIE, value, HOURS * 3600)


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """A cookie that only this server's own pages send back and no script can read."""
    forwarded = request.headers.get("x-forwarded-proto", "")
    secure = "https" in (request.url.scheme, forwarded)
    response.set_cookie(name, value, max_age=seconds, path=PATH, secure=secure, httponly=True, samesite="strict")


def current_operator(request: Request, session: Session, keys: Sequence[str]) -> Operator | None:
    """Who the request's cookie stands for; None where nobody is logged in, or not any more."""
    cookie = request.cookies.get(COOKIE, "")
    read = _read(cookie, keys)
    key = session.get(ApiKey, read[0]) if read else None
    if key is None or read is None or not _holds(key) or (key.sessions_from and read[1] <= key.sessions_from):
        return None
    workspace = session.get_one(Workspace, key.workspace_id)
    caller = caller_of(key)
    csrf = sign(keys[0], "csrf", cookie)
    return Operator(caller=caller, key_name=key.name, workspace=workspace.name, csrf=csrf)


def end_sessions(request: Request, session: Session, keys: Sequence[str]) -> None:
    """Ends the request's session, and every other that began with its key until now. Commits."""
    if read := _read(request.cookies.get(COOKIE, ""), keys):
        session.execute(update(ApiKey).where(ApiKey.id == read[0]).values(sessions_from=datetime.now(UTC)))
        session.commit()


def csrf_is_right(request: Request, given: str, keys: Sequence[str]) -> bool:
    """Whether a form was made for the session it came with; also under the key before a rotation."""
    cookie = request.cookies.get(COOKIE, "")
    return any(_same(given, sign(key, "csrf", cookie)) for key in keys)


def sign(key: str, purpose: str, content: str) -> str:
    """Keyed hash of ``content``, of no use for another purpose."""
    return hmac.digest(key.encode(), f"postroad ops {purpose} {content}".encode(), hashlib.sha256).hex()


def signed(keys: Sequence[str], purpose: str, content: str, signature: str) -> bool:
    return any(_same(signature, sign(key, purpose, content)) for key in keys)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _read(cookie: str, keys: Sequence[str]) -> tuple[UUID, datetime] | None:
    """The key id in a cookie of ours that has not expired, and when its session began."""
    content, _, signature = cookie.rpartition(".")
    if not content or not signed(keys, "session", content, signature):
        return None
    key_id, expires, _ = content.split(".")
    end = datetime.fromtimestamp(int(expires) / 1000, UTC)
    return (UUID(key_id), end - timedelta(hours=HOURS)) if end > datetime.now(UTC) else None


def _holds(key: ApiKey) -> bool:
    ended = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return key.revoked_at is None and not ended and READ in key.scopes
