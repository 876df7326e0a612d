"""``/v1/webhook-endpoints``: where events go, the secrets that sign them, and what became of every delivery."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault, Missing
from api_shim.http import SessionDep, caller_with, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.replay import unpark
from api_shim.text import Name, Text
from api_shim.unchanged import UNCHANGED
from models.base import from_ulid, ulid, uuid7
from models.event import WIRE_NAMES
from models.message import Submission
from models.webhook import EndpointStatus, WebhookEndpoint
from worker import deliveries
from worker.bell import endpoint_lane
from worker.notify import SECRET_PURPOSE, new_secret
from worker.target import check_url

router = APIRouter(prefix="/webhook-endpoints", tags=["webhooks"])
Reader = Annotated[Caller, caller_with("webhooks:read")]
Writer = Annotated[Caller, caller_with("webhooks:write")]

EVERY_EVENT = "*"
KNOWN_EVENTS = (EVERY_EVENT, *WIRE_NAMES.values())


def _known(events: list[str]) -> list[str]:
    if unknown := [name for name in events if name not in KNOWN_EVENTS]:
        raise ValueError(f"unknown: {', '.join(unknown)}; known are {', '.join(KNOWN_EVENTS)}")
    return list(dict.fromkeys(events))


def _is_ref_id(value: str) -> str:
    key = from_ulid(value)
    if key is None:
        raise ValueError("is not a ULID of 26 characters; use the ref_id that the send answered")
    return ulid(key)


Url = Annotated[Text, StringConstraints(min_length=1, max_length=2048)]
Events = Annotated[list[Text], Field(min_length=1, max_length=100), AfterValidator(_known)]
RefId = Annotated[Text, StringConstraints(max_length=26), AfterValidator(_is_ref_id)]
MaxPerSecond = Annotated[int, Field(strict=True, ge=1, le=10_000)]
MaxBatch = Annotated[int, Field(strict=True, ge=1, le=1000)]


class EndpointBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"url": "https://example.com/hooks", "events": ["MAIL_DELIVERED", "MAIL_BOUNCED"]}
        },
    )

    url: Url
    events: Events = [EVERY_EVENT]
    campaign_id: Name | None = None
    """Events of this campaign only."""
    ref_id: RefId | None = None
    """Events of this submission only."""
    max_batch: MaxBatch = 1
    """Above 1, each request carries a JSON array of up to so many events."""
    ordered: StrictBool = False
    max_per_second: MaxPerSecond | None = None
    """Requests that the endpoint gets in a second at most; null is as fast as it answers."""


class EndpointChange(BaseModel):
    """What is left out stays as it is; ``null`` takes a filter away."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"status": "active"}})

    url: Url = UNCHANGED
    events: Events = UNCHANGED
    campaign_id: Name | None = None
    ref_id: RefId | None = None
    max_batch: MaxBatch = UNCHANGED
    ordered: StrictBool = UNCHANGED
    max_per_second: MaxPerSecond | None = None
    status: Literal["active", "disabled"] = UNCHANGED
    """``active`` makes everything that has waited since the endpoint was disabled due at once."""


class Rotation(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"overlap_hours": 24}})

    overlap_hours: Annotated[float, Field(strict=True, ge=0, le=30 * 24)] = 24
    """How long the old secret keeps signing beside the new one."""


def find_endpoint(session: Session, caller: Caller, id_: UUID, *, lock: bool = False) -> WebhookEndpoint:
    """The caller's endpoint. ``lock`` keeps others from changing it before the commit. Raises NOT_FOUND."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.id == id_, WebhookEndpoint.workspace_id == caller.workspace_id
    )
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(id_)})
    return row


def show_endpoint(row: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "events": row.events,
        "campaign_id": row.campaign_id,
        "ref_id": ulid(row.ref_id) if row.ref_id else None,
        "max_batch": row.max_batch,
        "ordered": row.ordered,
        "max_per_second": row.max_per_second,
        "status": row.status,
        "status_reason": row.status_reason,
        "failing_since": row.failing_since,
        "old_secret_until": row.old_secret_until,
        "created_at": row.created_at,
    }


@router.post("", status_code=201)
def create_endpoint(body: EndpointBody, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Registers an endpoint. The answer holds its signing secret, which is never shown again."""
    _check_url(request, session, body.url)
    id_, secret = uuid7(), new_secret()
    columns = _columns(session, caller, body)
    row = WebhookEndpoint(
        id=id_, workspace_id=caller.workspace_id, sealed_secret=_sealed(request, id_, secret), **columns
    )
    session.add(row)
    session.flush()
    # The host alone: receivers put secrets into URLs, and an entry is seen by others and for long.
    audit(session, caller, "webhook_endpoint.created", str(id_), host=urlsplit(body.url).hostname)
    session.commit()
    return {**show_endpoint(row), "secret": secret}


