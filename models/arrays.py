"""Long lists as parameters of a statement.

psycopg writes a list as text, one element after the other, which for the ids of a batch takes longer than PostgreSQL
takes to find them. These go as PostgreSQL's own binary arrays, in one piece.
"""

from struct import pack
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_UUID_LENGTH = pack(">i", 16)


class Ids(list[UUID]):
    """A ``uuid[]``."""


class Words(list[str]):
    """A ``text[]``."""


class _IdsDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["uuid"].array_oid

    def dump(self, obj: Ids) -> bytes:
        return _head("uuid", len(obj)) + b"".join([_UUID_LENGTH + id_.bytes for id_ in obj])


class _WordsDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["text"].array_oid

    def dump(self, obj: Words) -> bytes:
        words = [word.encode() for word in obj]
        return _head("text", len(words)) + b"".join([pack(">i", len(word)) + word for word in words])


def _head(element: str, length: int) -> bytes:
    """Of an array in one dimension that begins with 1 and has no nulls, as PostgreSQL's ``array_recv`` reads it."""
    return pack(">iiiii", 1, 0, psycopg.adapters.types[element].oid, length, 1)


psycopg.adapters.register_dumper(Ids, _IdsDumper)
psycopg.adapters.register_dumper(Words, _WordsDumper)
