"""Providers' webhook calls: stored as they came, applied by a worker.

The API checks the signature and stores; here the call is read again and applied, a batch in one transaction, in which
the rows of the reports go too. Everything may be repeated. An event may come before the commit of the very send it is
about, so what finds no mail waits, up to a day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from models.base import uuid7
from models.event import EventType
from providers.base import BadSignature, HookRequest, ProviderEvent
from worker.bell import FOLLOWUP_LANE, FOLLOWUP_QUEUE, endpoint_lane
from worker.events import append_events, unseen
from worker.inbound import receive
from worker.inbound_mail import tree_of
from worker.mail_events import OVERTAKEN, UNFINISHED, Applied, Reported, apply_events
from worker.mailers import OpenMailer
from worker.return_path import ReturnPaths
from worker.returned import read_returned, returned_events
from worker.runtime import Runtime
from worker.standstill import RUNS
from worker.vault import SecretUnreadable, Vault

log = structlog.get_logger()

BATCH = 200
"""Reports applied in one transaction."""
BATCH_BYTES = 8 * 1024 * 1024
"""Bodies taken together, about."""
GIVE_UP = timedelta(hours=24)
"""A report that could not be applied for so long is kept, but not tried again."""
LONGEST_WAIT_SECONDS = 3600.0
SHORT_WAIT_SECONDS = 5.0
"""The longest wait for a mail of ours that has no outcome on record yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A stored call, read."""

    id: UUID
    mailer: OpenMailer
    created_at: datetime
    tries: int
    events: Sequence[ProviderEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMail:
    """A mail that came in by a way of our own: fetched from a mailbox, or handed to us by a mail server."""

    natural_key: str
    """What it is known by where it came from."""
    raw: bytes = field(repr=False)
    """RFC 5322."""
    recipient: str | None = field(default=None, repr=False)
    """The envelope's, where there was one."""
    envelope_from: str | None = field(default=None, repr=False)
    """Empty for the return path of a bounce, ``<>``."""
    provider_thread_id: str | None = None


_HEAD = ("natural_key", "recipient", "envelope_from", "provider_thread_id")


class _Unreadable(Exception):
    """The call cannot be applied now; ``final`` if never."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


_STORE = text("""
    insert into provider_report (id, workspace_id, mailer_id, sealed_head, body, is_inbound, due_at, created_at)
    values (:id, :workspace_id, :mailer_id, :sealed_head, :body, :is_inbound, clock_timestamp(), clock_timestamp())
""")

# A mail that came in is applied alone: it locks its thread, and two threads locked in one order here and in another by
# the follow-up would be a deadlock.
_TAKE = text(f"""
    with due as (
        select id, is_inbound, row_number() over by_time as position, first_value(is_inbound) over by_time as alone,
               sum(size) over by_time - size as before
        from (select id, is_inbound, due_at, octet_length(body) as size from provider_report
              where due_at <= clock_timestamp() and {RUNS.format(queue=f"'{FOLLOWUP_QUEUE}'")}
              order by due_at, id limit :batch for update skip locked) as locked
        window by_time as (order by due_at, id)
    )
    select r.* from due join provider_report r on r.id = due.id
    where case when due.alone then due.position = 1 else not due.is_inbound and due.before < :bytes end
    order by due.position
""")  # noqa: S608 -- constants

_DONE = text("delete from provider_report where id = any(:ids)")
_AGAIN = text("""
    update provider_report r
    set due_at = case when v.wait is null then null else clock_timestamp() + make_interval(secs => v.wait) end,
        tries = r.tries + 1, error = v.error
    from jsonb_to_recordset(cast(:later as jsonb)) as v(id uuid, wait float8, error text) where r.id = v.id