@router.get("")
def list_endpoints(
    session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Endpoints, newest first."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.workspace_id == caller.workspace_id, *after_id(WebhookEndpoint.id, cursor)
    )
    rows = session.scalars(query.order_by(WebhookEndpoint.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show_endpoint, lambda row: [row.id])


@router.get("/{id}")
def get_endpoint(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One endpoint, without its secret."""
    return show_endpoint(find_endpoint(session, caller, id))


@router.patch("/{id}")
def change_endpoint(
    id: UUID,  # noqa: A002
    body: EndpointChange,
    request: Request,
    session: SessionDep,
    caller: Writer,
) -> dict[str, Any]:
    """Changes an endpoint, disables it or enables it again."""
    if "url" in body.model_fields_set:
        _check_url(request, session, body.url)
    row = find_endpoint(session, caller, id, lock=True)
    columns = _columns(session, caller, body)
    status = columns.pop("status", None)
    for name, value in columns.items():
        setattr(row, name, value)
    session.flush()
    if status is not None and status != row.status:
        _set_status(session, row, EndpointStatus(status))
    audit(session, caller, "webhook_endpoint.changed", str(id), fields=sorted(body.model_fields_set))
    session.commit()
    if row.status == EndpointStatus.ACTIVE:
        services(request).ringer.ring(endpoint_lane(row.id))
    return show_endpoint(row)


@router.delete("/{id}", status_code=204)
def delete_endpoint(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Removes an endpoint with its deliveries; what is pending is dropped."""
    session.delete(find_endpoint(session, caller, id, lock=True))
    audit(session, caller, "webhook_endpoint.deleted", str(id))
    session.commit()


@router.post("/{id}/rotate-secret")
def rotate_secret(
    id: UUID,  # noqa: A002
    request: Request,
    session: SessionDep,
    caller: Writer,
    body: Rotation | None = None,
) -> dict[str, Any]:
    """Makes a new secret, shown this once. The old one signs beside it for ``overlap_hours``."""
    overlap = timedelta(hours=(body or Rotation()).overlap_hours)
    row = find_endpoint(session, caller, id, lock=True)
    secret = new_secret()
    row.sealed_old_secret = row.sealed_secret
    row.old_secret_until = datetime.now(UTC) + overlap
    row.sealed_secret = _sealed(request, row.id, secret)
    audit(session, caller, "webhook_endpoint.secret_rotated", str(id), old_secret_until=str(row.old_secret_until))
    session.commit()
    return {**show_endpoint(row), "secret": secret}


def _check_url(request: Request, session: Session, url: str) -> None:
    """Raises VALIDATION_ERROR for a URL that webhooks may not go to."""
    session.commit()  # a name server may be slow: no database connection waits for it
    if complaint := check_url(url, services(request).settings.webhook_guard):
        raise ApiError("VALIDATION_ERROR", faults=[Fault("url", complaint)])


def _sealed(request: Request, id_: UUID, secret: str) -> bytes:
    return services(request).vault.seal(SECRET_PURPOSE.format(id=id_), {"secret": secret})


def _columns(session: Session, caller: Caller, body: EndpointBody | EndpointChange) -> dict[str, Any]:
    """The body as columns; of a change only what it names."""
    values = body.model_dump(exclude_unset=isinstance(body, EndpointChange))
    if values.get("ref_id"):
        values["ref_id"] = _submission(session, caller, values["ref_id"])
    return values


def _submission(session: Session, caller: Caller, ref_id: str) -> UUID | None:
    """The caller's submission with this ref_id. Raises VALIDATION_ERROR naming it if there is none."""
    mine = select(Submission.id).where(
        Submission.id == from_ulid(ref_id), Submission.workspace_id == caller.workspace_id
    )
    found = session.scalar(mine)
    if found is None:
        raise ApiError("VALIDATION_ERROR", missing=[Missing("ref_id", ref_id)])
    return found


def _set_status(session: Session, row: WebhookEndpoint, status: EndpointStatus) -> None:
    if status is EndpointStatus.DISABLED:
        deliveries.disable(session.connection(), row.id, "Disabled through the API.")
    else:
        row.status, row.status_reason, row.failing_since = status, None, None
        session.flush()
        unpark(session, row.id)
    session.refresh(row)
