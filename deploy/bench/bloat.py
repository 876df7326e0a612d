"""What stands in the tables of a database: rows, rows that are dead and not cleared yet, and bytes."""

from dataclasses import dataclass
from typing import LiteralString

import psycopg

from deploy.bench.report import Grid

# The parts of a table count as one. What belongs to nobody's mail is left out by `grown`.
_TABLES: LiteralString = r"""
    select regexp_replace(relname, '_(\d{4}_\d{2}|other)$', '') as name, sum(n_live_tup)::bigint,
           sum(n_dead_tup)::bigint, sum(pg_table_size(relid))::bigint, sum(pg_indexes_size(relid))::bigint,
           sum(autovacuum_count)::bigint, sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint
    from pg_stat_user_tables group by name
"""
_WRITTEN_TO = 1_000
"""Rows written from which on a table is worth showing."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as PostgreSQL's own counters show it; they are a second late."""

    live: int
    dead: int
    heap: int
    """Bytes, without indexes."""
    indexes: int
    vacuums: int
    """By autovacuum, since the database began."""
    written: int
    """Rows inserted, updated and deleted since the database began."""

    @property
    def size(self) -> int:
        return self.heap + self.indexes

    @property
    def dead_share(self) -> float:
        return self.dead / max(1, self.live + self.dead)


Tables = dict[str, Table]
"""By name."""


def tables(connection: psycopg.Connection) -> Tables:
    return {name: Table(*numbers) for name, *numbers in connection.execute(_TABLES)}


def total_size(found: Tables) -> int:
    """Bytes."""
    return sum(table.size for table in found.values())


def grid(readings: list[Tables]) -> Grid:
    """One row for each table that was much written to; ``readings`` are evenly spread over the time.

    A table that keeps what it gets grows with its rows; one that is a queue has to stay as it is.
    """
    first, half, last = readings[0], readings[len(readings) // 2], readings[-1]
    nothing = Table(0, 0, 0, 0, 0, 0)
    shown = Grid(
        title="tables",
        columns=("table", "rows", "dead, most", "dead, end", "MB heap", "MB indexes", "MB at half", "vacuums"),
    )
    for name, table in sorted(last.items(), key=lambda item: -item[1].size):
        before = first.get(name, nothing)
        if table.written - before.written < _WRITTEN_TO:
            continue
        most = max(reading[name].dead_share for reading in readings if name in reading)
        middle = half.get(name, nothing).size
        shown.rows.append(
            [
                name, f"{table.live:,}", f"{most:.1%}", f"{table.dead_share:.1%}", _mb(table.heap), _mb(table.indexes),
                _mb(middle), f"{table.vacuums - before.vacuums}",
            ]
        )  # fmt: skip
    return shown


def _mb(size: int) -> str:
    return f"{size / 1024**2:,.1f}"
