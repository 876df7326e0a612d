"""Rows of the suppression list as they are sent in: one object, a list of them, or a CSV file."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from api_shim.errors import ApiError, Fault
from api_shim.text import EmailKey, Line

Reason = Literal["hard_bounce", "complaint", "unsubscribe", "manual"]

MAX_ROWS = 100_000
MAX_FAULTS = 100
"""Faults named in one answer; a file of the wrong kind has one for each of its rows."""
COLUMNS = ("address", "reason", "list_id")


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


class SuppressionNew(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"address": "grace@example.com", "reason": "manual"}}
    )

    address: Annotated[EmailKey, BeforeValidator(_stripped)]
    reason: Reason = "manual"
    list_id: Line = ""


ROWS: TypeAdapter[list[SuppressionNew]] = TypeAdapter(list[SuppressionNew])


def read_rows(body: bytes, content_type: str) -> list[SuppressionNew]:
    """The rows of an import: CSV where the content type says so, else a JSON list of objects or of plain addresses.

    CSV is UTF-8; its first line names its columns (address or email, reason, list_id), unless it already is an address.
    Raises VALIDATION_ERROR naming the rows that are wrong, counted from 1; then none of them counts.
    """
    kind = content_type.partition(";")[0].strip().lower()
    rows = list(_csv_rows(body)) if kind == "text/csv" else _json_rows(body)
    if len(rows) > MAX_ROWS:
        raise _invalid(f"holds {len(rows)} rows; send up to {MAX_ROWS} in one request")
    try:
        return ROWS.validate_python(rows)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[:MAX_FAULTS]
        raise ApiError("VALIDATION_ERROR", faults=[_fault(item) for item in found]) from error


def _fault(item: Mapping[str, Any]) -> Fault:
    row, *field = item["loc"]
    return Fault(f"row {row + 1}" + "".join(f".{part}" for part in field), item["msg"], item["type"])


def _invalid(message: str) -> ApiError:
    return ApiError("VALIDATION_ERROR", faults=[Fault("body", f"the body {message}")])


def _json_rows(body: bytes) -> Sequence[Any]:
    try:
        rows = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"is not JSON ({error}); for CSV send Content-Type: text/csv") from error
    if not isinstance(rows, list):
        raise _invalid("is no JSON list; send a list of addresses or of objects")
    return [{"address": row} if isinstance(row, str) else row for row in rows]


def _csv_rows(body: bytes) -> Iterator[dict[str, str]]:
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        first = next(lines, [])
        names = _columns(first)
        if names is None:
            names = COLUMNS
            yield _cells(names, first, 1)
        for line in lines:
            if any(cell.strip() for cell in line):
                yield _cells(names, line, lines.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise _invalid(f"is not CSV in UTF-8: {error}") from error


def _columns(first: Sequence[str]) -> Sequence[str] | None:
    """The names in the first line, or None where it is a row already."""
    if first and "@" in first[0]:
        return None
    names = ["address" if name == "email" else name for name in (cell.strip().lower() for cell in first)]
    if "address" not in names or len(set(names)) < len(names) or not set(names) <= set(COLUMNS):
        raise _invalid(f"must begin with a line naming its columns: {', '.join(COLUMNS)}; only address must be there")
    return names


def _cells(names: Sequence[str], line: Sequence[str], number: int) -> dict[str, str]:
    if len(line) > len(names):
        raise _invalid(f"has {len(line)} cells in line {number}, where {len(names)} columns are named")
    cells = ((name, cell.strip()) for name, cell in zip(names, line, strict=False))
    return {name: cell for name, cell in cells if cell or name == "address"}
