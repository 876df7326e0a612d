"""Tables that are kept in parts, one per month, so that a month that is over its retention goes at once.

The month of a row comes from a UUIDv7 in it (RFC 9562 section 5.7: 48 bits of Unix milliseconds lead), which never
changes: whatever is written twice meets itself in the same part, and keys stay as narrow as they were. What belongs to
no month that has a part is in the table's part ``_other``.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from sqlalchemy import Connection, text

from models.base import Base

PARTITION_LOCK = 7_340_022
"""Key of the advisory lock under which parts are made and dropped; any number that nothing else uses."""

MONTHS_AHEAD = 2
"""Months that get their part before they begin."""

_NAME = re.compile(r"_(\d{4})_(\d{2})$")


def partitioned() -> dict[str, str]:
    """Table -> the column of UUIDv7 that says a row's month."""
    by = {table.name: table.dialect_options["postgresql"]["partition_by"] for table in Base.metadata.sorted_tables}
    return {table: rule.removeprefix("RANGE (").removesuffix(")") for table, rule in by.items() if rule}


def first_id(at: datetime) -> UUID:
    """What sorts before every UUIDv7 made at ``at`` or later, and after those made before."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def months_from(at: datetime, count: int) -> Iterator[datetime]:
    """The first moment of the month of ``at`` (UTC), and of ``count`` - 1 months after it."""
    number = at.astimezone(UTC).year * 12 + at.astimezone(UTC).month - 1
    for month in range(number, number + count):
        yield datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def is_part(table: str) -> bool:
    """Whether this is a part of a partitioned table, by its name."""
    return any(table == f"{whole}_other" or _month_of(whole, table) for whole in partitioned())


def make_parts(connection: Connection, now: datetime) -> list[str]:
    """Makes the parts that are missing for the month of ``now`` and the next ones. Returns their names.

    Writers of the table go on meanwhile. The caller commits.
    """
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": PARTITION_LOCK})
    made = []
    for table, column in partitioned().items():
        have = set(_parts(connection, table))
        if f"{table}_other" not in have:
            connection.execute(text(f'create table "{table}_other" partition of "{table}" default'))
        begins = list(months_from(now, MONTHS_AHEAD + 2))
        for begin, end in pairwise(begins):
            name = f"{table}_{begin:%Y_%m}"
            if name not in have:
                _make(connection, table, column, name, first_id(begin), first_id(end))
                made.append(name)
    return made


def drop_parts(connection: Connection, table: str, before: datetime) -> list[str]:
    """Drops the months of ``table`` that were over by ``before``. Returns their names. The caller commits."""
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": PARTITION_LOCK})
    limit = next(months_from(before, 1))
    over = [part for part in _parts(connection, table) if (month := _month_of(table, part)) and month < limit]
    for part in over:
        connection.execute(text(f'drop table "{part}"'))
    return over


def _parts(connection: Connection, table: str) -> list[str]:
    query = text("select inhrelid::regclass::text from pg_inherits where inhparent = to_regclass(:table) order by 1")
    return [name.strip('"') for name in connection.execute(query, {"table": table}).scalars()]


def _month_of(table: str, part: str) -> datetime | None:
    found = _NAME.search(part)
    if found is None or part.removesuffix(found.group()) != table:
        return None
    return datetime(int(found.group(1)), int(found.group(2)), 1, tzinfo=UTC)


def _make(connection: Connection, table: str, column: str, name: str, first: UUID, end: UUID) -> None:
    """Made beside the table and attached, which stops no writer; with what ``_other`` holds of the month, if any."""
    connection.execute(text(f'create table "{name}" (like "{table}" including all)'))
    moved = f"""with moved as (delete from "{table}_other" where {column} >= :first and {column} < :end returning *)
        insert into "{name}" select * from moved"""  # noqa: S608 -- names of our own
    connection.execute(text(moved), {"first": first, "end": end})
    bounds = f"for values from ('{first}') to ('{end}')"
    connection.execute(text(f'alter table "{table}" attach partition "{name}" {bounds}'))
