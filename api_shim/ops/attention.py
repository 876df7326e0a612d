"""What in a workspace waits for a person: each with why, and where to do something about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from api_shim.ops import words
from worker.standstill import Pause, paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """One thing that wants attention."""

    grave: bool
    """Nothing goes on without a person."""
    what: str
    why: str
    link: str
    do: str
    """What the link leads to, in a word or two."""


_MAILERS = text("""
    select id, name, provider, status, status_reason, throttled_until,
           (select count(*) from message where message.mailer_id = mailer.id and due_at is not null) as waiting
    from mailer
    where workspace_id = :workspace_id and deleted_at is null
      and (status = 'reconnect_required' or throttled_until > clock_timestamp())
    order by name
""")
_ENDPOINTS = text("""
    select id, url, status, status_reason, failing_since,
           (select count(*) from webhook_delivery d where d.endpoint_id = endpoint.id and d.state = 'dead') as dead
    from webhook_endpoint endpoint
    where workspace_id = :workspace_id and (status = 'disabled' or failing_since is not null)
    order by url
""")
_HELD = text("""
    select count(*) as held from message
    where workspace_id = :workspace_id and due_at >= '9999-01-01' and state = 'uncertain'
""")
_UNLOGGED = text("""
    select count(*) as mails, min(f.created_at) as since, max(f.error) as error
    from followup f cross join unnest(f.message_ids) as one(id) join message m on m.id = one.id
    where f.tries > 0 and m.workspace_id = :workspace_id
""")


def matters(session: Session, workspace_id: UUID) -> list[Matter]:
    """Everything that wants attention in a workspace, the grave first."""
    mine = {"workspace_id": workspace_id}
    found = [_queue(name, pause) for name, pause in paused(session).items()]
    found += [_mailer(row) for row in session.execute(_MAILERS, mine).mappings()]
    found += [_endpoint(row) for row in session.execute(_ENDPOINTS, mine).mappings()]
    found += _held(session.execute(_HELD, mine).mappings().one())
    found += _unlogged(session.execute(_UNLOGGED, mine).mappings().one())
    return sorted(found, key=lambda matter: not matter.grave)


def _queue(name: str, pause: Pause) -> Matter:
    said = f"{pause.reason.rstrip('.')}. " if pause.reason else ""
    why = f"{said}Nothing of it is taken in hand, for {words.age(pause.paused_at)} by now."
    return Matter(grave=True, what=f"{name} is paused", why=why, link=f"/ops/queues/{name}", do="Queue")


def _mailer(row: RowMapping) -> Matter:
    waiting = f"Mails that wait: {words.count(row['waiting'])}."
    if row["status"] == "reconnect_required":
        reason = row["status_reason"] or "The provider refused the credentials"
        why = f"{reason.rstrip('.')}. {waiting}"
        return Matter(
            grave=True, what=f"{row['name']} must be reconnected", why=why, link=_mailer_page(row), do="Mailer"
        )
    why = f"The provider asked for a pause; goes on {words.age(row['throttled_until'])}. {waiting}"
    return Matter(grave=False, what=f"{row['name']} is throttled", why=why, link=_mailer_page(row), do="Mailer")


def _mailer_page(row: RowMapping) -> str:
    return f"/ops/mailers#mailer-{row['id']}"


def _endpoint(row: RowMapping) -> Matter:
    dead = f" Out of tries: {words.number_of(row['dead'], 'delivery', 'deliveries')}." if row["dead"] else ""
    disabled = row["status"] == "disabled"
    what = f"{row['url']} is disabled" if disabled else f"{row['url']} fails"
    reason = row["status_reason"] or "It was switched off."
    why = reason if disabled else f"No delivery got through for {words.age(row['failing_since'])}."
    return Matter(grave=disabled, what=what, why=why + dead, link=f"/ops/webhooks/{row['id']}", do="Deliveries")


def _held(row: RowMapping) -> Sequence[Matter]:
    if not row["held"]:
        return ()
    why = "The wire was touched, no answer is on record, and the provider cannot tell. They are held, not sent twice."
    what = f"{words.number_of(row['held'], 'mail')} with an unknown fate"
    return (Matter(grave=True, what=what, why=why, link="/ops/stuck#held", do="Decide"),)


def _unlogged(row: RowMapping) -> Sequence[Matter]:
    if not row["mails"]:
        return ()
    since = words.age(row["since"])
    why = f"The oldest outcome is from {since} ago; the follow-up is tried again by itself. {_short(row['error'])}"
    what = f"{words.number_of(row['mails'], 'mail')} without a log row"
    return (Matter(grave=False, what=what, why=why, link="/ops/stuck#unlogged", do="Look"),)


def _short(error: Any) -> str:
    return f"Last error: {str(error)[:200]}" if error else ""
