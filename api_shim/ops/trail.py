"""The audit trail: who changed what, in this workspace."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from starlette.responses import Response

from api_shim.ops.pages import Visit, render
from api_shim.resources.audit import list_audit
from models.access import ApiKey

PAGE = 50


def trail(visit: Visit) -> Response:
    """``GET /ops/audit``."""
    asked = {name: visit.asked(name)[:255] for name in ("action", "target")}
    found = list_audit(
        session=visit.session,
        caller=visit.operator.caller,
        action=asked["action"] or None,
        target=asked["target"] or None,
        limit=PAGE,
        cursor=visit.asked("cursor") or None,
    )
    given = {name: value for name, value in asked.items() if value}
    return render(
        visit,
        "audit.html",
        rows=[{**row, "key": _keys(visit).get(row["api_key_id"])} for row in found["data"]],
        cursor=found["next_cursor"],
        asked=asked,
        given=given,
    )


def _keys(visit: Visit) -> Mapping[UUID | None, Any]:
    mine = select(ApiKey.id, ApiKey.name).where(ApiKey.workspace_id == visit.operator.caller.workspace_id)
    return {row.id: row.name for row in visit.session.execute(mine)}
