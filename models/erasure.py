"""Requests to forget a person, and what was found and made unreadable."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class Erasure(Base):
    """One request. The address is in it, sealed, only until the work is done."""

    __tablename__ = "erasure"
    __table_args__ = (
        Index(None, "workspace_id", "id"),
        Index("erasure_open", "workspace_id", "digest", unique=True, postgresql_where="finished_at is null"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    api_key_id: Mapped[UUID | None]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """Keyed hash of the address in lower case: tells a repeated request, and tells nobody else anything."""
    sealed_address: Mapped[bytes | None] = mapped_column(LargeBinary)
    with_contacts: Mapped[bool] = mapped_column(Boolean)
    with_suppressions: Mapped[bool] = mapped_column(Boolean)
    report: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """What was made unreadable so far: kind -> how many."""
    finished_at: Mapped[datetime | None]
    created_at: Mapped[Created]
