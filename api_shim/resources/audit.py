"""``/v1/ops/audit``: who changed what."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import select

from api_shim.auth import Caller
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.text import Line
from models.access import AuditEntry

router = APIRouter(prefix="/ops", tags=["ops"])


@router.get("/audit")
def list_audit(
    *,
    session: SessionDep,
    caller: Annotated[Caller, caller_with("ops:read")],
    action: Annotated[Line | None, Query(description="Such as mailer.paused.")] = None,
    target: Annotated[Line | None, Query(description="The id of what was changed.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Changes to mailers, keys and suppressions, and what operators did; newest first."""
    asked = ((AuditEntry.action, action), (AuditEntry.target, target))
    conditions = [column == value for column, value in asked if value is not None]
    mine = (AuditEntry.workspace_id == caller.workspace_id, *after_id(AuditEntry.id, cursor), *conditions)
    rows = session.scalars(select(AuditEntry).where(*mine).order_by(AuditEntry.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, _show, lambda row: [row.id])


def _show(row: AuditEntry) -> dict[str, Any]:
    return {
        "id": row.id,
        "api_key_id": row.api_key_id,
        "action": row.action,
        "target": row.target,
        "detail": row.detail,
        "created_at": row.created_at,
    }
