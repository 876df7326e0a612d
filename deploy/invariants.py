"""What must hold of the rows at every moment, as SQL. All of it is read in one snapshot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from models.message import ACCEPTED, OPEN, State

GRACE = "interval '10 seconds'"
"""An expired lease is ended by the beat within a second or so."""


def _in(states: frozenset[State]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


_OPEN, _ACCEPTED = _in(OPEN), _in(ACCEPTED)

INVARIANTS: dict[str, tuple[str, str]] = {
    "open_has_a_future": (
        "every unfinished message has due_at or a live lease",
        f"""select count(*) from message m where state in ({_OPEN}) and due_at is null and not exists (
                select from lease where lease.id = m.lease_id and m.id = any(lease.message_ids)
                                    and lease.expires_at > clock_timestamp() - {GRACE})""",  # noqa: S608 -- constants, here and below
    ),
    "in_hand_is_leased": (
        "every claimed or sending message is named by its lease",
        """select count(*) from message m where state in ('claimed', 'sending') and not exists (
               select from lease where lease.id = m.lease_id and m.id = any(lease.message_ids))""",
    ),
    "finished_is_dated": (
        "every finished message has finished_at and nothing left to do",
        f"select count(*) from message where state not in ({_OPEN}) and (finished_at is null or due_at is not null)",  # noqa: S608
    ),
    "totals_add_up": (
        "every submission has as many messages as its total says",
        """select count(*) from submission s left join (
               select submission_id, count(*) as number from message group by 1) m on m.submission_id = s.id
           where s.total <> coalesce(m.number, 0)""",
    ),
    "sent_is_logged": (
        "every sent message has its log row or is on its way there",
        f"""select count(*) from message m left join email_log on email_log.message_id = m.id
                left join (select unnest(message_ids) as id from followup) outbox on outbox.id = m.id
            where m.state in ({_ACCEPTED}) and email_log.message_id is null and outbox.id is null""",  # noqa: S608
    ),
}  # fmt: skip
"""Name -> what holds, and the query that counts the rows of which it does not."""


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
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("set local statement_timeout = 0"))
        for name, (holds, query) in INVARIANTS.items():
            yield Finding(name=name, holds=holds, broken=connection.execute(text(query)).scalar_one())
