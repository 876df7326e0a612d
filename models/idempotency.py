"""Answers kept for repeated Idempotency-Keys, written in the transaction of the messages."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created


class IdempotencyKey(Base):
    __tablename__ = "idempotency_key"
    __table_args__ = (Index(None, "expires_at"),)

    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    """SHA-256 of the canonical body."""
    leaves: Mapped[dict[str, Any]]
    """JSON pointer -> short hash of the value there, to name the first difference of another body."""
    submission_id: Mapped[UUID]
    answer_status: Mapped[int | None] = mapped_column(SmallInteger)
    """HTTP status of the first answer; null while the first request is still waiting for its outcome."""
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Kept as text, so that a repeat gets the very same bytes."""
    expires_at: Mapped[datetime]
    created_at: Mapped[Created]
