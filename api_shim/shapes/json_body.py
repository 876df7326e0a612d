"""Bytes to JSON, refusing what orjson lets pass and the database or a reader would not."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from api_shim.errors import ApiError, Fault
from api_shim.shapes.fields import shown

MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it came. Its outline tells the shape even where something in it is refused."""

    outline: Any
    """The JSON value, fit for a look at its outermost members and no more; None where it is no JSON."""
    fault: ApiError | None
    """Why it is refused."""

    @property
    def value(self) -> Any:
        """The JSON value (RFC 8259). Raises what is wrong with it."""
        if self.fault is not None:
            raise self.fault
        return self.outline


def read_body(raw: bytes) -> Body:
    """Reads JSON.

    VALIDATION_ERROR for malformed JSON, NaN, infinities, lone surrogates, NUL characters, a member given twice in one
    object, and nesting deeper than 100.
    """
    value = None
    try:
        value = orjson.loads(raw)
        _check(value, raw)
    except orjson.JSONDecodeError as error:
        where = f"{error.msg} (line {error.lineno}, column {error.colno})"
        return Body(None, _refusal("", f"The body is not JSON: {where}."))
    except ApiError as fault:
        return Body(value, fault)
    return Body(value, None)


_UNCOUNTED: Final = (b" :", b"\t:", b"\n:", b"\r:", b'\\\\":')
"""What the quick count of members misses: space before a colon, and names that end in a backslash."""


def _check(value: Any, raw: bytes) -> None:
    if not _is_simple(value, raw):
        members = _count_members(value)
        # Counting quotes that a colon follows is far cheaper than parsing twice. Only where the sums differ or may be
        # wrong, the body is parsed again with an eye on each member.
        if raw.count(b'":') - raw.count(b'\\":') != members or any(piece in raw for piece in _UNCOUNTED):
            _refuse_twins(raw)
    if b"\\u0000" in raw:
        _refuse_nul(value)


def _is_simple(value: Any, raw: bytes) -> bool:
    """Too few brackets to be nested too deeply, and it comes out as it went in: nothing in it stands twice.

    Many programs write JSON without spaces, so for most bodies this is all.
    """
    return raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH and orjson.dumps(value) == raw


def _refusal(field: str, message: str) -> ApiError:
    return ApiError("VALIDATION_ERROR", faults=[Fault(field, message, "json")])


def _count_members(value: Any) -> int:
    """Members of all objects. Walks level by level, so that depth costs no stack."""
    members = 0
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                members += len(item)
                below += [child for child in item.values() if type(child) is dict or type(child) is list]
            elif type(item) is list:
                below += [child for child in item if type(child) is dict or type(child) is list]
        if not below:
            return members
        level = below
    raise _refusal("", f"The body is nested more than {MAX_DEPTH} levels deep; flatten it.")


def _refuse_twins(raw: bytes) -> None:
    def members(pairs: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _refusal(name, f"{shown(name)} is given twice in one object; send it once.")
            names.add(name)

    json.loads(raw, object_pairs_hook=members, parse_int=float, parse_float=float)


def _refuse_nul(value: Any) -> None:
    for path, text in _texts(value):
        if "\x00" in text:
            raise _refusal(path, f"{path or 'The body'} holds a NUL character (U+0000); remove it.")


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string, member names included, with its place. The depth is checked before."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            place = f"{path}.{shown(name)[1:-1]}" if path else shown(name)[1:-1]
            yield place, name
            yield from _texts(item, place)
