"""What became of every event at an endpoint: deliveries with their attempts, test events and replays."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.replay import replay
from api_shim.resources.webhook_endpoints import Reader, Writer, find_endpoint
from models.event import Event, EventType, wire_name
from models.webhook import DeliveryState, EndpointStatus, WebhookDelivery, WebhookEndpoint
from worker.bell import endpoint_lane
from worker.events import NewEvent, append_events
from worker.wire import FACTS, body

router = APIRouter(prefix="/webhook-endpoints/{id}", tags=["webhooks"])

DELIVERIES: Select[WebhookDelivery, str, UUID | None] = select(WebhookDelivery, Event.type, Event.message_id).outerjoin(
    Event, (Event.id == WebhookDelivery.event_id) & (Event.workspace_id == WebhookDelivery.workspace_id)
)


class ReplayBody(BaseModel):
    """One of: ``delivery_id``; ``since``; ``from`` and ``to``; and ``state``, alone or beside a time."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"since": "2026-11-21T12:00:00Z"}})

    delivery_id: UUID | None = None
    since: AwareDatetime | None = None
    from_: AwareDatetime | None = Field(default=None, alias="from")
    to: AwareDatetime | None = None
    state: DeliveryState | None = None
    """Those in this state only; ``dead`` are those out of tries."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        timed = self.since is not None or self.from_ is not None
        if self.delivery_id is not None and (timed or self.to is not None or self.state is not None):
            raise ValueError("delivery_id stands alone; leave the rest out")
        if self.since is not None and (self.from_ is not None or self.to is not None):
            raise ValueError("since goes on until now; use from and to for a range")
        if (self.from_ is None) != (self.to is None):
            raise ValueError("a range needs both from and to")
        if self.delivery_id is None and not timed and self.state is None:
            raise ValueError("say what to replay: delivery_id, since, from and to, or state")
        return self


@router.get("/deliveries")
def list_deliveries(
    *,
    id: UUID,  # noqa: A002 -- the name in the path
    session: SessionDep,
    caller: Reader,
    state: Annotated[DeliveryState | None, Query()] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Deliveries with every attempt, those of the newest events first."""
    find_endpoint(session, caller, id)
    query = DELIVERIES.where(
        WebhookDelivery.workspace_id == caller.workspace_id,
        WebhookDelivery.endpoint_id == id,
        *after_id(WebhookDelivery.event_id, cursor),
    )
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    newest_first = query.order_by(WebhookDelivery.event_id.desc())
    rows: Sequence[Any] = session.execute(newest_first.limit(limit + 1)).all()
    return page(rows, limit, show_delivery, lambda row: [row[0].event_id])


@router.get("/deliveries/{delivery_id}")
def get_delivery(
    id: UUID,  # noqa: A002
    delivery_id: UUID,
    session: SessionDep,
    caller: Reader,
) -> dict[str, Any]:
    """One delivery with every attempt, and the event as it is sent; null once the event is no longer kept."""
    row = _find(session, caller, id, delivery_id)
    event = FACTS.where(Event.workspace_id == caller.workspace_id, Event.id == row[0].event_id)
    facts = session.execute(event).mappings().one_or_none()
    return {**show_delivery(row), "payload": None if facts is None else body(facts)}


def _find(session: Session, caller: Caller, endpoint_id: UUID, delivery_id: UUID) -> Any:
    query = DELIVERIES.where(
        WebhookDelivery.workspace_id == caller.workspace_id,
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.id == delivery_id,
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(delivery_id)})
    return row


def show_delivery(row: Row[WebhookDelivery, str, UUID | None]) -> dict[str, Any]:
    delivery, type_, message_id = row
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event": wire_name(type_) if type_ else None,
        "message_id": message_id,
        "state": delivery.state,
        "tries": delivery.tries,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.due_at,
        "delivered_at": delivery.delivered_at,
        "created_at": delivery.created_at,
    }


@router.post("/test", status_code=202)
def send_test(id: UUID, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Sends a ``webhook_endpoint.test`` event to this endpoint alone, on the way that every event takes."""
    row = find_endpoint(session, caller, id, lock=True)
    _require_active(row)
    event = NewEvent(
        workspace_id=caller.workspace_id,
        type=EventType.ENDPOINT_TEST,
        at=datetime.now(UTC),
        data={"endpoint_id": str(id)},
        endpoint_id=id,
    )
    append_events(session.connection(), [event])
    delivery_id = session.scalars(
        select(WebhookDelivery.id).where(WebhookDelivery.endpoint_id == id, WebhookDelivery.event_id == event.id)
    ).one()
    audit(session, caller, "webhook_endpoint.tested", str(id))
    session.commit()
    services(request).ringer.ring(endpoint_lane(id))
    return {"delivery_id": delivery_id}


@router.post("/replay")
def replay_deliveries(
    id: UUID,  # noqa: A002
    body: ReplayBody,
    request: Request,
    session: SessionDep,
    caller: Writer,
) -> dict[str, Any]:
    """Delivers again, under the same ids and with all tries anew: one delivery, a range of time, or those in a state.

    Whatever was delivered before is delivered once more.
    """
    _require_active(find_endpoint(session, caller, id))
    if body.delivery_id is not None:
        _find(session, caller, id, body.delivery_id)
    audit(session, caller, "webhook_endpoint.replayed", str(id), **body.model_dump(mode="json", exclude_none=True))
    replayed = 0
    since = body.since or body.from_
    for count in replay(session, id, delivery_id=body.delivery_id, since=since, until=body.to, state=body.state):
        session.commit()
        replayed += count
        services(request).ringer.ring(endpoint_lane(id))
    return {"replayed": replayed}


def _require_active(row: WebhookEndpoint) -> None:
    if row.status != EndpointStatus.ACTIVE:
        reason = f"the endpoint is disabled ({row.status_reason}); enable it first with PATCH and status active"
        raise ApiError("CONFLICT", details={"status": row.status, "reason": reason})
