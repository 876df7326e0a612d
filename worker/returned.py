"""Mail that came in and is a report about mail of ours: bounces, delays, complaints. Read, and matched to the mail.

The mail is found by the return path that only it had, else by its Message-ID in what came back, else by who did not get
it and its subject. A report that fits no mail of the workspace is a mail like any other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from models.event import EventType
from providers.base import ProviderEvent
from worker.bounce_text import comes_from_a_system, read_prose
from worker.delivery_status import is_status, read_status
from worker.feedback import read_feedback
from worker.mail_events import OURS
from worker.mail_tree import Part
from worker.mailers import OpenMailer
from worker.notice import Notice
from worker.return_path import Kind, ReturnPaths
from worker.storable import text as storable_text

SAME_MAIL_DAYS = 14
"""A mail that is found by recipient and subject alone is not older."""
MOST_NAMES = 100

_RECEIVERS = ("to", "cc", "delivered-to", "x-original-to", "original-recipient", "envelope-to", "x-envelope-to")
_SENT_BY = ("return-path", "x-envelope-from", "original-mail-from")
_ID = re.compile(r"<[^<>\s]{1,990}>")
_ID_LINE = re.compile(r"^[>\s]*(?:original-)?message-id:\s*(<[^<>\s]{1,990}>)", re.IGNORECASE | re.MULTILINE)
_SUBJECT_LINE = re.compile(r"^[>\s]*subject:[ \t]*([^\r\n]{1,998})$", re.IGNORECASE | re.MULTILINE)
_SEARCHED = 256 * 1024
"""Characters of each text part that are searched for a Message-ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A report, and by what the mail it is about can be known."""

    notices: tuple[Notice, ...]
    message_ids: tuple[UUID, ...]
    """From return paths and from Message-IDs of ours, the surest first."""
    names: tuple[str, ...] = field(repr=False)
    """Message-IDs, with brackets."""
    subject: str | None = field(repr=False)
    """Of the mail that came back."""


_BY_ID = text("select id, recipients from message where id = any(:ids) and workspace_id = :workspace_id")
# The condition on the Message-ID is that of the partial index.
_BY_NAME = text("""
    select message_id as id, recipients from email_log
    where workspace_id = :workspace_id and rfc_message_id = any(:names) and rfc_message_id !~ '^<postroad[0-9a-f]{8}-'
    order by message_id desc
""")
_BY_RECIPIENT = text("""
    select message_id as id, recipients from email_log
    where workspace_id = :workspace_id and lower(recipient_email) = any(:recipients) and mailer_id = :mailer_id
          and (cast(:subject as text) is null or subject = :subject)
          and finished_at > clock_timestamp() - make_interval(days => :days)
    order by message_id desc limit 2
