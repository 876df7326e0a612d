"""Complaints that a mailbox provider passes on (feedback loops): ARF (RFC 5965), and the forms before and beside it."""

import re
from collections.abc import Mapping

from models.event import EventType
from worker.mail_tree import Part, fields
from worker.notice import Notice, one_line

_TYPES: dict[str, EventType] = {
    "abuse": EventType.COMPLAINED,
    "fraud": EventType.COMPLAINED,
    "miscategorized": EventType.COMPLAINED,
    "other": EventType.COMPLAINED,
    "opt-out": EventType.UNSUBSCRIBED,
    "opt-out-list": EventType.UNSUBSCRIBED,
}
"""``not-spam``, ``virus``, ``auth-failure`` and ``dmarc`` are no complaint of the recipient."""

_JMRP = "x-hmxmroriginalrecipient"
"""In the mail that Outlook.com's programme hands back; its reports have no machine-readable part."""
_LONGEST = 64 * 1024


def read_feedback(mail: Part) -> list[Notice] | None:
    """The complaints in a report; empty for one of another kind, None where the mail is no feedback report."""
    for part in mail.walk():
        if part.media_type == "message/feedback-report":
            return _read(part)
    return _outlook(mail)


def _read(part: Part) -> list[Notice]:
    first: dict[str, str] = {}
    recipients = []
    for name, value in fields(re.sub(r"\n[ \t\r]*\n", "\n", part.text[:_LONGEST])):
        first.setdefault(name, value)
        if name == "original-rcpt-to" and "@" in value:
            recipients.append(value.strip().strip("<>").strip())
    type_ = _TYPES.get(first.get("feedback-type", "abuse").partition(";")[0].strip().lower())
    if type_ is None:
        return []
    return [_notice(type_, recipient, first) for recipient in dict.fromkeys(recipients)] or [_notice(type_, "", first)]


def _notice(type_: EventType, recipient: str, report: Mapping[str, str]) -> Notice:
    said = one_line(f"feedback-type {report.get('feedback-type', 'abuse')}")
    reporter = report.get("reporting-mta", "").partition(";")[2].strip() or report.get("source-domain")
    return Notice(type=type_, recipients=(recipient,) if recipient else (), reason=said, reporter=reporter)


def _outlook(mail: Part) -> list[Notice] | None:
    sender = next((address for _, address in mail.addresses("from")), "")
    if sender.lower() != "staff@hotmail.com":
        return None
    for part in mail.walk():
        if recipient := part.header(_JMRP).strip().strip("<>"):
            return [Notice(type=EventType.COMPLAINED, recipients=(recipient,), reason="junk mail report")]
    return None
