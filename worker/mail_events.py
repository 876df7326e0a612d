"""What a provider reports about a mail, applied: the message's state, events, suppressions, timelines.

Reports come late, repeated and in any order. What they leave behind does not depend on it: states only move the way
`models.message.TRANSITIONS` allows, each event has a natural key, the suppression list keeps the gravest reason. An
event of a mail that is not finished and logged yet waits, so that it never overtakes the mail's own events.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from models.event import EventType
from models.message import OPEN, State, predecessors
from providers.base import ProviderEvent
from worker.erasure import ERASED
from worker.events import NewEvent, append_events, unseen
from worker.machines import visitor
from worker.outcome_rows import OUTCOME_CHANNEL
from worker.storable import storable
from worker.suppression import NewSuppression, suppress
from worker.timeline import KINDS, Happening, note

LEADS_TO: dict[EventType, State] = {
    EventType.DELIVERED: State.DELIVERED,
    EventType.BOUNCED: State.BOUNCED,
    EventType.GENERATION_FAILED: State.BOUNCED,  # refused by the provider after it had said yes
    EventType.COMPLAINED: State.COMPLAINED,
}
"""Events that may change the state of a message. Of several recipients the worst news counts."""

OURS = re.compile(r"<?postroad([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})@")
"""A Message-ID that intake made: it carries the id of the message."""

DEFERRED_SECONDS = 3600
"""A recipient's mail is reported as deferred at most once in so long."""

UNFINISHED = "the mail has no outcome on record yet"
OVERTAKEN = "another report was applied at the same time"
UNKNOWN = "no mail of the workspace goes by these ids"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reported:
    """An event as a provider reported it to a workspace. ``report`` is the report that brought it."""

    report: UUID
    workspace_id: UUID
    event: ProviderEvent


@dataclass(slots=True)
class Applied:
    """What came of it. Reports not in ``waiting`` are done."""

    waiting: dict[UUID, str] = field(default_factory=dict)
    """Report -> why it has to be applied again later."""
    endpoints: set[UUID] = field(default_factory=set)
    """Those that have something to deliver now."""
    resolved: bool = False
    """Uncertain mails turned out to be sent: there is something for the follow-up."""

    def add(self, other: "Applied") -> None:
        self.waiting |= other.waiting
        self.endpoints |= other.endpoints
        self.resolved |= other.resolved


@dataclass(slots=True, kw_only=True)
class _Mail:
    """A message that events speak of."""

    id: UUID
    workspace_id: UUID
    submission_id: UUID
    was: State
    state: State
    """`was`, and what the events so far made of it."""
    recipients: Sequence[str]
    recorded: bool
    """The follow-up of this very outcome has written the log."""

    def spelled(self, recipient: str | None) -> tuple[str, ...]:
        """The recipient as the mail names it; the provider may spell it otherwise, or not name it."""
        if not recipient:
            return tuple(self.recipients) if len(self.recipients) == 1 else ()
        key = recipient.casefold()
        unknown = ERASED if ERASED in self.recipients else storable(recipient)[:320]
        return (next((mine for mine in self.recipients if mine.casefold() == key), unknown),)

    def move(self, type_: EventType) -> State:
        """The state that an event leaves the message in: never one step back."""
        target = LEADS_TO.get(type_)
        if target is not None and self.state in predecessors(target):
            self.state = target
        return self.state


_MAILS = text("""
    select m.id, m.workspace_id, m.submission_id, m.state, m.recipients,
           coalesce(l.status = m.state::text, false) as recorded
    from message m left join email_log l on l.message_id = m.id
    where m.id = any(:ids)
""")

# The conditions on provider and Message-ID are those of the partial indexes.
_BY_PROVIDER_ID = text("""
    select l.workspace_id, l.provider_message_id as name, l.message_id, l.recipients
    from unnest(cast(:workspaces as uuid[]), cast(:names as text[])) as wanted(workspace_id, name)
         join email_log l on l.workspace_id = wanted.workspace_id and l.provider_message_id = wanted.name
    where l.provider in ('postmark', 'mailgun', 'sparkpost')
""")
_BY_RFC_ID = text("""
    select l.workspace_id, l.rfc_message_id as name, l.message_id, l.recipients
    from unnest(cast(:workspaces as uuid[]), cast(:names as text[])) as wanted(workspace_id, name)
         join email_log l on l.workspace_id = wanted.workspace_id and l.rfc_message_id = wanted.name
    where l.rfc_message_id !~ '^<postroad[0-9a-f]{8}-'
""")

