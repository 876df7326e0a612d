"""What people did with a mail, on the timelines of the contact, deal and customer it is linked to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from models.event import EventType

KINDS: dict[EventType, str] = {
    EventType.OPENED: "email_opened",
    EventType.CLICKED: "email_clicked",
    EventType.BOUNCED: "email_bounced",
}
"""Events of a mail that make a line, and the kind of the line."""

REPLIED = "email_replied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One line for each entity that the mail is linked to."""

    message_id: UUID
    kind: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


# Entities that were deleted since get no line; a kind stands once on a mail, whenever it happens again.
_NOTE = text("""
    insert into activity (id, workspace_id, entity_type, entity_id, message_id, kind, direction, subject, detail,
                          created_at)
    select gen_random_uuid(), l.workspace_id, link.kind, link.id, l.message_id, h.kind, h.direction, l.subject,
           coalesce(h.detail, '{}'), h.at
    from jsonb_to_recordset(cast(:happenings as jsonb)) as h(
             message_id uuid, kind text, direction text, at timestamptz, detail jsonb)
         join email_log l on l.message_id = h.message_id
         left join contact on contact.id = l.contact_id and contact.workspace_id = l.workspace_id
         left join deal on deal.id = l.deal_id and deal.workspace_id = l.workspace_id
         left join customer on customer.id = l.customer_id and customer.workspace_id = l.workspace_id
         cross join lateral (values ('contact', contact.id), ('deal', deal.id), ('customer', customer.id))
             link (kind, id)
    where link.id is not null
    order by l.message_id, h.kind, link.kind, h.at
    on conflict do nothing
""")


def note(connection: Connection, happenings: Sequence[Happening]) -> None:
    """Writes the lines that are not there yet. The caller commits."""
    if not happenings:
        return
    rows = [
        {
            "message_id": one.message_id,
            "kind": one.kind,
            "direction": "inbound" if one.kind == REPLIED else "outbound",
            "at": one.at,
            "detail": dict(one.detail),
        }
        for one in happenings
    ]
    connection.execute(_NOTE, {"happenings": orjson.dumps(rows).decode()})