""")


def read_returned(mail: Part, paths: ReturnPaths, sender: str | None, recipient: str | None) -> Returned | None:
    """The report that a mail is, or None where it is none.

    sender, recipient: of the envelope; the sender is empty for ``<>``; None where they are not known.
    """
    notices = _notices(mail, sender)
    if not notices:
        return None
    copies = [part for part in mail.walk() if part is not mail]
    tokens = _tokens(mail, copies, paths, recipient)
    names = _names(mail, copies)
    spelled = [UUID(match[1]) for written in [*names, *_texts(mail, copies)] for match in OURS.finditer(written)]
    return Returned(
        notices=tuple(notices),
        message_ids=tuple(dict.fromkeys([*tokens, *spelled[:MOST_NAMES]])),
        names=tuple(storable_text(name) for name in names),
        subject=_subject(copies),
    )


def returned_events(connection: Connection, mailer: OpenMailer, found: Returned, at: datetime) -> list[ProviderEvent]:
    """What the report says of mail of the workspace, as events to be applied; empty where it knows no such mail."""
    row = _mail(connection, mailer, found)
    if row is None:
        return []
    told: dict[str, ProviderEvent] = {}
    for recipient, notice in _recipients(row.recipients, found.notices):
        event = _event(row.id, recipient, notice, at)
        told.setdefault(event.natural_key, event)
    return list(told.values())


def _notices(mail: Part, sender: str | None) -> Sequence[Notice]:
    feedback = read_feedback(mail)
    if feedback is not None:
        return feedback
    of_system = comes_from_a_system(mail, sender)
    if of_system or mail.media_type == "multipart/report":
        statuses = [part for part in mail.walk() if is_status(part)]
        if statuses:
            return [notice for part in statuses for notice in read_status(part)]
    return read_prose(mail) if of_system else ()


def _tokens(mail: Part, copies: Sequence[Part], paths: ReturnPaths, recipient: str | None) -> list[UUID]:
    """Messages whose return path it came to, or names as the return path of what it is about."""
    addresses = [recipient or ""]
    addresses += [address for name in _RECEIVERS for _, address in mail.addresses(name)]
    addresses += [address for part in copies for name in _SENT_BY for _, address in part.addresses(name)]
    for part in copies:
        if part.media_type == "message/feedback-report":
            addresses += re.findall(r"[\w.+=-]{1,64}@[\w.-]{1,255}", part.text[:_SEARCHED])
    read = (paths.read(address) for address in addresses)
    return [each.id for each in read if each is not None and each.kind is not Kind.INBOX]


def _names(mail: Part, copies: Sequence[Part]) -> list[str]:
    """Message-IDs that the report gives, those of the copy of the mail first."""
    found = [name for part in copies for value in part.values("message-id") for name in _ID.findall(value)]
    found += [name for written in _texts(mail, copies) for name in _ID_LINE.findall(written)]
    for name in ("x-original-message-id", "in-reply-to", "references"):
        found += _ID.findall(mail.header(name))
    return list(dict.fromkeys(found))[:MOST_NAMES]


def _texts(mail: Part, copies: Sequence[Part]) -> list[str]:
    """What can be read in the report, part by part."""
    return [part.text[:_SEARCHED] for part in (mail, *copies) if not part.parts and _readable(part)]


def _readable(part: Part) -> bool:
    return part.media_type.startswith(("text/", "message/"))


def _subject(copies: Sequence[Part]) -> str | None:
    """The subject of the mail that came back, where a copy or its headers are there."""
    for part in copies:
        if subject := part.header("subject"):
            return storable_text(" ".join(subject.split()), 998)
        if part.media_type in ("text/rfc822-headers", "message/global-headers"):
            line = _SUBJECT_LINE.search(part.text[:_SEARCHED])
            return storable_text(" ".join(line[1].split()), 998) if line else None
    return None


def _mail(connection: Connection, mailer: OpenMailer, found: Returned) -> Any | None:
    mine = {"workspace_id": mailer.workspace_id, "mailer_id": mailer.id}
    if found.message_ids:
        rows = {row.id: row for row in connection.execute(_BY_ID, mine | {"ids": list(found.message_ids)})}
        if row := next((rows[id_] for id_ in found.message_ids if id_ in rows), None):
            return row
    if found.names:
        rows_by_name = connection.execute(_BY_NAME, mine | {"names": list(found.names)}).all()
        if rows_by_name:
            return rows_by_name[0]
    recipients = [storable_text(each.lower(), 320) for notice in found.notices for each in notice.recipients]
    if not recipients:
        return None
    wanted = {"recipients": recipients, "subject": found.subject, "days": SAME_MAIL_DAYS}
    rows_to_them = connection.execute(_BY_RECIPIENT, mine | wanted).all()
    certain = len(rows_to_them) == 1 or (rows_to_them and found.subject is not None)
    return rows_to_them[0] if certain else None


def _recipients(known: Sequence[str], notices: Sequence[Notice]) -> list[tuple[str, Notice]]:
    """Each notice with the recipient it is about, as the mail names it.

    A server further on may know the recipient by another name: of a mail to one, that one is meant.
    """
    spelled = {address.casefold(): address for address in known}
    matched = []
    for notice in notices:
        keys = (spelled.get(each.casefold()) for each in notice.recipients)
        recipient = next((key for key in keys if key is not None), None)
        if recipient is not None:
            matched.append((recipient, notice))
    return matched or ([(known[0], notices[0])] if len(known) == 1 else [])


def _event(message_id: UUID, recipient: str, notice: Notice, at: datetime) -> ProviderEvent:
    data: dict[str, Any] = {"source": "mail", "status": notice.status, "reason": notice.reason}
    data |= {"reporter": notice.reporter, "bounce_class": notice.bounce_class}
    if notice.type is EventType.DELIVERED:
        data["evidence"] = "delivery status notification"
    kind = ":".join(filter(None, (notice.type, notice.bounce_class)))
    return ProviderEvent(
        type=notice.type,
        at=at,
        # One for each recipient and kind, however many servers on the way report it, and by whichever way it comes.
        natural_key=f"mail:{message_id}:{kind}:{recipient.lower()}",
        ref=message_id.hex,
        recipient=recipient,
        data={name: value for name, value in data.items() if value},
    )
