"""Google's discovery document as a judge of answers: what a method of the Gmail API may say.

The document ships with google-api-python-client. A schema's members are all optional there, so an answer breaks it by a
member it does not know, a wrong type, a value that a ``format`` or an ``enum`` does not allow, a body where the method
has none, or none where it has one.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from googleapiclient.discovery_cache import get_static_doc

_URLSAFE = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_SIZES = {
    "int32": range(-(2**31), 2**31),
    "uint32": range(2**32),
    "int64": range(-(2**63), 2**63),
    "uint64": range(2**64),
}


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(get_static_doc("gmail", "v1"))
    return document


@cache
def _answers() -> dict[str, str | None]:
    """Id of each method -> name of the schema it answers with; None: an empty body."""

    def below(resource: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
        for method in resource.get("methods", {}).values():
            yield method["id"], method.get("response", {}).get("$ref")
        for inner in resource.get("resources", {}).values():
            yield from below(inner)

    return dict(below(_document()))


def faults_of_answer(method: str, body: Any) -> list[str]:
    """What is wrong with the answer of a method (``gmail.users.drafts.send``); body: parsed, None where it is empty."""
    schema = _answers()[method]
    if schema is None:
        return [] if body is None else [f"{method}: a body where there is none"]
    return [f"{method}{fault}" for fault in _faults(body, {"$ref": schema}, "")]


def _faults(value: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if "$ref" in schema:
        yield from _faults(value, _document()["schemas"][schema["$ref"]], where)
    elif not _IS[schema["type"]](value):
        yield f"{where}: {type(value).__name__} instead of {schema['type']}"
    elif schema["type"] == "object":
        yield from _faults_of_members(value, schema["properties"], where)
    elif schema["type"] == "array":
        for number, item in enumerate(value):
            yield from _faults(item, schema["items"], f"{where}[{number}]")
    elif not _allowed(value, schema):
        yield f"{where}: {value!r} is no {schema.get('format', 'word of the enum')}"


def _faults_of_members(value: Mapping[str, Any], members: Mapping[str, Any], where: str) -> Iterator[str]:
    for name, item in value.items():
        if name in members:
            yield from _faults(item, members[name], f"{where}.{name}")
        else:
            yield f"{where}.{name}: there is no such member"


_IS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}


def _allowed(value: Any, schema: Mapping[str, Any]) -> bool:
    form = schema.get("format")
    if form in _SIZES:
        return re.fullmatch(r"-?\d+", str(value)) is not None and int(value) in _SIZES[form]
    if form == "byte":
        return _is_base64url(value)
    return value in schema.get("enum", [value])


def _is_base64url(text: str) -> bool:
    try:
        base64.urlsafe_b64decode(text)
    except binascii.Error:
        return False
    return _URLSAFE.fullmatch(text) is not None
