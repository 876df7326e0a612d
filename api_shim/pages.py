"""Lists: ``limit`` and an opaque ``cursor`` that stays right while rows arrive, because it names a row and not a
position.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import Query
from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from api_shim.errors import ApiError, Fault

Limit = Annotated[int, Query(ge=1, le=500, description="Rows in one answer.")]
Cursor = Annotated[str | None, Query(description="next_cursor of the answer before.", max_length=500)]
DEFAULT_LIMIT = 50

Row = TypeVar("Row")


def page(
    rows: Sequence[Row], limit: int, show: Callable[[Row], dict[str, Any]], position: Callable[[Row], list[Any]]
) -> dict[str, Any]:
    """The body of a list.

    ``rows``: one more than ``limit`` was asked for, if there are as many. ``position``: the values a cursor names.
    """
    shown = rows[:limit]
    more = len(rows) > limit
    return {"data": [show(row) for row in shown], "next_cursor": encode(position(shown[-1])) if more else None}


def encode(position: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position, default=str)).decode().rstrip("=")


def decode(cursor: str, kinds: Sequence[Callable[[Any], Any]]) -> list[Any]:
    """The values in a cursor, each read by its kind (``UUID``, ``datetime.fromisoformat``, ...).

    Raises VALIDATION_ERROR.
    """
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list):
            raise TypeError
        return [_storable(kind(value)) for kind, value in zip(kinds, values, strict=True)]
    except (binascii.Error, orjson.JSONDecodeError, ValueError, TypeError, AttributeError) as error:
        fault = Fault("cursor", f"{cursor!r} is no cursor of this list; use next_cursor as it came, or leave it out")
        raise ApiError("VALIDATION_ERROR", faults=[fault]) from error


def _storable(value: Any) -> Any:
    """Raises ValueError for what no column can hold, so that a cursor made up by somebody is refused here."""
    if (isinstance(value, str) and "\0" in value) or (isinstance(value, int) and abs(value) >= 2**31):
        raise ValueError(value)
    return value


def after_id(column: InstrumentedAttribute[UUID], cursor: str | None) -> list[ColumnElement[bool]]:
    """The condition of a list in descending order of its ids."""
    return [] if cursor is None else [column < decode(cursor, [UUID])[0]]


def after(
    columns: Sequence[InstrumentedAttribute[Any]], cursor: str | None, kinds: Sequence[Callable[[Any], Any]]
) -> list[ColumnElement[bool]]:
    """The condition of a list in descending order of several columns."""
    return [] if cursor is None else [tuple_(*columns) < tuple_(*decode(cursor, kinds))]
