"""What a waited-for send came to, in the terms that the crm and mailbox shapes share."""

from collections.abc import Sequence
from typing import Any

from api_shim.errors import ApiError, Fault
from api_shim.submission import SendResult
from models.message import ACCEPTED, OPEN, State


def success(result: SendResult) -> tuple[int, dict[str, Any]]:
    """200 for a mail that the provider took, 202 for one that may still go.

    Raises ApiError EMAIL_DELIVERY_FAILED for one that will not: 502 where sending failed, 422 where it was refused for
    good, by the provider or by a suppression, an expiry or somebody who cancelled it.
    """
    state = State(result.state)
    if state in ACCEPTED:
        return 200, _body(result, state.value)
    if state in OPEN:
        return 202, _body(result, State.QUEUED.value)
    tried = state is State.FAILED and not result.permanent
    details = {
        "reason": result.reason or f"the message is {state.value}",
        "status": state.value,
        "id": str(result.id),
        "ref_id": result.ref_id,
        "provider": result.provider,
    }
    raise ApiError("EMAIL_DELIVERY_FAILED", status=502 if tried else 422, details=details)


def _body(result: SendResult, status: str) -> dict[str, Any]:
    return {
        "id": str(result.id),
        "ref_id": result.ref_id,
        "status": status,
        "message_id": result.rfc_message_id,
        "provider_message_id": result.provider_message_id,
        "thread_id": str(result.thread_id) if result.thread_id else None,
        "provider": result.provider,
    }


def error_details(error: ApiError, faults: Sequence[Fault] | None = None) -> dict[str, Any]:
    """``missing_entities``, ``fields`` and whatever else the error carries; absent where there is nothing to say.

    faults: those of the error in another order.
    """
    faults = error.faults if faults is None else faults
    details = dict(error.details)
    if error.missing:
        details["missing_entities"] = [{"field": missing.field, "id": missing.id} for missing in error.missing]
    if faults:
        details["fields"] = [{"field": fault.field, "message": fault.message} for fault in faults]
    return details


def sentence_of(error: ApiError) -> str:
    """What happened and what to do. A lone fault says it better than its code."""
    if len(error.faults) == 1 and not error.missing:
        return error.faults[0].message
    return f"{error.code.sentence} {error.code.fix}"
