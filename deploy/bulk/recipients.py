"""The CSV file: a column ``email``; all columns are variables of the template."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from api_shim.shapes.addresses import key_of

MAX_NAMED = 20
"""Lines named in one error."""


class BulkError(Exception):
    """The run cannot begin or go on. Says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One row. ``line``: where it ends in the file, counted from 1."""

    line: int
    email: str = field(repr=False)
    variables: dict[str, str] = field(repr=False)
    """Every column; ``name``, where there is one, is the recipient's display name too."""


def read_recipients(path: Path) -> list[Recipient]:
    """The rows, of which no two have the same address. Raises BulkError naming the lines that are wrong."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(_rows(csv.reader(io.StringIO(text, newline=""), strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BulkError(f"{path} is not CSV in UTF-8: {error}.") from None
    if not rows:
        raise BulkError(f"{path} has no rows below its line of column names.")
    _refuse_twins(rows)
    return rows


def _rows(lines: Iterator[list[str]]) -> Iterator[Recipient]:
    reader = iter(lines)
    columns = _columns(next(reader, []))
    email = columns.index("email")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        line: int = lines.line_num  # type: ignore[attr-defined]
        if len(cells) != len(columns):
            raise BulkError(f"Line {line} has {len(cells)} cells, but there are {len(columns)} columns.")
        address = cells[email].strip()
        values = dict(zip(columns, cells, strict=True)) | {"email": address}
        yield Recipient(line=line, email=address, variables=values)


def _columns(first: Sequence[str]) -> list[str]:
    columns = [cell.strip() for cell in first]
    columns = [name.lower() if name.lower() in ("email", "name") else name for name in columns]
    if "email" not in columns:
        raise BulkError("The first line must name the columns, and one of them must be email.")
    if len(set(columns)) < len(columns) or "" in columns:
        raise BulkError("Each column needs a name of its own in the first line.")
    return columns


def _refuse_twins(rows: Sequence[Recipient]) -> None:
    first: dict[str, int] = {}
    twins = []
    for row in rows:
        before = first.setdefault(key_of(row.email), row.line)
        if before != row.line:
            twins.append(f"line {row.line} repeats line {before}")
    if twins:
        more = f" and {len(twins) - MAX_NAMED} more" if len(twins) > MAX_NAMED else ""
        raise BulkError(f"Each address may stand in the file once: {', '.join(twins[:MAX_NAMED])}{more}.")
