"""Mailers (the sending identities), the sender configurations above them, and suppressions."""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class MailerStatus(enum.StrEnum):
    ACTIVE = "active"
    """Mail flows."""
    PAUSED = "paused"
    """An operator stopped it; its mail waits."""
    RECONNECT_REQUIRED = "reconnect_required"
    """The provider refused the credentials; its mail waits until they are renewed."""


class OnUncertain(enum.StrEnum):
    """What to do with a mail whose fate the provider cannot tell."""

    HOLD = "hold"
    RESEND = "resend"


class Mailer(Base):
    """A sending identity: provider, credentials, the addresses it may use and its limits."""

    __tablename__ = "mailer"
    __table_args__ = (
        Index(None, "workspace_id", "id"),
        Index("mailer_one_default", "workspace_id", unique=True, postgresql_where="is_default"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("app_user.id", ondelete="CASCADE"))
    """Set for a user's personal mailbox."""
    provider: Mapped[str]
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=MailerStatus.ACTIVE)
    status_reason: Mapped[str | None]
    throttled_until: Mapped[datetime | None]
    """The provider asked for a pause; the mail of the mailer waits until then."""
    from_addresses: Mapped[list[str]]
    domains: Mapped[list[str]]
    """Domains any address of which may send. With ``from_addresses`` empty too, nothing may."""
    sealed_credentials: Mapped[bytes] = mapped_column(LargeBinary)
    """Encrypted; see worker/vault.py. Written, never read back by the API."""
    base_url: Mapped[str | None]
    auth_url: Mapped[str | None]
    caps: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """``per_second``, ``per_minute``, ``per_day``, ``connections``; null is the provider's default."""
    on_uncertain: Mapped[str] = mapped_column(server_default=OnUncertain.HOLD)
    fallback_id: Mapped[UUID | None]
    ip_pools: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """Name in ``settings.ip_pool`` -> the provider's own name; with SMTP a list of ``{"source" | "host", "port",
    "weight"}``."""
    tracking_domain: Mapped[str | None]
    return_path_domain: Mapped[str | None]
    """Where bounces of its mails come back to, each at an address of its own; null: to the sender."""
    reply_domain: Mapped[str | None]
    """Where answers to its mails go, each to an address of its own, unless the caller named another; null: to the
    sender."""
    is_default: Mapped[bool] = mapped_column(Boolean, server_default="false")
    hook_token: Mapped[str] = mapped_column(unique=True)
    """Unguessable part of the URL at which the provider reports events."""
    deleted_at: Mapped[datetime | None]
    """Set for a deleted mailer: without credentials and hidden everywhere, kept for the submissions that name it."""
    created_at: Mapped[Created]


class EmailConfig(Base):
    """A company sender: ``handle@mail_domain`` with a display name (source A's email config)."""

    __tablename__ = "email_config"
    __table_args__ = (
        UniqueConstraint("workspace_id", "from_email_handle"),
        Index("email_config_default", "workspace_id", unique=True, postgresql_where="is_default"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    from_email_handle: Mapped[str]
    """Lower case."""
    from_name: Mapped[str]
    staff_email: Mapped[str]
    gmail_user_id: Mapped[UUID | None] = mapped_column(ForeignKey("app_user.id", ondelete="SET NULL"))
    gmail_sender_alias: Mapped[str | None]
    mailer_id: Mapped[UUID | None] = mapped_column(ForeignKey("mailer.id", ondelete="SET NULL"))
    is_default: Mapped[bool] = mapped_column(Boolean, server_default="false")
    created_at: Mapped[Created]


class Suppression(Base):
    """An address that gets no more mail from a workspace (list ``""``) or from one of its lists."""

    __tablename__ = "suppression"
    __table_args__ = (UniqueConstraint("workspace_id", "address", "list_id"), Index(None, "workspace_id", "id"))

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    address: Mapped[str]
    """Lower case."""
    list_id: Mapped[str] = mapped_column(server_default="")
    reason: Mapped[str]
    """``hard_bounce``, ``complaint``, ``unsubscribe`` or ``manual``."""
    message_id: Mapped[UUID | None]
    created_at: Mapped[Created]
