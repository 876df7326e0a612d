"""The rows behind mail that lies at a provider: watches of mailboxes, and mails to be picked up. SQL only.

Every function takes the connection of a transaction that its caller ends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from models.base import uuid7
from providers.base import ProviderEvent
from providers.inbox import SOMEWHERE, Watch
from worker import storable
from worker.mailers import OpenMailer

LONGEST_LOCATOR = 2000

_TAKE_WATCH = text("""
    update mailbox_watch set due_at = clock_timestamp() + :lease
    where mailer_id = :mailer and workspace_id = :workspace and due_at <= clock_timestamp()
    returning topic, subscription, expires_at, cursor, tries, clock_timestamp() as started_at,
              coalesce(renew_at <= clock_timestamp(), false) as renew
""")
_RENEWED = text("""
    update mailbox_watch set subscription = :subscription, expires_at = :expires_at, renew_at = :renew_at
    where mailer_id = :mailer and workspace_id = :workspace
""")
# A notice that came in the meantime asks for another look at once.
_LOOKED = text("""
    update mailbox_watch set
        cursor = coalesce(:cursor, cursor), error = :error,
        tries = case when :failed then tries + 1 else 0 end,
        looked_at = case when :failed then looked_at else clock_timestamp() end,
        due_at = case when noticed_at > :started_at and not :failed then clock_timestamp()
                      else clock_timestamp() + make_interval(secs => :wait) end
    where mailer_id = :mailer and workspace_id = :workspace
""")
_WATCHED = text("select exists (select from mailbox_watch where mailer_id = :mailer and workspace_id = :workspace)")
_RING = text("""
    update mailbox_watch set due_at = clock_timestamp(), noticed_at = clock_timestamp(),
        renew_at = case when :renew then clock_timestamp() else renew_at end
    where mailer_id = :mailer and workspace_id = :workspace
""")

_FIND = text("""
    insert into pickup (id, workspace_id, mailer_id, locator, due_at)
    select id, :workspace, :mailer, locator, clock_timestamp()
    from unnest(cast(:ids as uuid[]), cast(:locators as text[])) as found (id, locator)
    on conflict (mailer_id, locator) do nothing
""")
_TAKE = text("""
    with due as (
        select id from pickup
        where mailer_id = :mailer and workspace_id = :workspace and due_at <= clock_timestamp()
        order by due_at, id limit :limit for update skip locked
    )
    update pickup p set due_at = clock_timestamp() + :lease from due where p.id = due.id
    returning p.id, p.locator, p.tries, p.created_at
""")
_END = text("update pickup set due_at = null, error = :error where id = :id and workspace_id = :workspace")
_PUT_OFF = text("""
    update pickup set due_at = clock_timestamp() + make_interval(secs => :wait), tries = tries + :tried, error = :error
    where id = any(:ids) and workspace_id = :workspace
""")
_REST = (
    text("""
        update mailbox_watch set due_at = clock_timestamp() + make_interval(secs => :wait)
        where mailer_id = :mailer and due_at <= clock_timestamp()
    """),
    text("""
        update pickup set due_at = clock_timestamp() + make_interval(secs => :wait)
        where mailer_id = :mailer and due_at <= clock_timestamp()
    """),
)
_FORGET = (
    text("delete from mailbox_watch where mailer_id = :mailer"),
    text("delete from pickup where mailer_id = :mailer"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What became of a look into a mailbox."""

    started_at: datetime
    wait: float
    """Seconds until the next one."""
    cursor: str | None = None
    """None leaves it where it was."""
    failed: bool = False
    error: str | None = None
    """A look may succeed although something is amiss."""


def _mine(mailer: OpenMailer, **more: Any) -> dict[str, Any]:
    return {"mailer": mailer.id, "workspace": mailer.workspace_id, **more}


def take_notices(db: Connection, mailer: OpenMailer, notices: Sequence[ProviderEvent]) -> None:
    """Writes down what a provider says there is to be had; of a mailbox that nobody watches it is nothing to us."""
    inbox = mailer.provider.inbox()
    if inbox is None or (inbox.watched and not db.execute(_WATCHED, _mine(mailer)).scalar_one()):
        return
    find(db, mailer, [notice.locator for notice in notices if notice.locator])
    somewhere = [notice for notice in notices if notice.locator == SOMEWHERE]
    if somewhere:
        db.execute(_RING, _mine(mailer, renew=any(notice.data.get("renew") for notice in somewhere)))


def find(db: Connection, mailer: OpenMailer, locators: Iterable[str]) -> None:
    """Mails to be picked up. One that was found before, even if it was picked up since, is not found again."""
    known = list(dict.fromkeys(storable.text(locator, LONGEST_LOCATOR) for locator in locators))
    if known:
        db.execute(_FIND, _mine(mailer, ids=[uuid7() for _ in known], locators=known))


def take_watch(db: Connection, mailer: OpenMailer, lease: timedelta) -> Row[Any] | None:
    """The mailer's watch if it is due; nobody else takes it during the lease."""
    return db.execute(_TAKE_WATCH, _mine(mailer, lease=lease)).one_or_none()


def renewed(db: Connection, mailer: OpenMailer, watch: Watch, renew_at: datetime | None) -> None:
    values = {"subscription": watch.subscription, "expires_at": watch.expires_at, "renew_at": renew_at}
    db.execute(_RENEWED, _mine(mailer, **values))


def looked(db: Connection, mailer: OpenMailer, look: Look) -> None:
    values = {"started_at": look.started_at, "wait": look.wait, "cursor": look.cursor, "error": look.error}
    db.execute(_LOOKED, _mine(mailer, failed=look.failed, **values))


def take(db: Connection, mailer: OpenMailer, limit: int, lease: timedelta) -> Sequence[Row[Any]]:
    """Mails whose time it is, with ``id``, ``locator``, ``tries``, ``created_at``; nobody else's during the lease."""
    return db.execute(_TAKE, _mine(mailer, limit=limit, lease=lease)).all()


def end(db: Connection, mailer: OpenMailer, pickup: UUID, error: str | None = None) -> None:
    """Picked up, or given up for the reason named."""
    db.execute(_END, _mine(mailer, id=pickup, error=error))


def put_off(db: Connection, mailer: OpenMailer, pickups: Sequence[UUID], wait: float, error: str | None) -> None:
    """Another try in ``wait`` seconds. Without an error none was made."""
    if pickups:
        db.execute(_PUT_OFF, _mine(mailer, ids=list(pickups), wait=wait, tried=int(error is not None), error=error))


def rest(db: Connection, mailer_id: UUID, wait: float) -> None:
    """Nothing of the mailer's is due for ``wait`` seconds."""
    for statement in _REST:
        db.execute(statement, {"mailer": mailer_id, "wait": wait})


def forget(db: Connection, mailer_id: UUID) -> None:
    """Nothing is to be had at a mailer that is gone or has no mailbox."""
    for statement in _FORGET:
        db.execute(statement, {"mailer": mailer_id})
