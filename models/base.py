"""What every table shares: the declarative base, column types and the two kinds of id."""

import os
import time
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, MetaData, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase, mapped_column

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in CROCKFORD for second in CROCKFORD]


class Base(DeclarativeBase):
    """Base of all tables. Constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy reads it from the class
        str: Text(),
        int: BigInteger(),
        datetime: DateTime(timezone=True),
        UUID: PG_UUID(as_uuid=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        list[UUID]: ARRAY(PG_UUID(as_uuid=True)),
    }


_VERSION_7 = 0x7 << 76 | 0x2 << 62
_RANDOM_BITS = (1 << 62) - 1

_random: list[int] = []
"""Random numbers of 64 bits to come, many fetched at a time: who asks the system lets all other threads go first."""
os.register_at_fork(after_in_child=_random.clear)


def _random_number() -> int:
    try:
        return _random.pop()
    except IndexError:
        _random.extend(memoryview(os.urandom(4096)).cast("Q"))
        return _random_number()


def uuid7() -> UUID:
    """A time-ordered UUID (RFC 9562 sections 5.7 and 6.2, method 3): rows made together lie together in every index.

    The time is exact to a quarter of a microsecond, so what one process makes one after the other stays in order.
    """
    millis, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    return UUID(int=(millis & 0xFFFFFFFFFFFF) << 80 | fraction << 64 | _VERSION_7 | _random_number() & _RANDOM_BITS)


def ulid(value: UUID) -> str:
    """The 26 characters of a ULID for the 128 bits that the database keeps as a uuid."""
    number = value.int
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def from_ulid(text: str) -> UUID | None:
    """The uuid behind a ULID (either case), or None where the text is no ULID."""
    text = text.upper()
    if len(text) != 26 or text[0] > "7" or any(char not in CROCKFORD for char in text):
        return None
    number = 0
    for char in text:
        number = number << 5 | CROCKFORD.index(char)
    return UUID(int=number)


Key = Annotated[UUID, mapped_column(primary_key=True, default=uuid7)]
"""A primary key that the application makes, so that rows can refer to each other before they are stored."""

BY_TIME: dict[str, Any] = {"postgresql_using": "brin", "postgresql_with": {"autosummarize": "on"}}
"""Options of an index on a time in whose order rows are written: a few pages for millions of them.

What is asked for is nearly always the last minutes. Without summaries as soon as pages are full, they would be the ones
that the index knows nothing of until the next vacuum.
"""

Created = Annotated[datetime, mapped_column(server_default=func.now())]

Tenant = Annotated[UUID, mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))]
"""The workspace a row belongs to. Every query of tenant data names it."""