""")


def store(
    connection: Connection, vault: Vault, mailer: OpenMailer, request: HookRequest, events: Sequence[ProviderEvent]
) -> UUID:
    """Stores a call whose signature was good, due now. The caller commits, and rings."""
    id_ = uuid7()
    head = {"headers": dict(request.headers), "query": dict(request.query)}
    connection.execute(
        _STORE,
        {
            "id": id_,
            "workspace_id": mailer.workspace_id,
            "mailer_id": mailer.id,
            "sealed_head": vault.seal(_purpose(id_), head),
            "body": request.body,
            "is_inbound": any(event.type == EventType.RECEIVED for event in events),
        },
    )
    return id_


def store_mail(connection: Connection, vault: Vault, mailer: OpenMailer, mail: RawMail) -> UUID:
    """Stores a mail that came in, due now, to be applied like one that a provider's call brought. The caller commits,
    and rings.
    """
    id_ = uuid7()
    head = {"mail": {name: getattr(mail, name) for name in _HEAD}}
    connection.execute(
        _STORE,
        {
            "id": id_,
            "workspace_id": mailer.workspace_id,
            "mailer_id": mailer.id,
            "sealed_head": vault.seal(_purpose(id_), head),
            "body": mail.raw,
            "is_inbound": True,
        },
    )
    return id_


def _purpose(report_id: UUID) -> str:
    return f"report:{report_id}"


def apply_reports(runtime: Runtime) -> int:
    """Applies what is due, up to a batch. Returns how many reports it looked at."""
    with runtime.engine.connect() as connection:
        rows = connection.execute(_TAKE, {"batch": BATCH, "bytes": BATCH_BYTES}).all()
        if not rows:
            return 0
        reports, later = _read_all(runtime, rows)
        applied = _apply(connection, reports, ReturnPaths(runtime.settings.keys))
        later += [_later(report, applied.waiting[report.id]) for report in reports if report.id in applied.waiting]
        _finish(connection, {row.id for row in rows}, later)
        connection.commit()
    if applied.resolved:
        runtime.bells.ring(FOLLOWUP_LANE)
    for endpoint_id in applied.endpoints:
        runtime.bells.ring(endpoint_lane(endpoint_id))
    return len(rows)


def _finish(connection: Connection, taken: set[UUID], later: Sequence[dict[str, Any]]) -> None:
    done = sorted(taken - {item["id"] for item in later})
    if done:
        connection.execute(_DONE, {"ids": done})
    if later:
        connection.execute(_AGAIN, {"later": orjson.dumps(later).decode()})


def _read_all(runtime: Runtime, rows: Sequence[Any]) -> tuple[list[Report], list[dict[str, Any]]]:
    """The reports that could be read, and what becomes of the others."""
    reports: list[Report] = []
    later: list[dict[str, Any]] = []
    mailers: dict[UUID, OpenMailer | None] = {}
    for row in rows:
        try:
            reports.append(_read(runtime, mailers, row))
        except _Unreadable as unreadable:
            wait = None if unreadable.final else _wait(_age(row.created_at))
            later.append({"id": row.id, "wait": wait, "error": str(unreadable)})
    return reports, later


def _read(runtime: Runtime, mailers: dict[UUID, OpenMailer | None], row: Any) -> Report:
    try:
        if row.mailer_id not in mailers:
            mailers[row.mailer_id] = runtime.providers.mailer(row.mailer_id)
        mailer = mailers[row.mailer_id]
        if mailer is None:
            raise _Unreadable("the mailer was deleted", final=True)
        head = runtime.vault.open(_purpose(row.id), row.sealed_head)
        events = [_mail_event(head["mail"], row)] if "mail" in head else _called(mailer, head, row)
    except BadSignature as error:
        raise _Unreadable(f"the signature is no longer good: {error}", final=True) from error
    except SecretUnreadable as error:
        raise _Unreadable(str(error)) from error
    except (_Unreadable, SQLAlchemyError):
        raise
    except Exception as error:
        # A bug in an adapter. The report is kept and read again: perhaps by a version that can.
        log.exception("report_unreadable", report_id=str(row.id))
        raise _Unreadable(f"the report could not be read: {type(error).__name__}") from error
    return Report(
        id=row.id,
        mailer=mailer,
        created_at=row.created_at,
        tries=row.tries,
        events=[_dated(event, row.created_at) for event in events],
    )


def _called(mailer: OpenMailer, head: Mapping[str, Any], row: Any) -> Sequence[ProviderEvent]:
    request = HookRequest(headers=head["headers"], query=head["query"], body=bytes(row.body))
    return mailer.provider.parse_events(request)


def _mail_event(mail: Mapping[str, Any], row: Any) -> ProviderEvent:
    data = {name: mail[name] for name in ("envelope_from", "provider_thread_id") if mail[name] is not None}
    return ProviderEvent(
        type=EventType.RECEIVED,
        at=row.created_at,
        natural_key=mail["natural_key"],
        recipient=mail["recipient"],
        data={"raw": bytes(row.body), **data},
    )


def _dated(event: ProviderEvent, stored_at: datetime) -> ProviderEvent:
    """An event without a time of its own gets that of its reading; but it happened before it was stored."""
    return replace(event, at=min(event.at, stored_at))


def _apply(connection: Connection, reports: Sequence[Report], paths: ReturnPaths) -> Applied:
    """All together; where that fails, each alone: what cannot be applied must not come first again and again, and hold
    up all the rest.
    """
    try:
        with connection.begin_nested():
            return _apply_together(connection, reports, paths)
    except SQLAlchemyError as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        why = type(error.__cause__ or error).__name__
        log.error("reports_not_applied", reports=len(reports), error=why, next="each alone, then again by itself")
    except Exception as error:
        why = type(error).__name__
        log.exception("reports_not_applied", reports=len(reports), next="each alone, then again by itself")
    if len(reports) == 1:
        return Applied(waiting={reports[0].id: f"could not be applied: {why}"})
    applied = Applied()
    for report in reports:
        applied.add(_apply(connection, [report], paths))
    return applied


def _apply_together(connection: Connection, reports: Sequence[Report], paths: ReturnPaths) -> Applied:
    about_mails: list[Reported] = []
    came_in = []
    for report in reports:
        for event in report.events:
            told = [event] if event.type != EventType.RECEIVED else _told_by_mail(connection, report, event, paths)
            about_mails += [Reported(report=report.id, workspace_id=report.mailer.workspace_id, event=e) for e in told]
            came_in += [] if told else [(report, event)]
    applied = apply_events(connection, about_mails)
    received = [receive(connection, report.mailer, event, paths) for report, event in came_in]
    applied.endpoints |= append_events(connection, unseen(connection, [event for event in received if event]))
    return applied


def _told_by_mail(
    connection: Connection, report: Report, event: ProviderEvent, paths: ReturnPaths
) -> list[ProviderEvent]:
    """What a mail that came in says about mail of ours, if it is a bounce or a complaint; else nothing."""
    if not event.data.get("raw"):
        return []
    found = read_returned(tree_of(event), paths, event.data.get("envelope_from"), event.recipient)
    return [] if found is None else returned_events(connection, report.mailer, found, event.at)


def _later(report: Report, why: str) -> dict[str, Any]:
    age = _age(report.created_at)
    wait = _wait(age)
    if why in (UNFINISHED, OVERTAKEN) and wait is not None:
        wait = min(wait, SHORT_WAIT_SECONDS, 0.5 * 2 ** min(report.tries, 10))
    return {"id": report.id, "wait": wait, "error": why}


def _wait(age: timedelta) -> float | None:
    """Seconds until a report of that age is tried again: a quarter of its age, or None to give up."""
    return None if age > GIVE_UP else min(max(age.total_seconds() / 4, 1.0), LONGEST_WAIT_SECONDS)


def _age(created_at: datetime) -> timedelta:
    return datetime.now(UTC) - created_at
