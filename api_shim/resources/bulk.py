"""``POST /v1/messages/cancel`` and ``/retry``: the same for every message that a filter finds."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, StrictBool
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.bulk import ORDERS, Bulk
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with, services
from api_shim.message_filter import MessageFilter
from worker.bell import FOLLOWUP_LANE

router = APIRouter(tags=["submissions"])
Sender = Annotated[Caller, caller_with("email:send")]


class BulkOrder(MessageFilter):
    """Which messages, by at least one field, and whether only to count them."""

    model_config = ConfigDict(json_schema_extra={"example": {"campaign_id": "spring", "dry_run": True}})

    dry_run: StrictBool = False
    """Counts what it would be about, and does nothing."""

    def told(self) -> dict[str, Any]:
        return {name: value for name, value in super().told().items() if name != "dry_run"}


@router.post("/messages/cancel")
def cancel_messages(body: BulkOrder, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Cancels every message that fits the filter and has not been sent."""
    return _ordered("cancel", body, request, session, caller)


@router.post("/messages/retry")
def retry_messages(body: BulkOrder, request: Request, session: SessionDep, caller: Sender) -> dict[str, Any]:
    """Sends every failed or suppressed message that fits the filter again, with all attempts anew."""
    return _ordered("retry", body, request, session, caller)


def _ordered(name: str, body: BulkOrder, request: Request, session: Session, caller: Caller) -> dict[str, Any]:
    if not body.told():
        fault = Fault(
            "body", "it names no message, which would mean every one; give at least one field to find them by"
        )
        raise ApiError("VALIDATION_ERROR", faults=[fault])
    bulk = Bulk(
        session=session,
        workspace_id=caller.workspace_id,
        conditions=body.conditions(caller.workspace_id),
        order=ORDERS[name],
    )
    if body.dry_run:
        return {"matched": bulk.count(), "updated": 0, "dry_run": True}
    return {**carry_out(name, bulk, request, caller, body.told()), "dry_run": False}


def carry_out(name: str, bulk: Bulk, request: Request, caller: Caller, asked: dict[str, Any]) -> dict[str, int]:
    """Carries the order out, with an entry in the audit trail, and rings for what is due."""
    matched = bulk.count()
    told = {field: "an address" if "@" in str(value) else value for field, value in asked.items()}
    audit(bulk.session, caller, f"messages.{_DONE[name]}", str(caller.workspace_id), filter=told, matched=matched)
    bulk.session.commit()
    changed, lanes = bulk.carry_out(f"{_DONE[name]} through the API, with others")
    for lane in (FOLLOWUP_LANE, *lanes):
        services(request).ringer.ring(lane)
    return {"matched": matched, "updated": changed}


_DONE = {"cancel": "cancelled", "retry": "retried"}
