"""The list of those who get no more mail, as events fill it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from models.base import uuid7


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSuppression:
    workspace_id: UUID
    address: str = field(repr=False)
    reason: str
    """``hard_bounce``, ``complaint`` or ``unsubscribe``."""
    message_id: UUID | None
    list_id: str = ""


# A graver reason takes the place of a lighter one, so that the order in which news comes in does not matter and a
# resubscribed address that bounced stays suppressed. What a person entered by hand is left alone.
_SUPPRESS = text("""
    insert into suppression (id, workspace_id, address, list_id, reason, message_id)
    select n.id, n.workspace_id, n.address, n.list_id, n.reason, n.message_id
    from jsonb_to_recordset(cast(:new as jsonb)) as n(
        id uuid, workspace_id uuid, address text, list_id text, reason text, message_id uuid)
    on conflict (workspace_id, address, list_id) do update
        set reason = excluded.reason, message_id = excluded.message_id
        where (suppression.reason, excluded.reason)
              in (('unsubscribe', 'hard_bounce'), ('unsubscribe', 'complaint'), ('hard_bounce', 'complaint'))
    returning address
""")

_LIFT = text("""
    delete from suppression
    where workspace_id = :workspace_id and address = :address and list_id = :list_id and reason = 'unsubscribe'
    returning id
""")

GRAVITY = ("unsubscribe", "hard_bounce", "complaint")
"""Reasons, the gravest last."""


def suppress(connection: Connection, new: Sequence[NewSuppression]) -> set[str]:
    """Adds to the list. Returns the addresses (lower case) for which something changed. The caller commits."""
    gravest: dict[tuple[UUID, str, str], NewSuppression] = {}
    for one in sorted(new, key=lambda one: GRAVITY.index(one.reason)):
        gravest[one.workspace_id, one.address.lower(), one.list_id] = one
    if not gravest:
        return set()
    rows = [
        {
            "id": uuid7(),
            "workspace_id": workspace_id,
            "address": address,
            "list_id": list_id,
            "reason": one.reason,
            "message_id": one.message_id,
        }
        for (workspace_id, address, list_id), one in sorted(gravest.items(), key=lambda item: item[0])
    ]
    return set(connection.execute(_SUPPRESS, {"new": orjson.dumps(rows).decode()}).scalars())


def lift_unsubscribe(connection: Connection, workspace_id: UUID, address: str, list_id: str) -> bool:
    """Takes an address off the list if it is there only because its owner unsubscribed. Returns whether it was."""
    parameters = {"workspace_id": workspace_id, "address": address.lower(), "list_id": list_id}
    return connection.execute(_LIFT, parameters).one_or_none() is not None
