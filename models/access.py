"""Who may do what: workspaces, their users and their API keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class Workspace(Base):
    """One tenant. Nothing of one workspace is visible to another."""

    __tablename__ = "workspace"

    id: Mapped[Key]
    name: Mapped[str]
    mail_domain: Mapped[str]
    """Domain under which the server composes company addresses (``handle@mail_domain``)."""
    event_cursor: Mapped[int] = mapped_column(server_default="0")
    """Number of the last event; taken under a row lock, so that the numbers have no gaps."""
    created_at: Mapped[Created]


class User(Base):
    """A person of a workspace; may own a personal mailbox (a mailer with ``user_id``)."""

    __tablename__ = "app_user"
    __table_args__ = (UniqueConstraint("workspace_id", "email"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    email: Mapped[str]
    name: Mapped[str | None]
    created_at: Mapped[Created]


class ApiKey(Base):
    """A bearer key. Only a keyed hash of its secret half is stored; the key is shown once."""

    __tablename__ = "api_key"
    __table_args__ = (Index(None, "workspace_id"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("app_user.id", ondelete="SET NULL"))
    name: Mapped[str]
    public_id: Mapped[str] = mapped_column(unique=True)
    """The part of the key that finds the row."""
    secret_hash: Mapped[bytes]
    scopes: Mapped[list[str]]
    caps: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """``per_second`` and ``per_day``: submissions this key may make; absent is the default."""
    shares: Mapped[list[dict[str, Any]]] = mapped_column(server_default="[]")
    """Caps that are not its own alone: ``{"key_id", "per_second", "per_day"}`` of each capped key that made the key
    that made it. However many keys such a key makes, together they may do what it may.
    """
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    sessions_from: Mapped[datetime | None]
    """Sessions at the dashboard that began earlier have ended: somebody logged out."""
    created_at: Mapped[Created]


class AuditEntry(Base):
    """An operator's action: who did what to which thing. Append-only."""

    __tablename__ = "audit_entry"
    __table_args__ = (Index(None, "workspace_id", "id"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    api_key_id: Mapped[UUID | None]
    action: Mapped[str]
    target: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[Created]
