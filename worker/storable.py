"""Text from outside, made fit for the database: PostgreSQL takes neither NUL nor half a surrogate pair."""

from collections.abc import Mapping
from typing import Any

LONGEST = 8_192
"""Characters kept of one text."""

_DEEPEST = 20


def storable(value: Any, depth: int = 0) -> Any:
    """A JSON value as PostgreSQL can store it: texts cut and cleaned, anything nested too deeply left out."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict | Mapping):  # dict first: the test for Mapping is slow
        return {text(str(key)): storable(item, depth + 1) for key, item in value.items()} if depth < _DEEPEST else {}
    if isinstance(value, list | tuple):
        return [storable(item, depth + 1) for item in value] if depth < _DEEPEST else []
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


def text(value: str, longest: int = LONGEST) -> str:
    """``value`` without NUL, halves of surrogate pairs replaced, cut after ``longest`` characters."""
    if len(value) <= longest and value.isascii() and "\0" not in value:
        return value
    value = value[:longest]
    if "\0" in value:
        value = value.replace("\0", "")
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
