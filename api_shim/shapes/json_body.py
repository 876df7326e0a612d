"""Bytes to JSON, refusing what orjson lets pass and the database or a reader would not."""

import json
from collections.abc import Iterator
from typing import Any, Final

import orjson

from api_shim.errors import ApiError, Fault
from api_shim.shapes.fields import shown

MAX_DEPTH: Final = 100


def read_json(raw: bytes) -> Any:
    """The JSON value of a body (RFC 8259).

    Raises ApiError VALIDATION_ERROR for malformed JSON, NaN, infinities, lone surrogates, NUL characters, a member
    given twice in one object, and nesting deeper than 100.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _refusal("", f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None
    members = _count_members(value)
    # Counting quotes that a colon follows is far cheaper than parsing twice. Only where the sums differ, which odd
    # spacing can cause as well, the body is parsed again with an eye on each member.
    if raw.count(b'":') - raw.count(b'\\":') != members:
        _refuse_twins(raw)
    if b"\\u0000" in raw:
        _refuse_nul(value)
    return value


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
