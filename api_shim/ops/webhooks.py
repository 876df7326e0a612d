"""Webhook endpoints and what became of every event at each; test, replay, switch off and on."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from starlette.responses import Response

from api_shim.errors import ApiError, Fault
from api_shim.ops.messages import SINCE
from api_shim.ops.pages import Form, Visit, render
from api_shim.ops.words import number_of
from api_shim.pages import after_id, encode
from api_shim.resources.webhook_deliveries import DELIVERIES, ReplayBody, replay_deliveries, send_test, show_delivery
from api_shim.resources.webhook_endpoints import EndpointChange, change_endpoint, find_endpoint
from models.webhook import DeliveryState, WebhookDelivery, WebhookEndpoint

PAGE = 50

_COUNTS = text("""
    select endpoint.id, pending.number as pending, pending.oldest, dead.number as dead
    from webhook_endpoint endpoint,
         lateral (select count(*) as number, min(created_at) filter (where due_at <= clock_timestamp()) as oldest
                  from webhook_delivery d where d.endpoint_id = endpoint.id and d.due_at is not null) pending,
         lateral (select count(*) as number from webhook_delivery d
                  where d.endpoint_id = endpoint.id and d.state = 'dead') dead
    where endpoint.workspace_id = :workspace_id
""")

_LAST_HOUR = text("""
    select endpoint_id, count(*) as delivered,
           percentile_cont(0.95) within group (order by delivered_at - created_at) as most
    from webhook_delivery
    where workspace_id = :workspace_id and delivered_at > statement_timestamp() - interval '1 hour' group by endpoint_id
""")


def webhooks(visit: Visit) -> Response:
    """``GET /ops/webhooks``."""
    workspace_id = visit.operator.caller.workspace_id
    mine = WebhookEndpoint.workspace_id == workspace_id
    rows = visit.session.scalars(select(WebhookEndpoint).where(mine).order_by(WebhookEndpoint.id.desc())).all()
    counts = {row.id: row for row in visit.session.execute(_COUNTS, {"workspace_id": workspace_id})}
    hour = {row.endpoint_id: row for row in visit.session.execute(_LAST_HOUR, {"workspace_id": workspace_id})}
    return render(visit, "webhooks.html", rows=[(row, counts[row.id], hour.get(row.id)) for row in rows])


def endpoint(visit: Visit) -> Response:
    """``GET /ops/webhooks/{id}``: its deliveries with every attempt."""
    row = find_endpoint(visit.session, visit.operator.caller, visit.path_id)
    query = DELIVERIES.where(
        WebhookDelivery.workspace_id == row.workspace_id,
        WebhookDelivery.endpoint_id == row.id,
        *after_id(WebhookDelivery.event_id, visit.asked("cursor") or None),
    )
    state = visit.asked("state")
    if state in set(DeliveryState):
        query = query.where(WebhookDelivery.state == state)
    rows: Any = visit.session.execute(query.order_by(WebhookDelivery.event_id.desc()).limit(PAGE + 1)).all()
    return render(
        visit,
        "endpoint.html",
        endpoint=row,
        rows=[show_delivery(found) for found in rows[:PAGE]],
        state_asked=state,
        states=[each.value for each in DeliveryState],
        periods=list(SINCE),
        cursor=encode([rows[PAGE - 1][0].event_id]) if len(rows) > PAGE else None,
    )


def test(visit: Visit, _: Form) -> str:
    answer = send_test(visit.path_id, visit.request, visit.session, visit.operator.caller)
    return f"A test event is on its way as delivery {answer['delivery_id']}."


def replay(visit: Visit, form: Form) -> str:
    """One delivery, those out of tries, or everything of a period."""
    body = ReplayBody.model_validate(_what(form))
    answer = replay_deliveries(visit.path_id, body, visit.request, visit.session, visit.operator.caller)
    return f"Going out again, under their own ids: {number_of(answer['replayed'], 'delivery', 'deliveries')}."


def _what(form: Form) -> dict[str, Any]:
    if form.get("delivery_id"):
        return {"delivery_id": form["delivery_id"]}
    if form.get("since") in SINCE:
        return {"since": datetime.now(UTC) - SINCE[form["since"]]}
    if form.get("state") == DeliveryState.DEAD:
        return {"state": DeliveryState.DEAD}
    raise ApiError("VALIDATION_ERROR", faults=[Fault("since", "Say what to replay.")])


def switch(visit: Visit, form: Form) -> str:
    """``status``: ``active`` or ``disabled``."""
    body = EndpointChange.model_validate({"status": form.get("status", "")})
    answer = change_endpoint(visit.path_id, body, visit.request, visit.session, visit.operator.caller)
    return f"{answer['url']} is {answer['status']}."
