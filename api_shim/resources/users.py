"""``/v1/users``: the people of a workspace, who may own personal mailboxes."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.text import Email, Line
from models.access import ApiKey, User
from models.base import uuid7
from models.mailer import Mailer

router = APIRouter(prefix="/users", tags=["users"])
Reader = Annotated[Caller, caller_with("users:read")]
Writer = Annotated[Caller, caller_with("users:write")]


class UserBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"email": "ada@example.com", "name": "Ada"}}
    )

    email: Email
    name: Line | None = None


@router.post("", status_code=201)
def create_user(body: UserBody, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Makes a user. Each address is one user's."""
    row = User(
        id=uuid7(), workspace_id=caller.workspace_id, email=body.email, name=body.name, created_at=datetime.now(UTC)
    )
    session.add(row)
    audit(session, caller, "user.created", str(row.id))
    _store(session, body)
    return show(row)


@router.get("")
def list_users(
    *,
    session: SessionDep,
    caller: Reader,
    email: Annotated[Line | None, Query(description="The whole address, in either case.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Users, newest first; the one with an address with ``email``."""
    query = select(User).where(User.workspace_id == caller.workspace_id, *after_id(User.id, cursor))
    if email is not None:
        query = query.where(func.lower(User.email) == email.lower())
    rows = session.scalars(query.order_by(User.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show, lambda row: [row.id])


@router.get("/{id}")
def get_user(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One user."""
    return show(_find(session, caller, id))


@router.put("/{id}")
def change_user(id: UUID, body: UserBody, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Replaces a user's address and name."""
    row = _find(session, caller, id)
    changed = [name for name in ("email", "name") if getattr(row, name) != getattr(body, name)]
    row.email, row.name = body.email, body.name
    audit(session, caller, "user.changed", str(id), fields=changed)
    _store(session, body)
    return show(row)


@router.delete("/{id}", status_code=204)
def delete_user(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Deletes a user without mailboxes (409 with them) and revokes the keys that act for the user."""
    row = _find(session, caller, id, lock=True)
    mailboxes = session.scalars(select(Mailer.id).where(Mailer.user_id == id, Mailer.deleted_at.is_(None))).all()
    if mailboxes:
        owned = ", ".join(map(str, mailboxes))
        raise ApiError("CONFLICT", faults=[Fault("id", f"the user owns mailers ({owned}); delete those first")])
    keys = update(ApiKey).where(ApiKey.user_id == id, ApiKey.revoked_at.is_(None))
    revoked = session.scalars(keys.values(revoked_at=datetime.now(UTC)).returning(ApiKey.id)).all()
    for key_id in revoked:
        audit(session, caller, "key.revoked", str(key_id), reason="its user was deleted")
    audit(session, caller, "user.deleted", str(id))
    session.delete(row)
    session.commit()


def _find(session: Session, caller: Caller, user_id: UUID, *, lock: bool = False) -> User:
    query = select(User).where(User.id == user_id, User.workspace_id == caller.workspace_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(user_id)})
    return row


def _store(session: Session, body: UserBody) -> None:
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        fault = Fault("email", f"{body.email} is another user's address in this workspace; change that user instead")
        raise ApiError("CONFLICT", faults=[fault]) from error


def show(row: User) -> dict[str, Any]:
    return {"id": row.id, "email": row.email, "name": row.name, "created_at": row.created_at}
