"""Attachment bytes, stored once by content hash."""

from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created


class Blob(Base):
    __tablename__ = "blob"

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    """Hex digest of the bytes."""
    size: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    used_at: Mapped[Created]
    """When a mail last came with them, to half a day."""
    created_at: Mapped[Created]
