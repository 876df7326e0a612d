"""What a report says of one recipient's mail, and what its status code means."""

import re
from dataclasses import dataclass, field

from models.event import EventType

LONGEST_REASON = 500

_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_REPLY = re.compile(r"(?<![\d.#-])([45]\d\d)(?=[\s-])")

_NOT_THE_ADDRESS = re.compile(r"5\.(?:2\.[2-4]|3\.\d+|4\.[1-35-9]|4\.\d\d+|5\.\d+|6\.\d+|7\.\d+)$")
"""RFC 3463: permanent for this mail, and no word on whether the address is good: a full mailbox, a mail too large, no
route now, content or sender refused."""
_NO_SUCH_ADDRESS = re.compile(
    r"user unknown|unknown user|does(?:n't| not) have an? [^.]{0,40}account"
    r"|no such (?:user|recipient|mailbox|address)|does(?:n't| not) exist|mailbox not found"
    r"|invalid (?:recipient|mailbox|address)|recipient (?:address )?rejected: (?:user|unknown)|unknown recipient"
    r"|address (?:not found|rejected|unknown)|unrouteable address|account (?:is )?(?:disabled|deactivated)"
    r"|no mailbox here|not our customer|host (?:or domain name )?(?:not found|unknown)|domain .{0,60}not found"
    r"|recipientnotfound|not listed in|bad destination",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"quota|mailbox (?:is )?full|insufficient|spam|blocked|blacklist|policy|too large|timed out", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One recipient's part of a report."""

    type: EventType
    """``bounced``, ``deferred``, ``delivered``, ``complained`` or ``unsubscribed``."""
    recipients: tuple[str, ...] = field(default=(), repr=False)
    """Spellings of the one recipient, the one we most likely used first; empty where the report does not say."""
    status: str | None = None
    """The enhanced status code (RFC 3463)."""
    reason: str = field(default="", repr=False)
    """What the other side wrote, on one line."""
    reporter: str | None = None
    """The server that reports."""

    @property
    def bounce_class(self) -> str | None:
        """``hard`` if the address is no good, ``soft`` for all else that came back; None where nothing did."""
        if self.type is not EventType.BOUNCED:
            return None
        return "hard" if is_hard(self.status, self.reason) else "soft"


def is_hard(status: str | None, reason: str) -> bool:
    """Whether the address itself is refused for good, so that no further mail to it makes sense."""
    if status is None or status.endswith(".0.0"):
        said = _STATUS.search(reason)
        status = said[0] if said and not said[0].endswith(".0.0") else status
    if status is not None and status[0] != "5":
        return False
    if status is not None and not status.endswith(".0.0"):
        return _NOT_THE_ADDRESS.match(status) is None or (
            status.startswith(("5.4.", "5.5.", "5.7.")) and bool(_NO_SUCH_ADDRESS.search(reason))
        )
    return bool(_NO_SUCH_ADDRESS.search(reason)) and not _PASSING.search(reason)


def status_in(text: str) -> str | None:
    """The enhanced status code in a text, else ``C.0.0`` after its reply code."""
    if found := _STATUS.search(text):
        return found[0]
    reply = _REPLY.search(text)
    return f"{reply[1][0]}.0.0" if reply else None


def one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_REASON]
