"""The bytes of a mail: compiled once into pieces, joined once per recipient (RFC 2045, 2046, 2231, 5322)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from models.content import AttachmentRef
from worker.headers import EOL, LONGEST, check_line, check_media_type, parameter
from worker.template import CompositionError, Hole, Piece, Scene

_QP_WIDTH = 75
"""Characters in a quoted-printable line before its soft break (RFC 2045 section 6.7)."""
_AN_ADDRESS = 2_000
"""Characters: what is longer is hardly one line of plain words, and not looked through for that."""
_PLAIN = re.compile(r"[!-<>-~]*(?: [!-<>-~]+)*")
_SOFT = b"=\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,900}")


class ByteHole(Protocol):
    """A place in the mail that is filled anew for each message."""

    def fill(self, scene: Scene) -> bytes:
        """Raises CompositionError."""


BytePiece = bytes | ByteHole


@dataclass(frozen=True, slots=True)
class Quoted:
    """A hole in a quoted-printable text. It begins at the start of a line and ends with a soft break."""

    hole: Hole

    def fill(self, scene: Scene) -> bytes:
        return quoted_value(self.hole.fill(scene))


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a mail: its header lines, each with its end, and its body."""

    headers: tuple[str, ...]
    body: tuple[BytePiece, ...]
    eight_bit: bool = False

    def pieces(self) -> Iterator[BytePiece]:
        yield ("".join(self.headers) + EOL).encode("ascii")
        yield from self.body


class Spliced:
    """Pieces compiled for joining: fixed bytes merged, each distinct hole filled once per message."""

    def __init__(self, pieces: Sequence[BytePiece]) -> None:
        self._fixed: list[bytes] = []
        self._places: list[tuple[int, int]] = []
        holes: dict[ByteHole, int] = {}
        run: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, bytes):
                run.append(piece)
                continue
            self._fixed += [b"".join(run), b""]
            run = []
            self._places.append((len(self._fixed) - 1, holes.setdefault(piece, len(holes))))
        self._fixed.append(b"".join(run))
        self._holes = tuple(holes)

    @property
    def fixed(self) -> bytes:
        """What is the same for every message."""
        return b"".join(self._fixed)

    @property
    def fixed_bytes(self) -> int:
        return sum(map(len, self._fixed))

    @property
    def places(self) -> int:
        return len(self._places)

    def join(self, scene: Scene) -> bytes:
        values = [hole.fill(scene) for hole in self._holes]
        parts = self._fixed.copy()
        for index, number in self._places:
            parts[index] = values[number]
        return b"".join(parts)


def text_entity(subtype: str, pieces: Sequence[Piece]) -> Entity:
    """A text part. Plain 7bit where nothing differs per message and the lines are short, else quoted-printable."""
    pieces = _ended(pieces)
    kind = f'Content-Type: text/{subtype}; charset="utf-8"{EOL}'
    fixed = pieces[0] if len(pieces) == 1 else None
    if isinstance(fixed, str) and _is_short_ascii(fixed):
        return Entity((kind, f"Content-Transfer-Encoding: 7bit{EOL}"), (fixed.replace("\n", EOL).encode("ascii"),))
    body = tuple(
        _quoted_text(piece, followed=number + 1 < len(pieces)) if isinstance(piece, str) else Quoted(piece)
        for number, piece in enumerate(pieces)
    )
    return Entity((kind, f"Content-Transfer-Encoding: quoted-printable{EOL}"), body)


def multipart(subtype: str, parts: Sequence[Entity], boundary: str, extra: str = "") -> Entity:
    """The parts in one entity; a single part stays as it is."""
    if len(parts) == 1:
        return parts[0]
    eight_bit = any(part.eight_bit for part in parts)
    headers = [f'Content-Type: multipart/{subtype};{extra}{EOL} boundary="{boundary}"{EOL}']
    if eight_bit:
        headers.append(f"Content-Transfer-Encoding: 8bit{EOL}")
    body: list[BytePiece] = []
    for part in parts:
        body += [f"{EOL if body else ''}--{boundary}{EOL}".encode("ascii"), *part.pieces()]
    body.append(f"{EOL}--{boundary}--{EOL}".encode("ascii"))
    return Entity(tuple(headers), tuple(body), eight_bit)


