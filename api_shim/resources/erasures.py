"""``/v1/erasures``: requests to forget a person. The address is taken, never shown."""

import hashlib
import hmac
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.text import EmailKey
from models.base import uuid7
from models.erasure import Erasure
from worker.erasure import erasure_purpose

router = APIRouter(prefix="/erasures", tags=["ops"])
Reader = Annotated[Caller, caller_with("ops:read")]
Writer = Annotated[Caller, caller_with("ops:write")]


class ErasureNew(BaseModel):
    """contacts: delete the contacts with this address too. suppressions: take it off the suppression list too; by
    default it stays there, so that it gets no more mail.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"address": "grace@example.com"}})

    address: EmailKey
    contacts: bool = False
    suppressions: bool = False


@router.post("", status_code=202)
def erase_address(body: ErasureNew, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Forgets a person: the address, and what was written to it and by it, is overwritten everywhere. Counts stay.

    It takes a moment; the request's status becomes ``done``. The same request made again meanwhile is that one.
    """
    new, held = uuid7(), services(request)
    named = f"{caller.workspace_id} {body.address} {body.contacts} {body.suppressions}"
    digest = hmac.digest(held.peppers[0].encode(), named.encode(), hashlib.sha256)
    row = {
        "id": new,
        "workspace_id": caller.workspace_id,
        "api_key_id": caller.key_id,
        "digest": digest,
        "sealed_address": held.vault.seal(erasure_purpose(new), {"address": body.address}),
        "with_contacts": body.contacts,
        "with_suppressions": body.suppressions,
    }
    if session.execute(insert(Erasure).values(row).on_conflict_do_nothing().returning(Erasure.id)).all():
        audit(session, caller, "erasure.asked", str(new), contacts=body.contacts, suppressions=body.suppressions)
    session.commit()
    mine = (Erasure.workspace_id == caller.workspace_id, Erasure.digest == digest)
    return show(session.scalars(select(Erasure).where(*mine).order_by(Erasure.id.desc()).limit(1)).one())


@router.get("")
def list_erasures(
    session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Requests to forget somebody, newest first; not whom."""
    mine = (Erasure.workspace_id == caller.workspace_id, *after_id(Erasure.id, cursor))
    rows = session.scalars(select(Erasure).where(*mine).order_by(Erasure.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show, lambda row: [row.id])


@router.get("/{id}")
def get_erasure(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One request: its status, and what was overwritten so far."""
    mine = (Erasure.workspace_id == caller.workspace_id, Erasure.id == id)
    row = session.scalars(select(Erasure).where(*mine)).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(id)})
    return show(row)


def show(row: Erasure) -> dict[str, Any]:
    return {
        "id": row.id,
        "status": "pending" if row.finished_at is None else "done",
        "report": row.report,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }
