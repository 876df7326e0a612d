"""Contacts, deals and customers that mail can be linked to, and their timelines."""

from typing import Any
from uuid import UUID

from sqlalchemy import Index, PrimaryKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Key, Tenant, uuid7


class Contact(Base):
    __tablename__ = "contact"
    __table_args__ = (
        Index(None, "workspace_id", "id"),
        Index("ix_contact_email", "workspace_id", text("lower(email)")),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    email: Mapped[str | None]
    name: Mapped[str | None]
    created_at: Mapped[Created]


class Deal(Base):
    """Also called opportunity."""

    __tablename__ = "deal"
    __table_args__ = (
        Index(None, "workspace_id", "id"),
        Index(None, "contact_id", postgresql_where="contact_id is not null"),
        Index(None, "customer_id", postgresql_where="customer_id is not null"),
    )

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    name: Mapped[str | None]
    contact_id: Mapped[UUID | None]
    customer_id: Mapped[UUID | None]
    created_at: Mapped[Created]


class Customer(Base):
    """Also called company."""

    __tablename__ = "customer"
    __table_args__ = (Index(None, "workspace_id", "id"),)

    id: Mapped[Key]
    workspace_id: Mapped[Tenant]
    name: Mapped[str | None]
    domain: Mapped[str | None]
    created_at: Mapped[Created]


class Activity(Base):
    """One line on the timeline of a contact, deal or customer. Written by the follow-up only.

    ``kind`` is ``email_sent``, ``email_received``, ``email_opened``, ``email_clicked``, ``email_bounced`` ...; a mail
    that reached no recipient leaves no activity.
    """

    __tablename__ = "activity"
    __table_args__ = (
        # What must be there once is the key. One of the ids alone would lie scattered over an index of its own.
        PrimaryKeyConstraint("message_id", "entity_type", "entity_id", "kind"),
        Index(None, "workspace_id", "entity_type", "entity_id", "created_at", "id"),
        {"postgresql_partition_by": "RANGE (message_id)"},
    )

    id: Mapped[UUID] = mapped_column(default=uuid7)
    """Tells lines of the same moment apart."""
    workspace_id: Mapped[Tenant]
    entity_type: Mapped[str]
    """``contact``, ``deal`` or ``customer``."""
    entity_id: Mapped[UUID]
    message_id: Mapped[UUID]
    """The mail, sent or received; the month of the line is its."""
    kind: Mapped[str]
    direction: Mapped[str]
    """``outbound`` or ``inbound``."""
    subject: Mapped[str | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[Created]
