"""Text as request bodies and query parameters carry it: what PostgreSQL cannot store is a 400, not a failure."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from api_shim.shapes.addresses import key_of, normalised


def _storable(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which no field takes; remove it")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("holds half of a surrogate pair, which is no character; send valid UTF-8")
    return value


def _one_line(value: str) -> str:
    if any(char < " " or char == "\x7f" or char in "\x85\u2028\u2029" for char in value):
        raise ValueError("holds a control character or a line break; send one line")
    return value


def _address(value: str) -> str:
    good = normalised(value)
    if good is None:
        raise ValueError("is not a valid email address; write it as user@domain")
    return good


def _lower_address(value: str) -> str:
    return key_of(_address(value))


def _domain(value: str) -> str:
    good = normalised(f"a@{value}")
    if good is None:
        raise ValueError("is not a domain name; write it as example.com")
    return good.rpartition("@")[2]


Text = Annotated[str, AfterValidator(_storable)]
"""Any text that can be stored. Give it a length of its own with ``Field(max_length=...)``."""

Line = Annotated[str, StringConstraints(max_length=255), AfterValidator(_storable), AfterValidator(_one_line)]
"""One line for a name or a search, up to 255 characters."""

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, strip_whitespace=True),
    AfterValidator(_storable),
    AfterValidator(_one_line),
]
"""A line that is not empty."""

Email = Annotated[str, StringConstraints(max_length=320), AfterValidator(_storable), AfterValidator(_address)]
"""An address, its domain in lower case and in ASCII."""

EmailKey = Annotated[str, StringConstraints(max_length=320), AfterValidator(_storable), AfterValidator(_lower_address)]
"""An address in lower case, for what is compared and not written to."""

Domain = Annotated[
    str, StringConstraints(max_length=253, strip_whitespace=True), AfterValidator(_storable), AfterValidator(_domain)
]
"""A domain in lower case and in ASCII."""
