"""Where the local inbox keeps its mail: segments of two append-only files; one process writes while others read.

    DIR/00000003.mail    the mails as they came, one after the other
    DIR/00000003.index   one JSON line for each: where it lies, and what a list shows

The oldest segment is dropped when a new one is begun; about ``KEEP`` mails stay.
"""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

SEGMENT = 2_000
"""Mails in one segment."""
KEEP = 20_000
"""The newest mails that are always there; up to one segment more may be."""

_HEADERS = [
    re.compile(rb"^" + name + rb":[ \t]*((?:.*\r?\n[ \t]+)*.*?)\r?$", re.IGNORECASE | re.MULTILINE)
    for name in (b"Subject", b"Message-ID", b"X-Postroad-Ref")
]

Mail = tuple[str, list[str], bytes]
"""Envelope sender, envelope recipients, and the mail with its headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One mail as a list shows it."""

    number: int
    """Counts the mails from 1; never used twice."""
    received_at: float
    """Seconds since the epoch."""
    envelope_from: str
    recipients: tuple[str, ...]
    subject: str
    """As it stands in the header, still encoded."""
    message_id: str
    ref: str
    """The X-Postroad-Ref header."""
    size: int
    segment: int
    offset: int
    """Where it begins in its segment."""

    def matches(self, text: str) -> bool:
        """Whether ``text``, in lower case, is part of an address, the subject or an id."""
        return any(
            text in value.lower() for value in (*self.recipients, self.subject, self.message_id, self.envelope_from)
        )


class InboxWriter:
    """Appends mails. One writer at a time."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        last = _last_entry(directory)
        self._number = last.number if last else 0
        self._open_segment(_segments(directory)[-1] + 1 if last else 1)

    def append(self, mails: Sequence[Mail]) -> None:
        """Stores them in two writes; when it returns, readers see them."""
        now, lines, offset = time.time(), [], self._mail.tell()
        for mail in mails:
            self._number += 1
            lines.append(_index_line(self._number, now, mail, offset))
            offset += len(mail[2])
        self._mail.write(b"".join(mail for _, _, mail in mails))
        self._mail.flush()
        self._index.write(b"".join(lines))
        self._index.flush()
        self._count += len(mails)
        if self._count >= SEGMENT:
            self.close()
            self._open_segment(self._segment + 1)

    def close(self) -> None:
        self._mail.close()
        self._index.close()

    def _open_segment(self, segment: int) -> None:
        self._segment, self._count = segment, 0
        self._mail: BinaryIO = _path(self._directory, segment, "mail").open("ab")
        self._index: BinaryIO = _path(self._directory, segment, "index").open("ab")
        self._drop_old()

    def _drop_old(self) -> None:
        """Counts what the segments hold: after restarts some are far from full."""
        kept = 0
        for segment in reversed(_segments(self._directory)[:-1]):
            if kept >= KEEP:
                _path(self._directory, segment, "index").unlink(missing_ok=True)
                _path(self._directory, segment, "mail").unlink(missing_ok=True)
            else:
                kept += _path(self._directory, segment, "index").read_bytes().count(b"\n")


class InboxReader:
    """Reads what a writer, in this process or another, has stored. Threads may share one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[int, tuple[int, list[Entry]]] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """The mails, newest first."""
        with self._lock:
            segments = _segments(self._directory)
            self._read = {segment: self._refresh(segment) for segment in segments}
            return [entry for segment in reversed(segments) for entry in reversed(self._read[segment][1])]

    def find(self, number: int) -> tuple[Entry, bytes] | None:
        """A mail and its list entry; None if it never came or is no longer kept."""
        entry = next((entry for entry in self.entries() if entry.number == number), None)
        if entry is None:
            return None
        try:
            with _path(self._directory, entry.segment, "mail").open("rb") as file:
                file.seek(entry.offset)
                return entry, file.read(entry.size)
        except FileNotFoundError:  # dropped a moment ago
            return None

    def _refresh(self, segment: int) -> tuple[int, list[Entry]]:
        """Reads the lines that were added since; a line still being written is left for the next time."""
        position, entries = self._read.get(segment, (0, []))
        try:
            with _path(self._directory, segment, "index").open("rb") as file:
                file.seek(position)
                added = file.read()
        except FileNotFoundError:  # dropped a moment ago
            return 0, []
        added = added[: added.rfind(b"\n") + 1]
        entries.extend(_entry(segment, line) for line in added.splitlines())
        return position + len(added), entries


def total(entries: Sequence[Entry]) -> int:
    """How many mails ever came, those dropped since included, given what `InboxReader.entries` returned."""
    return entries[0].number if entries else 0


def _path(directory: Path, segment: int, suffix: str) -> Path:
    return directory / f"{segment:08d}.{suffix}"


def _segments(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob("*.index"))


def _last_entry(directory: Path) -> Entry | None:
    return next(iter(InboxReader(directory).entries()), None)


def _index_line(number: int, at: float, mail: Mail, offset: int) -> bytes:
    envelope_from, recipients, raw = mail
    end = raw.find(b"\r\n\r\n")
    head = raw if end < 0 else raw[: end + 2]
    subject, message_id, ref = (_header(head, rule) for rule in _HEADERS)
    return orjson.dumps(
        [number, at, envelope_from, recipients, subject, message_id, ref, len(raw), offset],
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _header(head: bytes, rule: re.Pattern[bytes]) -> str:
    found = rule.search(head)
    return found[1].decode("utf-8", "replace") if found else ""


def _entry(segment: int, line: bytes) -> Entry:
    values: list[Any] = orjson.loads(line)
    number, at, envelope_from, recipients, subject, message_id, ref, size, offset = values
    return Entry(
        number=number, received_at=at, envelope_from=envelope_from, recipients=tuple(recipients), subject=subject,
        message_id=message_id, ref=ref, size=size, segment=segment, offset=offset,
    )  # fmt: skip
