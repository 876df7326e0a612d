"""Reading a mailbox: begun with its connection where the consent allows it, and taken up at once after a reconnect."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session

from api_shim.connecting import short_scopes
from models.mailbox import MailboxWatch
from models.mailer import Mailer

READABLE = {
    "gmail": frozenset({"mail.google.com", "gmail.modify", "gmail.readonly"}),
    "microsoft365": frozenset({"mail.read", "mail.readwrite"}),
}
"""Provider -> scopes one of which lets us read the mailbox."""


def may_read(provider: str, granted: frozenset[str]) -> bool:
    """Whether a consent allows reading; also where its answer named no scopes: then what was asked for was given."""
    enough = READABLE.get(provider, frozenset())
    return bool(enough) and (not granted or not enough.isdisjoint(short_scopes(granted)))


def read(session: Session, mailer: Mailer) -> MailboxWatch:
    """The watch of a locked mailer, made if there is none, with a look due now. The caller commits."""
    row = session.get(MailboxWatch, mailer.id)
    if row is None:
        now = datetime.now(UTC)
        row = MailboxWatch(mailer_id=mailer.id, workspace_id=mailer.workspace_id, tries=0, created_at=now)
        session.add(row)
    row.renew_at = row.due_at = datetime.now(UTC)
    return row


def look_again(session: Session, workspace_id: UUID, mailer_id: UUID) -> None:
    """Has the mailbox looked into at once if it is read: what kept us from it is over. The caller commits."""
    mine = (MailboxWatch.mailer_id == mailer_id, MailboxWatch.workspace_id == workspace_id)
    now = datetime.now(UTC)
    session.execute(update(MailboxWatch).where(*mine).values(due_at=now, renew_at=now, tries=0))
