"""Messages that nothing leads to: open, without a time and in nobody's hand. There are none unless rows were edited.

A claim names its messages in a lease, and the beat ends leases of dead workers; what was left by a restore or by hand
is found here by reading the whole table, on demand.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from models.message import Priority
from worker import lease

_LOST: Final = """
    m.state in ('queued', 'claimed', 'sending', 'uncertain') and m.due_at is null and not exists (
        select from lease where lease.id = m.lease_id and m.id = any(lease.message_ids))
"""

# One statement, so that all counts are of the same moment.
_RECONCILE = text(f"""
    select count(*) as rows, count(*) filter (where m.due_at is not null) as waiting,
           count(*) filter (where m.due_at is null and not ({_LOST})) as in_hand,
           count(*) filter (where {_LOST}) as orphaned,
           (select count(*) from message where priority = :priority and due_at is not null) as indexed,
           (select count(*) from lease cross join unnest(lease.message_ids) one(id)
                 join message held on held.id = one.id and held.lease_id = lease.id and held.due_at is null
            where lease.priority = :priority and held.state in ('claimed', 'sending', 'uncertain')) as leased
    from message m where m.priority = :priority and m.state in ('queued', 'claimed', 'sending', 'uncertain')
""")  # noqa: S608 -- constants

_REQUEUE = text(f"""
    update message m
    set due_at = clock_timestamp(),
        state = case when m.state in ('sending', 'uncertain') then 'uncertain' else 'queued' end::message_state
    where m.priority = :priority and {_LOST}
""")  # noqa: S608 -- constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """A send queue counted twice: row by row, and by the index and the leases that lead to the rows."""

    rows: int
    """Open messages."""
    waiting: int
    """Of them with a time at which a worker looks."""
    in_hand: int
    """Of them under a lease."""
    orphaned: int
    """Of them that nothing leads to."""
    indexed: int
    """What the queue's figures count as waiting."""
    leased: int
    """What they count as in hand."""

    @property
    def adds_up(self) -> bool:
        return not self.orphaned and self.rows == self.indexed + self.leased

    def as_json(self) -> dict[str, Any]:
        return {
            "adds_up": self.adds_up,
            "open": self.rows,
            "waiting": self.waiting,
            "in_hand": self.in_hand,
            "orphaned": self.orphaned,
            "counted_waiting": self.indexed,
            "counted_in_hand": self.leased,
        }


def reconcile(db: Connection | Session, priority: Priority) -> Reconciled:
    """Counts a send queue in both ways, at one moment. Reads all of its messages: a second or so for each million."""
    return Reconciled(**db.execute(_RECONCILE, {"priority": int(priority)}).one()._mapping)


def requeue(connection: Connection, priority: Priority) -> int:
    """Takes back what dead workers hold, and puts what nothing leads to where a worker finds it. The caller commits.

    What may have been on the wire becomes uncertain and is asked about, never sent again blindly.
    """
    recovered = lease.recover(connection)
    return recovered + connection.execute(_REQUEUE, {"priority": int(priority)}).rowcount