def check_attachment(ref: AttachmentRef) -> None:
    """Raises CompositionError for what would break the header of the part."""
    complaint = check_media_type(ref.content_type)
    if complaint:
        raise CompositionError(f"the content type of an attachment {complaint}")
    complaint = check_line(ref.filename)
    if complaint:
        raise CompositionError(f"the file name of an attachment {complaint}")
    if ref.content_id and not _CONTENT_ID.fullmatch(ref.content_id):
        raise CompositionError("the content id of an attachment is no id: printable ASCII without spaces and brackets")
    if ref.content_location and not _CONTENT_ID.fullmatch(ref.content_location):
        raise CompositionError("the content location of an attachment is no address in printable ASCII")


def attachment(ref: AttachmentRef, data: bytes) -> Entity:
    """An attachment or inline image that passed `check_attachment`."""
    media_type, encoding, body = _transfer(ref.content_type, data)
    headers = [
        f"Content-Type: {media_type};{parameter('name', ref.filename)}{EOL}",
        f"Content-Transfer-Encoding: {encoding}{EOL}",
        f"Content-Disposition: {'inline' if ref.inline else 'attachment'};{parameter('filename', ref.filename)}{EOL}",
    ]
    if ref.content_id:
        headers.append(f"Content-ID: <{ref.content_id}>{EOL}")
    if ref.content_location:
        headers.append(f"Content-Location: {ref.content_location}{EOL}")
    return Entity(tuple(headers), (body,), encoding == "8bit")


class Boundaries:
    """Boundaries that follow from the seed, and occur in none of the contents.

    ``=_`` can stand neither in quoted-printable nor in base64, so only bodies that travel as they are need a look.
    """

    def __init__(self, seed: UUID, contents: Sequence[bytes]) -> None:
        self._seed = seed.bytes
        self._contents = contents
        self._number = 0

    def take(self) -> str:
        while True:
            self._number += 1
            digest = hashlib.sha256(self._seed + self._number.to_bytes(4, "big")).hexdigest()
            boundary = f"=_{digest[:32]}"
            if not any(boundary.encode() in content for content in self._contents):
                return boundary


def quoted_value(value: str) -> bytes:
    """A value for a hole in a quoted-printable text, followed by a soft break."""
    if len(value) <= _AN_ADDRESS and _PLAIN.fullmatch(value):
        plain = value.encode("ascii")
        if len(plain) <= _QP_WIDTH:
            return plain + _SOFT
        if b" " not in plain:  # an address; no line of words may end in a space
            return _SOFT.join([plain[at : at + _QP_WIDTH] for at in range(0, len(plain), _QP_WIDTH)]) + _SOFT
    return _quoted_run(value.replace("\r\n", "\n").replace("\r", "\n")) + _SOFT


def _quoted_text(text: str, *, followed: bool) -> bytes:
    """A fixed text; where a hole follows, it leaves off at the start of a line."""
    if not followed:
        return _quoted(text.encode("utf-8", "replace"))
    return _quoted_run(text) + (b"" if text.endswith("\n") else _SOFT)


def _quoted_run(text: str) -> bytes:
    """A text that does not end its line: the letter added while encoding leaves room for the soft break."""
    return _quoted(text.encode("utf-8", "replace") + b"x")[:-1]


def _quoted(data: bytes) -> bytes:
    return binascii.b2a_qp(data, istext=True).replace(b"\n", b"\r\n")


def _ended(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The text with a line end at its end, so that no soft break and no boundary is its last line."""
    last = pieces[-1] if pieces else ""
    if isinstance(last, str):
        return [*pieces[:-1], last if last.endswith("\n") else last + "\n"]
    return [*pieces, "\n"]


def _is_short_ascii(text: str) -> bool:
    return text.isascii() and "\0" not in text and all(len(line) <= 78 for line in text.split("\n"))


def _transfer(media_type: str, data: bytes) -> tuple[str, str, bytes]:
    """Media type, transfer encoding and encoded body of an attachment.

    A mail inside a mail must travel as it is (RFC 2046 section 5.2.1); one that cannot, and any other composite, is
    carried as a file.
    """
    kind = media_type.lower()
    if kind.startswith(("multipart/", "message/")):
        plain = _LINE_END.sub(b"\r\n", data)
        if kind.partition(";")[0].strip() == "message/rfc822" and _fits_lines(plain):
            return media_type, "7bit" if plain.isascii() else "8bit", plain
        media_type = "application/octet-stream"
    return media_type, "base64", _base64(data)


def _fits_lines(data: bytes) -> bool:
    return b"\0" not in data and all(len(line) <= LONGEST for line in data.split(b"\r\n"))


def _base64(data: bytes) -> bytes:
    lines = (base64.b64encode(data[start : start + 57]) for start in range(0, len(data), 57))
    return b"\r\n".join(lines) + b"\r\n"
