"""Addresses that get no more mail: look one up, add it, let it get mail again."""

from uuid import UUID

from starlette.responses import Response

from api_shim.errors import ApiError, Fault
from api_shim.ops.pages import Form, Visit, render
from api_shim.resources.suppressions import add_suppressions, list_suppressions, remove_suppression
from api_shim.suppression_rows import SuppressionNew

PAGE = 50


def suppressions(visit: Visit) -> Response:
    """``GET /ops/suppressions``."""
    address = visit.asked("address")
    found = list_suppressions(
        session=visit.session,
        caller=visit.operator.caller,
        address=address.lower() or None,
        limit=PAGE,
        cursor=visit.asked("cursor") or None,
    )
    return render(visit, "suppressions.html", rows=found["data"], cursor=found["next_cursor"], address=address)


def add(visit: Visit, form: Form) -> str:
    body = SuppressionNew.model_validate(
        {"address": form.get("address", ""), "list_id": form.get("list_id", "").strip()}
    )
    add_suppressions(body, visit.session, visit.operator.caller, Response())
    return f"{body.address} gets no more mail."


def remove(visit: Visit, form: Form) -> str:
    try:
        suppression_id = UUID(form.get("id", ""))
    except ValueError as error:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("id", "This is no id of a suppression.")]) from error
    remove_suppression(suppression_id, visit.session, visit.operator.caller)
    return "The address may get mail again."
