"""The contact, deal and customer that a thread or a log row belongs to: as filters of a list, under either name."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from sqlalchemy import ColumnElement

from api_shim.errors import ApiError, Fault
from models.record import EmailLog, Thread


@dataclass(frozen=True, slots=True)
class Linked:
    """The entities asked for; None asks for nothing."""

    contact_id: UUID | None
    deal_id: UUID | None
    customer_id: UUID | None

    def conditions(self, table: type[Thread] | type[EmailLog]) -> list[ColumnElement[bool]]:
        asked = (
            (table.contact_id, self.contact_id),
            (table.deal_id, self.deal_id),
            (table.customer_id, self.customer_id),
        )
        return [column == value for column, value in asked if value is not None]


def _linked(
    contact_id: UUID | None = None,
    deal_id: UUID | None = None,
    opportunity_id: UUID | None = None,
    customer_id: UUID | None = None,
    company_id: UUID | None = None,
) -> Linked:
    faults = [
        Fault(alias, f"{alias} differs from {name}, which means the same; send one of them")
        for name, value, alias, other in (
            ("deal_id", deal_id, "opportunity_id", opportunity_id),
            ("customer_id", customer_id, "company_id", company_id),
        )
        if value is not None and other is not None and value != other
    ]
    if faults:
        raise ApiError("VALIDATION_ERROR", faults=faults)
    return Linked(contact_id, deal_id or opportunity_id, customer_id or company_id)


LinkedTo = Annotated[Linked, Depends(_linked)]
"""Query parameters ``contact_id``, ``deal_id`` (or ``opportunity_id``) and ``customer_id`` (or ``company_id``)."""
