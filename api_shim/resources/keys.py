"""``/v1/keys``: API keys, shown once and never again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import PREFIX, Caller, expand, issue_key
from api_shim.errors import ApiError, Fault, Missing
from api_shim.http import SessionDep, caller_with, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.text import Line, Name
from models.access import ApiKey, User

router = APIRouter(prefix="/keys", tags=["keys"])
Reader = Annotated[Caller, caller_with("keys:read")]
Writer = Annotated[Caller, caller_with("keys:write")]

Cap = Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]


class KeyCaps(BaseModel):
    """Submissions the key may make; null is as many as the caller's own key, or the default."""

    model_config = ConfigDict(extra="forbid")

    per_second: Cap | None = None
    per_day: Cap | None = None


class KeyNew(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"name": "shop", "scopes": ["email:send", "email:read"], "expires_at": None}},
    )

    name: Name
    scopes: Annotated[list[Line], Field(min_length=1, max_length=100)]
    expires_at: AwareDatetime | None = None
    caps: KeyCaps = KeyCaps()
    user_id: UUID | None = None


@router.post("", status_code=201)
def create_key(body: KeyNew, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Makes a key; the answer is the only place where it is ever shown.

    It never gets more than the caller's own: no other scopes, no later end, and it shares the caps of a capped key.
    """
    faults = [fault for fault in (_scope_fault(caller, body), _expiry_fault(caller, body)) if fault is not None]
    faults += _cap_faults(caller, body)
    missing = _missing(session, caller, body.user_id)
    if faults or missing:
        raise ApiError("VALIDATION_ERROR", faults=faults, missing=missing)
    key, text = issue_key(
        session,
        workspace_id=caller.workspace_id,
        name=body.name,
        scopes=body.scopes,
        pepper=services(request).peppers[0],
        expires_at=body.expires_at or caller.expires_at,
        user_id=body.user_id,
        caps=caller.caps | body.caps.model_dump(exclude_none=True),
        shares=_shares(caller),
    )
    limits = {"caps": key.caps, "expires_at": key.expires_at and key.expires_at.isoformat()}
    audit(session, caller, "key.created", str(key.id), name=key.name, scopes=key.scopes, **limits)
    session.commit()
    return {"id": key.id, "key": text} | show(session.get_one(ApiKey, key.id, populate_existing=True))


@router.get("")
def list_keys(
    session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Keys, newest first, revoked ones included; never their text."""
    mine = (ApiKey.workspace_id == caller.workspace_id, *after_id(ApiKey.id, cursor))
    rows = session.scalars(select(ApiKey).where(*mine).order_by(ApiKey.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show, lambda row: [row.id])


@router.get("/{id}")
def get_key(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One key; never its text."""
    return show(_find(session, caller, id))


@router.delete("/{id}", status_code=204)
def revoke_key(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Revokes a key at once and for good. It stays in the list."""
    key = _find(session, caller, id, lock=True)
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        audit(session, caller, "key.revoked", str(id), name=key.name)
    session.commit()


def _find(session: Session, caller: Caller, key_id: UUID, *, lock: bool = False) -> ApiKey:
    query = select(ApiKey).where(ApiKey.id == key_id, ApiKey.workspace_id == caller.workspace_id)
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    key = session.scalars(query).one_or_none()
    if key is None:
        raise ApiError("NOT_FOUND", details={"id": str(key_id)})
    return key


def _scope_fault(caller: Caller, body: KeyNew) -> Fault | None:
    try:
        wanted = expand(body.scopes)
    except ValueError as error:
        return Fault("scopes", str(error), "unknown_scope")
    if beyond := [scope for scope in wanted if scope not in caller.scopes]:
        message = f"your own key lacks {', '.join(beyond)}, so it cannot grant them; use a key that has them"
        return Fault("scopes", message, "scope_beyond_own")
    return None


def _cap_faults(caller: Caller, body: KeyNew) -> list[Fault]:
    wanted = body.caps.model_dump(exclude_none=True)
    return [
        Fault(f"caps.{name}", f"your own key is held to {own}; give at most that, or use another key", "cap_beyond_own")
        for name, own in caller.caps.items()
        if wanted.get(name, own) > own
    ]


def _shares(caller: Caller) -> list[Mapping[str, Any]]:
    """The caps that a key made by the caller has in common with it."""
    own = {"key_id": str(caller.key_id), **caller.caps}
    return [*caller.shares, own] if caller.caps else [*caller.shares]


def _expiry_fault(caller: Caller, body: KeyNew) -> Fault | None:
    if body.expires_at is None:
        return None
    if caller.expires_at is not None and body.expires_at > caller.expires_at:
        message = f"your own key ends at {caller.expires_at.isoformat()}; give no later time, or use another key"
        return Fault("expires_at", message, "expiry_beyond_own")
    if body.expires_at > datetime.now(UTC):
        return None
    message = f"{body.expires_at.isoformat()} is in the past; give a time to come, or null for as long as your own key"
    return Fault("expires_at", message, "past")


def _missing(session: Session, caller: Caller, user_id: UUID | None) -> list[Missing]:
    if user_id is None:
        return []
    user = select(User.id).where(User.id == user_id, User.workspace_id == caller.workspace_id)
    held = session.scalar(user.with_for_update(read=True, key_share=True))
    return [] if held is not None else [Missing("user_id", str(user_id))]


def show(key: ApiKey) -> dict[str, Any]:
    """A key as the API answers it. ``prefix`` is how its text begins, to tell keys apart."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": PREFIX + key.public_id,
        "scopes": key.scopes,
        "caps": key.caps,
        "user_id": key.user_id,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "created_at": key.created_at,
    }
