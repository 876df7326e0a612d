"""Reading a JSON object field by field, collecting everything that is wrong with it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any, Final, TypeVar
from uuid import UUID

from api_shim.errors import ApiError, Fault

T = TypeVar("T")

MAX_FAULTS: Final = 1000
"""Faults listed in one answer."""

MAX_CONTENT_BYTES: Final = 25 * 1024 * 1024

MAX_SUBJECT: Final = 998
"""RFC 5322 section 2.1.1."""

CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What may not stand in anything that becomes a header: C0, DEL, C1 (NEL among them), line and paragraph separators."""

_ENCODED_WORD: Final = re.compile(r"=\?[^?]*\?[^?]*\?[^?]*\?=")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?\d*([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def shown(value: object, limit: int = 80) -> str:
    """A value of the caller's, quoted for an error message: short, on one line, printable."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = value if isinstance(value, str) else repr(value) if number else kind_of(value)
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in f'"{short}"')


def kind_of(value: object) -> str:
    """What JSON calls the value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"


def line_fault(text: str, limit: int) -> str | None:
    """Why the text cannot be part of a header, as the rest of a sentence, or None."""
    if len(text) > limit:
        return f"is {len(text)} characters long; shorten it to {limit} or fewer."
    control = None if text.isprintable() else CONTROLS.search(text)
    if control is not None:
        where = f"U+{ord(control.group()):04X} at position {control.start()}"
        return f"holds a line break or control character ({where}); write it on one line of plain text."
    return _encoded_fault(text) if "=?" in text else None


def _encoded_fault(text: str) -> str | None:
    """Refuses RFC 2047 encoded words that hide a line break: what reads the mail decodes them."""
    for _ in range(4):
        if not _ENCODED_WORD.search(text):
            return None
        try:
            text = str(make_header(decode_header(text)))
        except (HeaderParseError, LookupError, ValueError):
            return "holds an encoded word that cannot be decoded; write the text itself, it is encoded for you."
        if CONTROLS.search(text):
            return "hides a line break or control character in an encoded word; write the text itself."
    return "holds encoded words in encoded words; write the text itself."


def instant_of(text: str) -> datetime | None:
    """The instant in UTC, or None where the text is no RFC 3339 date-time with offset."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class Faults:
    """Everything wrong with one body, in the order found."""

    def __init__(self) -> None:
        self.listed: list[Fault] = []
        self.full = False
        """More was found than is listed; there is no need to look for more."""

    def add(self, field: str, message: str, kind: str = "invalid") -> None:
        if len(self.listed) < MAX_FAULTS:
            self.listed.append(Fault(field, message, kind))
        else:
            self.full = True

    def check(self) -> None:
        """Raises ApiError VALIDATION_ERROR with all faults if there are any."""
        if not self.listed:
            return
        more = (
            [Fault("", f"There are more faults than these {MAX_FAULTS}; correct them and send it again.")]
            if self.full
            else []
        )
        raise ApiError("VALIDATION_ERROR", faults=[*self.listed, *more])


class Form:
    """One JSON object of the body. Every reader returns None where the field is absent, null or faulty.

    path: where the object stands in the body (``settings``), empty for the body itself.
    """

    def __init__(self, body: Mapping[str, Any], faults: Faults, path: str = "") -> None:
        self.body = body
        self.faults = faults
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def fault(self, name: str, problem: str, kind: str = "invalid") -> None:
        """``problem`` is the rest of a sentence that begins with the field."""
        self.faults.add(self.at(name), f"{self.at(name)} {problem}", kind)

    def given(self, name: str) -> bool:
        return self.body.get(name) is not None

    def text(self, name: str, *, required: str = "", kind: str = "required") -> str | None:
        """A string; a blank one is as good as none.

        required: what to do about a missing one, the end of the sentence "is required; ...".
        """
        value = self.body.get(name)
        if value is not None and not isinstance(value, str):
            self.fault(name, f"is {kind_of(value)}; send a string.")
            return None
        if value and not value.isspace():
            return value
        if required:
            self.fault(name, f"is required; {required}", kind)
        return None

    def line(self, name: str, limit: int, *, required: str = "", kind: str = "required") -> str | None:
        """A string that fits on one line of a header."""
        value = self.text(name, required=required, kind=kind)
        problem = None if value is None else line_fault(value, limit)
        if problem:
            self.fault(name, problem)
            return None
        return value

    def flag(self, name: str) -> bool:
        value = self.body.get(name)
        if value is not None and not isinstance(value, bool):
            self.fault(name, f"is {shown(value)}; send true or false.")
        return value is True

    def uuid(self, name: str, *, required: str = "") -> UUID | None:
        value = self.text(name, required=required)
        if value is None:
            return None
        if not _UUID.fullmatch(value):
            self.fault(name, f"is {shown(value)}, which is not a UUID; send the id exactly as it was returned.")
            return None
        return UUID(value)

    def instant(self, name: str) -> datetime | None:
        """An RFC 3339 date-time, in UTC."""
        value = self.text(name)
        if value is None:
            return None
        found = instant_of(value)
        if found is None:
            self.fault(name, f'is {shown(value)}; send an RFC 3339 time with offset, such as "2026-01-31T08:00:00Z".')
        return found

    def choice(self, name: str, choices: Mapping[Any, T], default: T) -> T:
        """The value behind one of the words or numbers in ``choices``."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, str | int) and not isinstance(value, bool) and value in choices:
            return choices[value]
        self.fault(name, f"is {shown(value)}; send one of {', '.join(str(choice) for choice in choices)}.")
        return default

    def object(self, name: str, *, required: str = "") -> "Form | None":
        value = self.body.get(name)
        if isinstance(value, dict):
            return Form(value, self.faults, self.at(name))
        if value is not None:
            self.fault(name, f"is {kind_of(value)}; send an object.")
        elif required:
            self.fault(name, f"is required; {required}", "required")
        return None

    def items(self, name: str) -> list[Any]:
        """The entries of a list."""
        value = self.body.get(name)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.fault(name, f"is {kind_of(value)}; send a list.")
        return []

    def forms(self, name: str) -> "list[Form]":
        """The entries of a list of objects, those that are objects."""
        found: list[Form] = []
        for index, item in enumerate(self.items(name)):
            if isinstance(item, dict):
                found.append(Form(item, self.faults, f"{self.at(name)}[{index}]"))
            else:
                self.faults.add(
                    f"{self.at(name)}[{index}]", f"{self.at(name)}[{index}] is {kind_of(item)}; send an object."
                )
        return found

    def only(self, *names: str) -> None:
        """A fault for every other field."""
        for name in sorted(self.body.keys() - set(names))[:50]:
            self.fault(shown(name)[1:-1], f"is not known here; remove it or use {', '.join(names)}.", "unknown")


def body_form(body: Any, faults: Faults) -> Form:
    """The form of a whole body. Raises ApiError where the body is no object: there is nothing to read then."""
    if not isinstance(body, Mapping):
        faults.add("", f"The body is {kind_of(body)}; send a JSON object.")
        faults.check()
    return Form(body, faults)


def check_content_size(form: Form, where: str, *texts: str | None) -> None:
    """The content of a mail stays below 25 MB, counted in UTF-8."""
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts if text)
    if size >= MAX_CONTENT_BYTES:
        form.faults.add(where, f"The content is {size} bytes long; keep it below {MAX_CONTENT_BYTES} (25 MB).")
