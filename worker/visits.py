"""Opens and clicks of our own tracking links, put into the event log."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from models.event import EventType
from worker.events import NewEvent, append_events
from worker.machines import Visitor
from worker.timeline import KINDS, Happening, note

TOO_SOON: dict[EventType, timedelta] = {
    EventType.OPENED: timedelta(seconds=2),
    EventType.CLICKED: timedelta(seconds=5),
}
"""Nobody opens or clicks a mail so soon after it was sent; gateways that look into mails do."""

SCAN_LINKS = 3
SCAN_WINDOW = timedelta(seconds=2)
"""Whoever follows so many different links of one mail in so short a time follows them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request to a tracking link whose token was good."""

    type: EventType
    """``OPENED`` or ``CLICKED``."""
    workspace_id: UUID
    message_id: UUID
    at: datetime
    visitor: Visitor
    url: str | None = field(default=None, repr=False)

    @property
    def sameness(self) -> tuple[Any, ...]:
        """What repeats of one and the same visit share."""
        return (self.type, self.message_id, self.url, self.visitor)


_MAILS = text("""
    select id, workspace_id, submission_id, state, recipients, finished_at from message where id = any(:ids)
""")


def append_visits(connection: Connection, visits: Sequence[Visit], before: Iterable[Visit] = ()) -> set[UUID]:
    """Appends events, and activities for what people did. The caller commits.

    before: earlier visits that are on record already, for telling whether somebody follows every link.
    Returns the endpoints that have something to deliver now. Visits of mails that are no longer there are dropped.
    """
    scans = scanned([*before, *visits])
    ids = sorted({visit.message_id for visit in visits})
    mails = {row.id: row for row in connection.execute(_MAILS, {"ids": ids})}
    events = []
    for visit in visits:
        mail = mails.get(visit.message_id)
        if mail is not None and mail.workspace_id == visit.workspace_id:
            events.append(_event(visit, mail, _speaks_for_a_machine(visit, mail, scans)))
    endpoints = append_events(connection, events)
    note(connection, [_happening(event) for event in events if not event.data["is_bot"]])
    return endpoints


def scanned(visits: Iterable[Visit]) -> set[tuple[UUID, datetime]]:
    """Message and time of the clicks that are part of a walk through the mail's links."""
    clicks: defaultdict[UUID, list[Visit]] = defaultdict(list)
    for visit in visits:
        if visit.type is EventType.CLICKED:
            clicks[visit.message_id].append(visit)
    found = set()
    for message_id, group in clicks.items():
        group.sort(key=lambda visit: visit.at)
        start = 0
        for end, last in enumerate(group):
            while last.at - group[start].at > SCAN_WINDOW:
                start += 1
            if len({visit.url for visit in group[start : end + 1]}) >= SCAN_LINKS:
                found |= {(message_id, visit.at) for visit in group[start : end + 1]}
    return found


def _speaks_for_a_machine(visit: Visit, mail: Any, scans: set[tuple[UUID, datetime]]) -> str | None:
    if mail.finished_at is None or visit.at - mail.finished_at < TOO_SOON[visit.type]:
        return "too_soon_after_sending"
    return "many_links_at_once" if (visit.message_id, visit.at) in scans else None


def _event(visit: Visit, mail: Any, reason: str | None) -> NewEvent:
    data = visit.visitor.data(reason)
    if visit.url is not None:
        data["url"] = visit.url
    return NewEvent(
        workspace_id=visit.workspace_id,
        type=visit.type,
        at=visit.at,
        message_id=visit.message_id,
        submission_id=mail.submission_id,
        state=mail.state,
        # Which of several it was, a shared mail's link does not tell.
        recipients=tuple(mail.recipients) if len(mail.recipients) == 1 else (),
        data=data,
    )


def _happening(event: NewEvent) -> Happening:
    assert event.message_id is not None  # noqa: S101 -- made from a mail
    detail = {"url": event.data["url"]} if "url" in event.data else {}
    return Happening(message_id=event.message_id, kind=KINDS[event.type], at=event.at, detail=detail)
