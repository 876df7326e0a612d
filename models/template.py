"""Templates, of which every change is a new version."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant


class Template(Base):
    __tablename__ = "template"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    name: Mapped[str]
    version: Mapped[int] = mapped_column(Integer)
    """The current version."""
    created_at: Mapped[Created]


class TemplateVersion(Base):
    __tablename__ = "template_version"

    template_id: Mapped[UUID] = mapped_column(ForeignKey("template.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    workspace_id: Mapped[Tenant]
    subject: Mapped[str | None]
    html: Mapped[str | None]
    text: Mapped[str | None]
    defaults: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """Values of variables that a recipient does not give."""
    created_at: Mapped[Created]