_RESOLVE = text(f"""
    with resolved as (
        update message
        set state = 'sent', due_at = null, finished_at = clock_timestamp(), reason = null,
            attempts = attempts || jsonb_build_array(jsonb_build_object(
                'at', clock_timestamp(), 'outcome', 'reported', 'detail', 'the provider reported on it: it took it'))
        where id = any(:ids) and state = 'uncertain'
        returning id, submission_id
    ), outbox as (
        insert into followup (message_ids) select array_agg(id) from resolved having count(*) > 0
    ), announced as (
        select pg_notify('{OUTCOME_CHANNEL}', r.id::text) from resolved r join submission s on s.id = r.submission_id
        where s.awaited
    )
    select count(*), (select count(*) from announced) from resolved
""")  # noqa: S608 -- a constant

_MOVE = text("""
    update message m set state = v.state
    from jsonb_to_recordset(cast(:moves as jsonb)) as v(id uuid, was message_state, state message_state)
    where m.id = v.id and m.state = v.was
    returning m.id
""")
_MOVE_LOG = text("""
    update email_log l set status = v.state
    from jsonb_to_recordset(cast(:moves as jsonb)) as v(id uuid, state text) where l.message_id = v.id
""")


def apply_events(connection: Connection, reported: Sequence[Reported]) -> Applied:
    """Applies events in the order in which they happened. The caller commits, and rings for what `Applied` says."""
    applied = Applied()
    mails = _mails(connection, reported)
    ready: list[tuple[Reported, _Mail]] = []
    for one in sorted(reported, key=lambda one: one.event.at):
        mail = mails.get(one)
        if mail is None or not mail.recorded or mail.state in OPEN:
            applied.waiting[one.report] = UNKNOWN if mail is None else UNFINISHED
        else:
            ready.append((one, mail))
    applied.resolved = _resolve(connection, mails.values())
    _write(connection, ready, applied)
    return applied


def _resolve(connection: Connection, mails: Iterable[_Mail]) -> bool:
    """Whoever reports on an uncertain mail has taken it."""
    ids = sorted({mail.id for mail in mails if mail.was is State.UNCERTAIN})
    return bool(ids) and connection.execute(_RESOLVE, {"ids": ids}).one()[0] > 0


def _write(connection: Connection, ready: Sequence[tuple[Reported, _Mail]], applied: Applied) -> None:
    # That it was accepted, the outcome of the send has said.
    made = [(_new_event(one, mail), one, mail) for one, mail in ready if one.event.type != EventType.ACCEPTED]
    sources = {event.natural_key: (one, mail) for event, one, mail in reversed(made)}
    fresh = []
    for event in unseen(connection, [event for event, _, _ in made]):
        _, mail = sources[event.natural_key]
        fresh.append(replace(event, state=mail.move(event.type).value))
    lost = _move(connection, {mail.id: mail for _, mail in ready}.values())
    for event in fresh:
        if event.message_id in lost:
            applied.waiting[sources[event.natural_key][0].report] = OVERTAKEN
    kept = [event for event in fresh if event.message_id not in lost]
    applied.endpoints |= append_events(connection, kept)
    suppress(connection, [new for event in kept for new in _suppressions(event)])
    note(connection, [line for event in kept for line in _happenings(event)])


def _move(connection: Connection, mails: Iterable[_Mail]) -> set[UUID]:
    """Writes the new states. Returns the messages that somebody else moved meanwhile, whose state stays."""
    moved = sorted((mail for mail in mails if mail.state is not mail.was), key=lambda mail: mail.id)
    if not moved:
        return set()
    moves = [{"id": mail.id, "was": mail.was, "state": mail.state} for mail in moved]
    done = set(connection.execute(_MOVE, {"moves": orjson.dumps(moves).decode()}).scalars())
    written = [move for move in moves if move["id"] in done]
    connection.execute(_MOVE_LOG, {"moves": orjson.dumps(written).decode()})
    return {mail.id for mail in moved} - done


