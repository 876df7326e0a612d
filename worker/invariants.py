"""What must hold of the rows at every moment, as SQL. All of it is read in one snapshot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from models.message import ACCEPTED, OPEN, State
from worker.erasure import ERASED

GRACE = "interval '10 seconds'"
"""An expired lease is ended by the beat within a second or so."""

SAMPLED_ROWS = 5_000
"""Messages that a sample looks at, about."""


def _in(states: frozenset[State]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


_OPEN, _ACCEPTED = _in(OPEN), _in(ACCEPTED)

# What compares one table with another looks at the last day: retention may have taken one and left the other.
INVARIANTS: dict[str, tuple[str, str]] = {
    "open_has_a_future": (
        "every unfinished message has due_at or a live lease",
        f"""select count(*) from message m tablesample system (:percent)
            where state in ({_OPEN}) and due_at is null and not exists (
                select from lease where lease.id = m.lease_id and m.id = any(lease.message_ids)
                                    and lease.expires_at > clock_timestamp() - {GRACE})""",  # noqa: S608 -- constants, here and below
    ),
    "in_hand_is_leased": (
        "every claimed or sending message is named by its lease",
        """select count(*) from message m tablesample system (:percent)
           where state in ('claimed', 'sending') and not exists (
               select from lease where lease.id = m.lease_id and m.id = any(lease.message_ids))""",
    ),
    "finished_is_dated": (
        "every finished message has finished_at and nothing left to do",
        f"""select count(*) from message tablesample system (:percent)
            where state not in ({_OPEN}) and (finished_at is null or due_at is not null)""",  # noqa: S608
    ),
    "unsent_has_a_reason": (
        "every message that ended without being sent says why, unless its recipient was forgotten",
        f"""select count(*) from message tablesample system (:percent)
            where state not in ({_OPEN}) and state not in ({_ACCEPTED}) and coalesce(reason, '') = ''
              and '{ERASED}' <> all(recipients)""",  # noqa: S608
    ),
    "sent_was_attempted": (
        "every sent message has an attempt on record",
        f"""select count(*) from message tablesample system (:percent)
            where state in ({_ACCEPTED}) and attempts = '[]'""",  # noqa: S608
    ),
    "totals_add_up": (
        "every submission has as many messages as its total says",
        """select count(*) from submission s tablesample system (:percent)
           where s.created_at > clock_timestamp() - interval '1 day'
             and s.total <> (select count(*) from message m where m.submission_id = s.id)""",
    ),
    "sent_is_logged": (
        "every sent message has its log row or is on its way there",
        f"""select count(*) from message m tablesample system (:percent)
                left join email_log on email_log.message_id = m.id
                left join (select unnest(message_ids) as id from followup) outbox on outbox.id = m.id
            where m.state in ({_ACCEPTED}) and m.finished_at > clock_timestamp() - interval '1 day'
              and email_log.message_id is null and outbox.id is null""",  # noqa: S608
    ),
}  # fmt: skip
"""Name -> what holds, and the query that counts the rows of which it does not, among ``percent`` of them."""

_PERCENT = text("""
    select least(100, 100.0 * :rows / greatest(reltuples, 1)) from pg_class where oid = 'message'::regclass
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An invariant and the number of rows that break it."""

    name: str
    holds: str
    broken: int

    def as_json(self) -> dict[str, Any]:
        return {"invariant": self.name, "holds": self.holds, "broken": self.broken}


def violations(engine: Engine) -> Iterator[Finding]:
    """Each invariant with its count, all of one moment. Reads whole tables: that takes its time."""
    with _snapshot(engine) as connection:
        connection.execute(text("set local statement_timeout = 0"))
        yield from _findings(connection, 100.0)


def sampled_violations(engine: Engine) -> list[Finding]:
    """The same of about `SAMPLED_ROWS` messages, other ones every time: costs the same however many there are."""
    with _snapshot(engine) as connection:
        return list(_findings(connection, connection.execute(_PERCENT, {"rows": SAMPLED_ROWS}).scalar_one()))


def _snapshot(engine: Engine) -> Connection:
    return engine.connect().execution_options(isolation_level="REPEATABLE READ")


def _findings(connection: Connection, percent: float) -> Iterator[Finding]:
    for name, (holds, query) in INVARIANTS.items():
        broken = connection.execute(text(query), {"percent": percent}).scalar_one()
        yield Finding(name=name, holds=holds, broken=broken)
