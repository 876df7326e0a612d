"""A raw mail taken apart, at a cost bound by its size: neither depth nor number of parts nor odd headers add to it.

The standard library's parser recurses with each nesting and makes an object of each part, so a small mail can keep it
busy for minutes. This one stops at `DEEPEST` and `MOST_PARTS`; what lies beyond stays undivided. Nothing is ever
decompressed. A malformed mail is read as far as it goes: nothing here raises for what stands in it.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import getaddresses
from functools import cached_property
from itertools import islice
from quopri import decodestring
from urllib.parse import unquote_to_bytes

DEEPEST = 20
MOST_PARTS = 500
MOST_HEADERS = 500
"""Of one part."""
LONGEST_HEAD = 128 * 1024
"""Bytes that are searched for the end of a part's head."""
MOST_HEAD = 1024 * 1024
"""Bytes of all heads together."""
LONGEST_VALUE = 16_384
"""Characters kept of one header."""

_HEAD_END = re.compile(rb"\r?\n\r?\n|\r\r")
_LINE_END = re.compile(r"\r\n|\n|\r")
_FIELD = re.compile(r"([\x21-\x39\x3b-\x7e]{1,76})[ \t]*:[ \t]*")
_WORD = re.compile(r"=\?([\w!#$%&'*+.^`{|}~-]{1,60})\?([qQbB])\?([^?\r\n]{0,1000})\?=")
_PARAMETER = re.compile(r";\s*([\w!#$&+.^`|~*%-]{1,60})\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^;\s\"]*)")
_CONTINUED = re.compile(r"(.+?)\*(\d{1,3})?(\*)?$")
_NO_LETTERS = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
"""All that is not base64."""
_SLOW_CHARSETS = frozenset({"idna", "punycode"})
"""Python decodes them in quadratic time; no mail is written in them."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A mail, or one part of it."""

    raw: bytes = field(repr=False)
    start: int
    """Where its body begins in ``raw``."""
    end: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Names in lower case; values unfolded, encoded words as they came."""
    media_type: str
    parameters: Mapping[str, str] = field(repr=False)
    """Of the Content-Type; names in lower case."""
    parts: tuple["Part", ...] = ()
    """Those of a multipart; the one mail inside a message/rfc822."""

    @property
    def body(self) -> bytes:
        return self.raw[self.start : self.end]

    def values(self, name: str) -> list[str]:
        """The values of a header, the first first, encoded words decoded."""
        return [decoded(value) for key, value in self.headers if key == name]

    def header(self, name: str) -> str:
        """The first value, empty where there is none."""
        return next((decoded(value) for key, value in self.headers if key == name), "")

    def addresses(self, name: str) -> list[tuple[str, str]]:
        """``(display name, address)`` of each mailbox that a header names."""
        written = [value for key, value in self.headers if key == name]
        try:
            found = getaddresses(written)
        except (ValueError, IndexError, AttributeError, RecursionError):
            return []
        return [(decoded(label), decoded(address)) for label, address in found if address]

    @cached_property
    def payload(self) -> bytes:
        """The body without its transfer encoding."""
        return unwrapped(self.body, self.header("content-transfer-encoding"))

    @property
    def text(self) -> str:
        """The body as text, line ends as ``\\n``; what its charset does not know is replaced."""
        return in_charset(self.payload, self.parameters.get("charset", "utf-8")).replace("\r\n", "\n")

    @property
    def disposition(self) -> str:
        return self.header("content-disposition").partition(";")[0].strip().lower()

    @property
    def filename(self) -> str:
        given = _parameters(self.header("content-disposition")).get("filename") or self.parameters.get("name", "")
        return decoded(given)

    def first(self, media_type: str) -> "Part | None":
        """The first part of a type that is to be read with the mail: no attachment, and in no attached mail."""
        if self.media_type == media_type and self.disposition != "attachment":
            return self
        inside = self.parts if self.media_type.startswith("multipart/") else ()
        return next((found for part in inside if (found := part.first(media_type)) is not None), None)

    def walk(self) -> Iterator["Part"]:
        """This part and all below it, in order, those of attached mails too."""
        yield self
        for part in self.parts:
            yield from part.walk()


def read_mail(raw: bytes) -> Part:
    """The tree of a mail."""
    return _Reader().part(raw, 0, len(raw), 0, "text/plain")


class _Reader:
    """Counts the parts of one mail."""

    def __init__(self) -> None:
        self.left = MOST_PARTS
        self.head_left = MOST_HEAD

    def part(self, raw: bytes, start: int, end: int, depth: int, default: str) -> Part:
        self.left -= 1
        headers, body = _head(raw, start, end)
        self.head_left -= body - start if headers else 0
        self.left, start = self.left if self.head_left > 0 else 0, body
        given = next((value for name, value in headers if name == "content-type"), "")
        media_type = given.partition(";")[0].strip().lower()
        media_type = media_type if "/" in media_type else default
        parameters = _parameters(given)
        whole = Part(raw=raw, start=start, end=end, headers=headers, media_type=media_type, parameters=parameters)
        return replace(whole, parts=self._inside(whole, depth + 1)) if depth < DEEPEST else whole

    def _inside(self, part: Part, depth: int) -> tuple[Part, ...]:
        if part.media_type in ("message/rfc822", "message/global") and self.left > 0:
            raw, start, end = part.raw, part.start, part.end
            if part.header("content-transfer-encoding").strip().lower() in ("base64", "quoted-printable"):
                raw, start, end = part.payload, 0, len(part.payload)
            return (self.part(raw, start, end, depth, "text/plain"),)
        boundary = part.parameters.get("boundary", "").rstrip()
        if not part.media_type.startswith("multipart/") or not boundary:
            return ()
        default = "message/rfc822" if part.media_type == "multipart/digest" else "text/plain"
        inside = []
        for start, end in _between(part, boundary.encode("utf-8", "replace")):
            if self.left <= 0:
                break
            inside.append(self.part(part.raw, start, end, depth, default))
        return tuple(inside)


def _between(part: Part, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where the parts between the delimiter lines lie; without the last delimiter the last part goes to the end."""
    raw, delimiter = part.raw, b"--" + boundary
    begun: int | None = None
    position = part.start
    for _ in range(MOST_PARTS * 20):  # lines that only begin like a delimiter count too
        found = raw.find(delimiter, position, part.end)
        if found < 0:
            break
        position = found + len(delimiter)
        if found > part.start and raw[found - 1 : found] != b"\n":
            continue
        line_end = raw.find(b"\n", position, part.end)
        line_end = part.end if line_end < 0 else line_end
        rest = raw[position : min(line_end, position + 100)].strip()
        if rest not in (b"", b"--"):
            continue
        if begun is not None:
            yield begun, max(begun, found - (2 if raw[found - 2 : found] == b"\r\n" else 1))
        if rest:
            return
        begun = position = min(line_end + 1, part.end)
    if begun is not None:
        yield begun, part.end


