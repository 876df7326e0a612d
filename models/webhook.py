"""Where events go: endpoints, what is to be delivered to them, and every try."""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ForeignKey, Index, Integer, LargeBinary, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import BY_TIME, Base, Created, Key, Tenant


class EndpointStatus(enum.StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class WebhookEndpoint(Base):
    __tablename__ = "webhook_endpoint"
    __table_args__ = (Index(None, "workspace_id", "id"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    url: Mapped[str]
    events: Mapped[list[str]]
    """Wire names, or ``*``."""
    campaign_id: Mapped[str | None]
    ref_id: Mapped[UUID | None]
    max_batch: Mapped[int] = mapped_column(Integer, server_default="1")
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_old_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Signs beside the new one until ``old_secret_until``."""
    old_secret_until: Mapped[datetime | None]
    ordered: Mapped[bool] = mapped_column(Boolean, server_default="false")
    """Strict order: an event waits until the ones before it are delivered."""
    max_per_second: Mapped[int | None] = mapped_column(Integer)
    """Requests; null is as fast as it answers."""
    next_post_at: Mapped[datetime | None]
    """Until then its allowance is used up."""
    status: Mapped[str] = mapped_column(server_default=EndpointStatus.ACTIVE)
    status_reason: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    """First failure since the last success."""
    created_at: Mapped[Created]


class DeliveryState(enum.StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Out of tries; can be replayed."""


class WebhookDelivery(Base):
    """One event for one endpoint. Its id is the ``webhook-id``: the same on every try and replay."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index("webhook_delivery_due", "endpoint_id", "due_at", postgresql_where=text("due_at is not null")),
        Index(None, "created_at", **BY_TIME),
        Index(None, "delivered_at", **BY_TIME),
        Index("webhook_delivery_dead", "endpoint_id", postgresql_where=text("state = 'dead'")),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoint.id", ondelete="CASCADE"))
    event_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(server_default=DeliveryState.PENDING)
    due_at: Mapped[datetime | None]
    """When to try next; while a worker has it in hand, the end of its lease."""
    token: Mapped[int] = mapped_column(Integer, server_default="0")
    tries: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(server_default="[]")
    """Each try: ``{"at", "status", "error", "response", "milliseconds"}``; the response is capped."""
    delivered_at: Mapped[datetime | None]
    created_at: Mapped[Created]