def _new_event(one: Reported, mail: _Mail) -> NewEvent:
    event, type_ = one.event, EventType(one.event.type)
    recipients = mail.spelled(event.recipient)
    data = {} if ERASED in mail.recipients else storable(event.data)
    if type_ in (EventType.OPENED, EventType.CLICKED):
        data |= visitor({"user-agent": str(data.get("user_agent") or "")}).data()
    key = storable(event.natural_key)
    if type_ is EventType.DEFERRED:
        key = f"deferred:{mail.id}:{','.join(recipients)}:{_hour(event.at)}"
    return NewEvent(
        workspace_id=mail.workspace_id,
        type=type_,
        at=event.at,
        message_id=mail.id,
        submission_id=mail.submission_id,
        recipients=recipients,
        data=data,
        # A provider's own key is only unique within its accounts, and a tenant can forge those of its own.
        natural_key=f"{mail.workspace_id}:{key}",
    )


def _hour(at: datetime) -> int:
    return int(at.timestamp()) // DEFERRED_SECONDS


def _suppressions(event: NewEvent) -> list[NewSuppression]:
    reason = _reason(event)
    if reason is None:
        return []
    return [
        NewSuppression(workspace_id=event.workspace_id, address=address, reason=reason, message_id=event.message_id)
        for address in event.recipients
    ]


def _reason(event: NewEvent) -> str | None:
    if event.type is EventType.BOUNCED:
        return "hard_bounce" if event.data.get("bounce_class") == "hard" else None
    return {EventType.COMPLAINED: "complaint", EventType.UNSUBSCRIBED: "unsubscribe"}.get(event.type)


def _happenings(event: NewEvent) -> list[Happening]:
    kind = KINDS.get(event.type)
    if kind is None or event.message_id is None or event.data.get("is_bot"):
        return []
    detail = {name: event.data[name] for name in ("url", "reason", "bounce_class") if event.data.get(name)}
    return [Happening(message_id=event.message_id, kind=kind, at=event.at, detail=detail)]


def _mails(connection: Connection, reported: Sequence[Reported]) -> dict[Reported, _Mail]:
    """The mail of each event that has one: by our reference, else by the ids that the provider gave it."""
    candidates = {one: _ours(one.event) for one in reported}
    _add_named(connection, {one: found for one, found in candidates.items() if not found})
    ids = sorted({message_id for found in candidates.values() for message_id in found})
    known = {row.id: _mail(row) for row in connection.execute(_MAILS, {"ids": ids})} if ids else {}
    mails = {}
    for one, found in candidates.items():
        mine = (known[message_id] for message_id in found if message_id in known)
        mail = next((mail for mail in mine if mail.workspace_id == one.workspace_id), None)
        if mail is not None:
            mails[one] = mail
    return mails


def _mail(row: Any) -> _Mail:
    state = State(row.state)
    return _Mail(
        id=row.id,
        workspace_id=row.workspace_id,
        submission_id=row.submission_id,
        was=state,
        state=state,
        recipients=row.recipients,
        recorded=row.recorded,
    )


def _ours(event: ProviderEvent) -> list[UUID]:
    """Message ids that the event itself spells out."""
    found = []
    if event.ref is not None and re.fullmatch("[0-9a-f]{32}", str(event.ref)):
        found.append(UUID(event.ref))
    for name in (event.rfc_message_id, event.provider_message_id):
        if name and (match := OURS.match(name)):
            found.append(UUID(match[1]))
    return found


def _add_named(connection: Connection, doubtful: Mapping[Reported, list[UUID]]) -> None:
    """Adds the messages that go by an event's provider id or Message-ID, for events without a reference of ours."""
    for statement, attribute in ((_BY_PROVIDER_ID, "provider_message_id"), (_BY_RFC_ID, "rfc_message_id")):
        names = {one: storable(name) for one in doubtful if (name := getattr(one.event, attribute))}
        if not names:
            continue
        wanted = {(one.workspace_id, name) for one, name in names.items()}
        parameters = {"workspaces": [pair[0] for pair in wanted], "names": [pair[1] for pair in wanted]}
        rows: defaultdict[tuple[UUID, str], list[Any]] = defaultdict(list)
        for row in connection.execute(statement, parameters):
            rows[row.workspace_id, row.name].append(row)
        for one, name in names.items():
            doubtful[one].extend(_best_first(rows[one.workspace_id, name], one.event.recipient))


def _best_first(rows: Sequence[Any], recipient: str | None) -> list[UUID]:
    """One name may stand for several mails: those that went to the recipient come first."""
    key = (recipient or "").casefold()
    ranked = sorted(rows, key=lambda row: key not in {address.casefold() for address in row.recipients})
    return [row.message_id for row in ranked]