def _head(raw: bytes, start: int, end: int) -> tuple[tuple[tuple[str, str], ...], int]:
    """The headers, and where the body begins."""
    if raw.startswith((b"\r\n", b"\n"), start, end):
        return (), start + (1 if raw[start : start + 1] == b"\n" else 2)
    closing = _HEAD_END.search(raw, start, min(end, start + LONGEST_HEAD))
    head_end, body = (closing.start(), closing.end()) if closing else (min(end, start + LONGEST_HEAD), end)
    return tuple(islice(fields(_written(raw[start:head_end])), MOST_HEADERS)), body


def fields(head: str) -> Iterator[tuple[str, str]]:
    """``Name: value`` lines, unfolded, names in lower case. Lines that are none are passed over."""
    name: str | None = None
    value: list[str] = []
    for line in _LINE_END.split(head):
        if line[:1] in (" ", "\t"):
            value.append(line.strip())
        elif match := _FIELD.match(line):
            if name is not None:
                yield name, " ".join(value)[:LONGEST_VALUE]
            name, value = match[1].lower(), [line[match.end() :].strip()]
    if name is not None:
        yield name, " ".join(value)[:LONGEST_VALUE]


def _written(data: bytes) -> str:
    """Raw header bytes as text: UTF-8 (RFC 6532), else Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _parameters(value: str) -> dict[str, str]:
    """Parameters of a header (RFC 2045 section 5.1), RFC 2231's pieces and charsets put together."""
    plain: dict[str, str] = {}
    pieces: dict[str, list[tuple[int, bool, str]]] = {}
    for match in _PARAMETER.finditer(value):
        name, content = match[1].lower(), match[2]
        if content.startswith('"'):
            content = re.sub(r"\\(.)", r"\1", content[1:-1])
        if continued := _CONTINUED.match(name):
            piece = (int(continued[2] or 0), continued[3] is not None or continued[2] is None, content)
            pieces.setdefault(continued[1], []).append(piece)
        else:
            plain.setdefault(name, content)
    return {name: _joined(found) for name, found in pieces.items()} | plain


def _joined(pieces: list[tuple[int, bool, str]]) -> str:
    pieces.sort(key=lambda piece: piece[0])
    charset, encoded = "utf-8", b""
    for number, (_, escaped, content) in enumerate(pieces):
        if number == 0 and escaped and content.count("'") >= 2:
            charset, _, content = content.split("'", 2)  # noqa: PLW2901 -- the rest of the same piece
        encoded += unquote_to_bytes(content) if escaped else content.encode()
    return in_charset(encoded, charset)


def decoded(value: str) -> str:
    """A header's value with its encoded words (RFC 2047) decoded; white space between two of them goes."""
    if "=?" not in value:
        return value
    written: list[str] = []
    pending, charset, position = b"", "", 0
    for match in _WORD.finditer(value):
        between = value[position : match.start()]
        if pending and (between.strip() or match[1].lower() != charset):
            written.append(in_charset(pending, charset))
            pending = b""
        if between.strip() or position == 0:
            written.append(between)
        pending, charset, position = pending + _word(match[2], match[3]), match[1].lower(), match.end()
    written.append(in_charset(pending, charset) if pending else "")
    return "".join(written) + value[position:]


def _word(encoding: str, content: str) -> bytes:
    data = content.encode("utf-8", "replace")
    if encoding in "qQ":
        return decodestring(data, header=True)
    return unwrapped(data, "base64")


def unwrapped(data: bytes, encoding: str) -> bytes:
    """Bytes without their Content-Transfer-Encoding."""
    encoding = encoding.partition(";")[0].strip().lower()
    if encoding == "quoted-printable":
        return decodestring(data)
    if encoding != "base64":
        return data
    letters = data.translate(None, _NO_LETTERS)
    try:
        return b64decode(letters[: len(letters) // 4 * 4] + _tail(letters))
    except binascii.Error:
        return data


def _tail(letters: bytes) -> bytes:
    left = letters[len(letters) // 4 * 4 :]
    return left + b"=" * (4 - len(left)) if len(left) > 1 else b""


def in_charset(data: bytes, charset: str) -> str:
    charset = charset.partition("*")[0].strip().lower()
    try:
        return data.decode("utf-8" if charset in _SLOW_CHARSETS else charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace")
