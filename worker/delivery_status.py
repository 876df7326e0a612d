"""Delivery status notifications (RFC 3464, and RFC 6533 for addresses outside ASCII), as servers really write them.

Known and read: groups that are not separated, a missing Action or Status, ``Status: 5.0.0`` beside a better code in the
diagnostic, addresses without a type, in brackets or as xtext, bodies in a transfer encoding.
"""

import re
from collections.abc import Iterator, Mapping

from models.event import EventType
from worker.mail_tree import Part, fields
from worker.notice import Notice, one_line, status_in

MEDIA_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})
MOST_RECIPIENTS = 1000
LONGEST = 512 * 1024
"""Characters read of one report."""

_ACTIONS: dict[str, EventType | None] = {
    "failed": EventType.BOUNCED,
    "delayed": EventType.DEFERRED,
    "delivered": EventType.DELIVERED,
    "relayed": None,  # it went on to a server that reports nothing
    "expanded": None,  # to a list, whose members have reports of their own
}
_PER_RECIPIENT = frozenset({"original-recipient", "final-recipient", "action", "status", "diagnostic-code"})
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UTF8_XTEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")

Group = dict[str, str]


def is_status(part: Part) -> bool:
    return part.media_type in MEDIA_TYPES


def read_status(part: Part) -> list[Notice]:
    """The notices in a delivery-status part: one for each recipient that something happened to."""
    reporter, groups = _groups(part.text[:LONGEST])
    notices = (_notice(group, reporter) for group in groups[:MOST_RECIPIENTS])
    return [notice for notice in notices if notice is not None]


def _groups(text: str) -> tuple[str | None, list[Group]]:
    """The reporting server, and the fields of each recipient."""
    reporter: str | None = None
    groups: list[Group] = []
    for block in re.split(r"\n[ \t\r]*\n", text):
        current: Group = {}
        for name, value in fields(block):
            if name == "reporting-mta":
                reporter = value.partition(";")[2].strip() or value.strip()
            if name in current and name in ("final-recipient", "original-recipient"):
                groups.append(current)
                current = {}
            current.setdefault(name, value)
        if current.keys() & _PER_RECIPIENT:
            groups.append(current)
    return reporter, groups


def _notice(group: Mapping[str, str], reporter: str | None) -> Notice | None:
    diagnostic = group.get("diagnostic-code", "")
    status = status_in(f"{group.get('status', '')} ") or status_in(diagnostic)
    if status is None or status.endswith(".0.0"):
        status = status_in(diagnostic) or status
    type_ = _type(group.get("action", ""), status)
    recipients = tuple(dict.fromkeys(_addresses(group)))
    if type_ is None or not (recipients or status):
        return None
    reason = one_line(diagnostic.partition(";")[2] or diagnostic)
    return Notice(type=type_, recipients=recipients, status=status, reason=reason, reporter=reporter)


def _type(action: str, status: str | None) -> EventType | None:
    word = re.match(r"\s*([a-z]+)", action.lower())
    if word and word[1] in _ACTIONS:
        return _ACTIONS[word[1]]
    return {"5": EventType.BOUNCED, "4": EventType.DEFERRED}.get((status or "")[:1])


def _addresses(group: Mapping[str, str]) -> Iterator[str]:
    """Spellings of the recipient: as we gave it, as xtext, as the last server knew it."""
    for name in ("original-recipient", "final-recipient", "x-actual-recipient"):
        kind, semicolon, rest = group.get(name, "").partition(";")
        address = (rest if semicolon else kind).strip().strip("<>").strip()
        if "@" not in address:
            continue
        yield address
        if _UTF8_XTEXT.search(address):
            yield _UTF8_XTEXT.sub(_character, address)
        if _XTEXT.search(address):
            yield _XTEXT.sub(lambda found: chr(int(found[1], 16)), address)


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else "\ufffd"
