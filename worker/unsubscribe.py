"""What a recipient's own wish does: to get no more mail, to get it again, or not to be watched as they read it."""

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from models.event import EventType
from worker.events import NewEvent, append_events
from worker.suppression import NewSuppression, lift_unsubscribe, suppress
from worker.tracking import Unsubscribed
from worker.wishes import EVERYTHING, TRACKING

_MAIL = text("""
    select w.id as workspace_id, m.submission_id, m.state, coalesce(m.recipients, '{}') as recipients
    from workspace w left join message m on m.id = :message_id and m.workspace_id = w.id
    where w.id = :workspace_id
""")


class Method(enum.StrEnum):
    """How somebody unsubscribed, as the event tells it."""

    ONE_CLICK = "one_click"
    """RFC 8058."""
    PAGE = "page"


def unsubscribe(
    connection: Connection, link: Unsubscribed, address: str | None, *, at: datetime, method: Method, list_id: str
) -> set[UUID]:
    """Puts the recipient on the suppression list, with an event the first time. The caller commits.

    address: what was typed in; counts only where the link names nobody, and only if the mail went there.
    list_id: that of the link, or `EVERYTHING`. Returns the endpoints that have something to deliver now.
    """
    mail = connection.execute(_MAIL, {"message_id": link.message_id, "workspace_id": link.workspace}).one_or_none()
    recipient = None if mail is None else _recipient(link, address, mail.recipients)
    if mail is None or recipient is None:
        return set()
    wish = NewSuppression(
        workspace_id=link.workspace,
        address=recipient,
        list_id=list_id,
        reason="unsubscribe",
        message_id=link.message_id,
    )
    if not suppress(connection, [wish]):
        return set()
    event = NewEvent(
        workspace_id=link.workspace,
        type=EventType.UNSUBSCRIBED,
        at=at,
        message_id=link.message_id,
        submission_id=mail.submission_id,
        state=mail.state,
        recipients=(recipient,),
        data={"list_id": list_id, "method": method.value},
    )
    return append_events(connection, [event])


def untrack(connection: Connection, link: Unsubscribed, address: str | None) -> None:
    """Has the recipient get mail without pixel and tracked links from now on. The caller commits."""
    mail = connection.execute(_MAIL, {"message_id": link.message_id, "workspace_id": link.workspace}).one_or_none()
    recipient = None if mail is None else _recipient(link, address, mail.recipients)
    if recipient is not None:
        wish = NewSuppression(
            workspace_id=link.workspace,
            address=recipient,
            list_id=TRACKING,
            reason="unsubscribe",
            message_id=link.message_id,
        )
        suppress(connection, [wish])


def resubscribe(connection: Connection, link: Unsubscribed, address: str | None) -> None:
    """Has the recipient get these mails again, unless a bounce, a complaint or a person stopped them.

    So it takes back the wish to get no mail at all, too. The caller commits.
    """
    mail = connection.execute(_MAIL, {"message_id": link.message_id, "workspace_id": link.workspace}).one_or_none()
    recipient = None if mail is None else _recipient(link, address, mail.recipients)
    if recipient is not None:
        for list_id in {link.list_id, EVERYTHING}:
            lift_unsubscribe(connection, link.workspace, recipient, list_id)


def _recipient(link: Unsubscribed, address: str | None, recipients: list[str]) -> str | None:
    if link.recipient:
        return link.recipient
    key = (address or "").strip().casefold()
    return next((recipient for recipient in recipients if recipient.casefold() == key), None)
