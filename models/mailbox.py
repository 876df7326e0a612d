"""Mail that lies at a provider: mailboxes that are watched for it, and what is still to be picked up there."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class MailboxWatch(Base):
    """A mailer whose mailbox is read. The provider's notices are doorbells: ``cursor`` says what is known."""

    __tablename__ = "mailbox_watch"
    __table_args__ = (
        Index("mailbox_watch_due", "due_at", postgresql_where="due_at is not null"),
        Index(None, "workspace_id"),
    )

    mailer_id: Mapped[UUID] = mapped_column(ForeignKey("mailer.id", ondelete="CASCADE"), primary_key=True)
    workspace_id: Mapped[Tenant]
    topic: Mapped[str | None]
    """Where Gmail publishes its notices; without one the mailbox is only looked into from time to time."""
    subscription: Mapped[str | None]
    """The provider's id of what it notifies us by."""
    expires_at: Mapped[datetime | None]
    """When the provider stops notifying us unless asked again."""
    renew_at: Mapped[datetime | None]
    """When to ask again; null where the provider does not notify us."""
    cursor: Mapped[str | None]
    """The provider's own mark behind the newest mail known; null begins now."""
    due_at: Mapped[datetime | None]
    """When to look next; while a worker looks, the end of its lease."""
    noticed_at: Mapped[datetime | None]
    """When the provider last rang."""
    looked_at: Mapped[datetime | None]
    """When a look last succeeded."""
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    """Failures since then."""
    error: Mapped[str | None]
    created_at: Mapped[Created]


class Pickup(Base):
    """A mail to be fetched. Kept for some days after that, so that a repeated notice fetches nothing again."""

    __tablename__ = "pickup"
    __table_args__ = (
        UniqueConstraint("mailer_id", "locator"),
        Index("pickup_due", "due_at", postgresql_where="due_at is not null"),
        Index(None, "workspace_id"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    mailer_id: Mapped[UUID] = mapped_column(ForeignKey("mailer.id", ondelete="CASCADE"))
    locator: Mapped[str]
    """What the provider finds it by: an id, a URL."""
    due_at: Mapped[datetime | None]
    """When to fetch it; null once that is done or given up."""
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    error: Mapped[str | None]
    created_at: Mapped[Created]
