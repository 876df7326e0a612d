"""Everything that an explanation of one message rests on, read at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from models.content import SendSettings
from models.mailer import Mailer
from models.message import OPEN, Message, Priority, Submission
from worker.bell import FOLLOWUP_QUEUE, SEND_QUEUES
from worker.circuits import Circuits
from worker.liveness import beat_silence
from worker.mailers import caps_in_force
from worker.pace import Pace, Standing
from worker.queues import workers_of
from worker.standstill import Pause, paused
from worker.wishes import read_wishes

MEASURED_SECONDS = 20.0
"""The rate of a lane is what it finished in so long, or since it began to be busy."""

# The lane has been busy without a pause since its head fell due: what it finished since then is its rate.
_LANE = text("""
    with head as (
        select greatest(due_at, created_at) as due_at from message
        where mailer_id = :mailer_id and priority = :priority and due_at <= statement_timestamp()
        order by message.due_at limit 1
    ), busy as (
        select greatest(head.due_at, clock_timestamp() - make_interval(secs => :measured)) as since from head
    )
    select (select count(*) from message where mailer_id = :mailer_id and priority = :priority and due_at < :due_at)
           + (select count(*) from message where mailer_id = :mailer_id and priority = :priority and due_at = :due_at
              and id < :id) as before,
           (select count(*) from message where mailer_id = :mailer_id and priority > :priority
              and due_at <= statement_timestamp()) as preferred,
           (select coalesce(sum(cardinality(message_ids)), 0) from lease
            where mailer_id = :mailer_id and priority = :priority) as in_hand,
           (select extract(epoch from clock_timestamp() - min(created_at)) from lease
            where mailer_id = :mailer_id and priority = :priority) as slowest,
           extract(epoch from clock_timestamp() - (select since from busy)) as busy_seconds,
           (select count(*) from email_log where finished_at > (select since from busy)
              and mailer_id = :mailer_id and priority = :priority) as finished
""")
_LEASE = text("""
    select lease.worker, lease.created_at, lease.expires_at, cardinality(lease.message_ids) as mails,
           worker.name is not null and worker.seen_at > clock_timestamp() - interval '5 seconds'
               and lease.expires_at > clock_timestamp() as alive
    from lease left join worker_heartbeat worker on worker.name = lease.worker where lease.id = :id
""")
_CAMPAIGN = text("select status from campaign where workspace_id = :workspace_id and id = :id")
_FOLLOWUP = text("""
    select tries, error, due_at, created_at, (select count(*) from followup) as outbox
    from followup where :id = any(message_ids) order by id limit 1
""")
_MOMENT = text("select clock_timestamp() as now, pg_is_in_recovery() as recovering")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The mail of one mailer and priority."""

    before: int
    """Mails that are due before this one."""
    preferred: int
    """Due mails of high priority that share the mailer's limits and go first."""
    in_hand: int
    slowest_seconds: float | None
    """Age of the lane's oldest lease."""
    rate: float | None
    """Mails per second that it finishes; None where nothing has been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a message and of all it waits for."""

    now: datetime
    recovering: bool
    message: Message
    submission: Submission
    mailer: Mailer
    queue: str
    """The one whose workers are next: of its priority, or the follow-up's."""
    campaign: str
    """Status of its campaign, or ``active``."""
    paused: Pause | None
    workers: int
    beat_silent: float | None
    """Seconds since a beat was heard of; None for never."""
    lease: Row[Any] | None
    lane: Lane | None
    """For a queued message only."""
    suppressed: Mapping[str, str]
    followup: Row[Any] | None
    broker_away: bool
    limits: Sequence[Standing]
    circuit_open: bool


def read(session: Session, message: Message, pace: Pace, client: redis.Redis) -> Facts:
    """The facts of a message. A Redis that is away is one of them; a database that is raises."""
    moment = session.execute(_MOMENT).one()
    mailer = session.get_one(Mailer, message.mailer_id)
    submission = session.get_one(Submission, message.submission_id)
    is_open = message.state in OPEN
    queue = SEND_QUEUES[Priority(message.priority)] if is_open else FOLLOWUP_QUEUE
    limits, circuit_open, away = _redis(mailer, pace, client) if is_open else ((), False, False)
    return Facts(
        now=moment.now,
        recovering=moment.recovering,
        message=message,
        submission=submission,
        mailer=mailer,
        queue=queue,
        campaign=_campaign(session, submission),
        paused=paused(session).get(queue),
        workers=workers_of(session).get(queue, 0),
        beat_silent=beat_silence(session),
        lease=session.execute(_LEASE, {"id": message.lease_id}).one_or_none() if is_open else None,
        lane=_lane(session, message) if message.due_at is not None else None,
        suppressed=_suppressed(session, message, submission) if is_open else {},
        followup=None if is_open else session.execute(_FOLLOWUP, {"id": message.id}).one_or_none(),
        broker_away=away,
        limits=limits,
        circuit_open=circuit_open,
    )


def _redis(mailer: Mailer, pace: Pace, client: redis.Redis) -> tuple[Sequence[Standing], bool, bool]:
    """Where the limits stand, whether the circuit is open, and whether Redis is away."""
    try:
        client.ping()
        standings = pace.standings(mailer.id, caps_in_force(mailer.provider, mailer.caps, mailer.base_url))
        return standings, mailer.fallback_id is not None and Circuits(client).is_open(mailer.id), False
    except redis.RedisError:
        return (), False, True


def _campaign(session: Session, submission: Submission) -> str:
    named = {"workspace_id": submission.workspace_id, "id": submission.campaign_id}
    return session.execute(_CAMPAIGN, named).scalar_one_or_none() or "active"


def _lane(session: Session, message: Message) -> Lane:
    place: dict[str, UUID | int | float | datetime | None] = {
        "mailer_id": message.mailer_id,
        "priority": message.priority,
        "due_at": message.due_at,
        "id": message.id,
        "measured": MEASURED_SECONDS,
    }
    row = session.execute(_LANE, place).one()
    busy = float(row.busy_seconds or 0)
    return Lane(
        before=row.before,
        preferred=row.preferred,
        in_hand=int(row.in_hand),
        slowest_seconds=None if row.slowest is None else float(row.slowest),
        rate=row.finished / busy if busy >= LEAST_MEASURED_SECONDS and row.finished else None,
    )


LEAST_MEASURED_SECONDS = 3.0


def _suppressed(session: Session, message: Message, submission: Submission) -> dict[str, str]:
    """Recipients that would get nothing now, each with the reason."""
    decided = message.outcomes or {}
    addresses = {address.lower() for address in message.recipients if address not in decided}
    settings = SendSettings(**submission.content.get("settings", {}))
    wishes = read_wishes(session.connection(), message.workspace_id, addresses, [settings])
    found = {address: reason for address in addresses if (reason := wishes.reason(address, settings.list_id))}
    return found if len(found) == len(addresses) else {}
