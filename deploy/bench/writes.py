"""What a mail writes into PostgreSQL: rows, and bytes of the log that makes them durable."""

import time
from dataclasses import dataclass
from typing import LiteralString

from deploy.bench.report import Figure
from deploy.bench.stack import BenchStack

SETTLE_SECONDS = 1.2
"""Backends report what they did once a second."""

_ROWS: LiteralString = """
    select coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_hot_upd), 0),
           coalesce(sum(n_tup_del), 0), pg_current_wal_lsn() - '0/0'
    from pg_stat_user_tables
"""
_DEAD: LiteralString = """
    select coalesce(100 * sum(n_dead_tup) / nullif(sum(n_live_tup), 0), 0)::float from pg_stat_user_tables
    where relname = 'message'
"""


@dataclass(frozen=True, slots=True)
class Writes:
    """Counted since the database began."""

    inserted: int
    updated: int
    hot: int
    deleted: int
    wal: int

    def since(self, earlier: "Writes", mails: int) -> list[Figure]:
        """The figures for each of so many mails."""
        updated = self.updated - earlier.updated
        per_mail = {
            "rows_inserted": ("rows inserted", self.inserted - earlier.inserted),
            "rows_updated": ("rows updated", updated),
            "rows_deleted": ("rows deleted", self.deleted - earlier.deleted),
        }
        figures = [
            Figure(name=name, title=f"{title} per mail", value=count / mails, unit="rows")
            for name, (title, count) in per_mail.items()
        ]
        hot = (self.hot - earlier.hot) / updated if updated else 0.0
        wal = (self.wal - earlier.wal) / mails / 1024
        return [
            *figures,
            Figure(name="hot_updates", title="updates that touch no index", value=100 * hot, unit="%"),
            Figure(name="wal", title="write-ahead log per mail", value=wal, unit="KB"),
        ]


def so_far(stack: BenchStack) -> Writes:
    time.sleep(SETTLE_SECONDS)
    row = stack.database.execute(_ROWS).fetchone()
    return Writes(*(int(value) for value in row)) if row else Writes(0, 0, 0, 0, 0)


def dead_rows(stack: BenchStack) -> float:
    """Dead rows of table message that autovacuum has not cleared yet, in percent of the living."""
    row = stack.database.execute(_DEAD).fetchone()
    return float(row[0]) if row else 0.0
