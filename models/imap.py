"""Mailboxes that are read over IMAP for what comes in."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Tenant


class ImapMailbox(Base):
    """The mailbox of a mailer, and how far it was read."""

    __tablename__ = "imap_mailbox"

    mailer_id: Mapped[UUID] = mapped_column(ForeignKey("mailer.id", ondelete="CASCADE"), primary_key=True)
    workspace_id: Mapped[Tenant]
    sealed_access: Mapped[bytes] = mapped_column(LargeBinary)
    """Server, folder and login, encrypted."""
    uid_validity: Mapped[int | None]
    """Of the folder when it was last read (RFC 3501 section 2.3.1.1); null before the first time."""
    last_uid: Mapped[int] = mapped_column(server_default="0")
    """The highest UID that was taken in. Moved in the transaction that stores the mail, so each comes in once."""
    read_at: Mapped[datetime | None]
    """When the folder was last looked into."""
    error: Mapped[str | None]
    """Why it cannot be read, for a person; null while it can."""
    created_at: Mapped[Created]
