"""Domains that mail is sent from, and the keys that sign it (DKIM)."""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class KeyStatus(enum.StrEnum):
    """Where a key is in its life. Its record must be published in all of them."""

    PENDING = "pending"
    """Signs nothing yet: its record has not been seen."""
    ACTIVE = "active"
    """Signs. At most one of each algorithm for a domain."""
    RETIRED = "retired"
    """Signs nothing more, but mail that it signed is still under way."""


class SendingDomain(Base):
    """A domain of a workspace whose mail is signed; subdomains without an entry of their own are signed by it."""

    __tablename__ = "sending_domain"
    __table_args__ = (UniqueConstraint("workspace_id", "name"), Index(None, "workspace_id", "id"))

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    name: Mapped[str]
    """In lower case, as A-labels."""
    findings: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """What the latest check found: ``"TYPE name"`` -> ``{"found", "ok", "advice"}``."""
    checked_at: Mapped[datetime | None]
    created_at: Mapped[Created]


class DkimKey(Base):
    """A key pair under a selector of its own."""

    __tablename__ = "dkim_key"
    __table_args__ = (UniqueConstraint("domain_id", "selector"), Index(None, "workspace_id", "status"))

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    domain_id: Mapped[UUID] = mapped_column(ForeignKey("sending_domain.id", ondelete="CASCADE"))
    selector: Mapped[str]
    algorithm: Mapped[str]
    """A `worker.dkim.Algorithm`."""
    public_key: Mapped[str]
    """As it stands in ``p=`` of the record."""
    sealed_private_key: Mapped[bytes] = mapped_column(LargeBinary)
    """See worker/vault.py. Never leaves."""
    status: Mapped[str] = mapped_column(server_default=KeyStatus.PENDING)
    activated_at: Mapped[datetime | None]
    retires_at: Mapped[datetime | None]
    """Of a retired key: its record must stay published until then."""
    created_at: Mapped[Created]
