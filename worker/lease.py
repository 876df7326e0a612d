"""Taking messages in hand and giving them back: the only code that moves them between queued, claimed and sending.

claim    queued -> claimed, uncertain stays uncertain      one statement, one lease, committed before anything else
begin    claimed -> sending, the attempt is on record      committed before the wire is touched
release  claimed -> queued                                 what a worker did not get to
recover  the leases of dead workers: claimed -> queued, sending -> uncertain
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError

from models.arrays import Ids
from models.database import fetch
from models.message import Priority, State
from worker.bell import SEND_QUEUES
from worker.standstill import RUNS

CRASHES_TO_ISOLATE = 3
"""A message whose worker died with it in hand this often is taken out of the queue."""

SUSPECTS, MOST_SUSPECTS = 8, 64
"""So many of the messages whose worker died go together the next time; twice as many after those that went well, up to
the most: what has to go alone after another death stays few.
"""

UNHEARD_SECONDS = 3.0
"""A worker without its lock that was not heard of for so long is dead. Three heartbeats: see `worker.heartbeat`."""

BLAMELESS = datetime(1970, 1, 1, tzinfo=UTC)
"""End of a lease that its living worker let go of: no reason to suspect the messages in it."""


class Held(NamedTuple):
    """A message in hand. A tuple in the order of the claim's columns: there are thousands a second."""

    id: UUID
    submission_id: UUID
    was: State
    """The state it was found in: queued or uncertain."""
    tries: int
    crashes: int
    recipients: Sequence[str]
    recipient_name: str | None
    variables: dict[str, str] | None
    rfc_message_id: str
    provider_message_id: str | None
    attempts: Sequence[dict[str, Any]]
    """Finished attempts on record, oldest first."""
    outcomes: dict[str, Any]
    """What is already known of single recipients."""
    created_at: datetime

    @property
    def pending(self) -> tuple[str, ...]:
        """Recipients still to be served."""
        if not self.outcomes:
            return tuple(self.recipients)
        return tuple(address for address in self.recipients if address not in self.outcomes)


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one lane under one lease."""

    lease_id: int
    priority: int
    messages: tuple[Held, ...]

    @property
    def is_suspect(self) -> bool:
        """A worker died with these in hand, and which of them it was is being found out."""
        return self.messages[0].crashes > 0


# A batch that is half a second old is held up by its server, not by us: a second worker would only wait beside the
# first, and a server that hangs would in the end hold them all.
#
# The statement's time, not the clock's, which may change from row to row and so is never looked up in the index: a lane
# that has nothing due would be read through to the last mail that is scheduled in it.
#
# Messages that were in hand when a worker died go in small company, and after a second time alone, so that a deadly one
# is told from its neighbours. Those of one batch are due at the same moment: nothing else is looked through for them.
#
# What is due has one of two states, unless a newer version, beside us, has others: that is for it to take.
_CLAIM = f"""
    with head as materialized (
        select crashes, case when crashes > 0 then due_at else statement_timestamp() end as until
        from message where mailer_id = %(mailer_id)s and priority = %(priority)s and due_at <= statement_timestamp()
              and state in ('queued', 'uncertain')
        order by due_at limit 1
    ), due as materialized (
        select id, state as was, due_at from message
        where mailer_id = %(mailer_id)s and priority = %(priority)s and due_at <= (select until from head)
              and state in ('queued', 'uncertain') and crashes = (select crashes from head)
              and not exists (select from lease slow
                              where slow.mailer_id = %(mailer_id)s and slow.priority = %(priority)s
                              and slow.created_at < clock_timestamp() - interval '500 milliseconds')
              and exists (select from mailer where id = %(mailer_id)s and xmin::text = %(version)s)
              and {RUNS.format(queue="%(queue)s")}
        order by due_at limit (select case crashes when 0 then %(batch)s when 1 then least(%(batch)s, %(suspects)s)
                                                   else 1 end from head)
        for no key update skip locked
    ), held as (
        select nextval('lease_id_seq') as id where exists (select from due)
    ), taken as (
        update message m
        set state = case when due.was = 'queued' then 'claimed'::message_state else due.was end,
            due_at = null, lease_id = held.id
        from due, held where m.id = due.id
        returning m.id, m.submission_id, due.was, m.tries, m.crashes, m.recipients, m.recipient_name, m.variables,
                  m.rfc_message_id, m.provider_message_id, m.attempts, coalesce(m.outcomes, '{{}}') as outcomes,
                  m.created_at, due.due_at as was_due_at
    ), lease as (
        insert into lease (id, worker, mailer_id, priority, message_ids, expires_at)
        select held.id, %(worker)s, %(mailer_id)s, %(priority)s, (select array_agg(taken.id) from taken),
               clock_timestamp() + %(lease)s
        from held
    )
    select taken.*, held.id as lease_id from taken, held order by was_due_at
"""  # noqa: S608 -- a constant

_RETURN = """
    update message set state = case when state = 'claimed' then 'queued' else state end, due_at = clock_timestamp()
    where id = any(%(ids)s) and lease_id = %(lease_id)s and due_at is null and state in ('claimed', 'uncertain')
"""

# A lease is over when its time is, or when its worker is: a live worker process holds an advisory lock, and is heard of
# every second. Both must be gone, because a worker whose connection broke has no lock until it has another. Silence
# means nothing where the database itself was away.
_ORPHANS = text("""
    select lease.id, lease.message_ids, lease.expires_at > :blameless as crashed from lease
    left join worker_heartbeat worker on worker.name = lease.worker
    where lease.expires_at < clock_timestamp()
       or (:listened and lease.created_at < clock_timestamp() - interval '1 second'
           and (worker.name is null or worker.seen_at < clock_timestamp() - :silent
                and pg_postmaster_start_time() < clock_timestamp() - :silent and not exists (
               select from pg_locks where locktype = 'advisory' and granted and objsubid = 1
               and classid::bigint << 32 | objid::bigint = worker.lock_key)))
    for update of lease skip locked
""")

_GIVE_UP = text("update lease set expires_at = clock_timestamp() where id = :id")

_LET_GO = text("update lease set expires_at = :blameless where worker = :worker and expires_at > :blameless")

_RECOVER = text("""
    with over as (
        select id, state as was, crashes + :crash as crashes from message
        where id = any(:ids) and lease_id = :lease_id and due_at is null
              and state in ('claimed', 'sending', 'uncertain')
        for no key update
    ), recovered as (
        update message m
        set crashes = over.crashes,
            state = case over.was when 'sending' then 'uncertain'
                                  when 'claimed' then case when over.crashes >= :isolate then 'failed' else 'queued' end
                                  else 'uncertain' end::message_state,
            due_at = case when over.was = 'claimed' and over.crashes >= :isolate then null
                          else statement_timestamp() end,
            finished_at = case when over.was = 'claimed' and over.crashes >= :isolate then clock_timestamp() end,
            reason = case when over.was = 'sending' then 'the worker died while sending'
                          when over.was = 'claimed' and over.crashes >= :isolate
                          then 'isolated: its worker died ' || over.crashes || ' times with it in hand'
                          else m.reason end,
            attempts = case when over.was = 'sending' then m.attempts || jsonb_build_array(jsonb_build_object(
                           'at', clock_timestamp(), 'outcome', 'uncertain', 'detail', 'the worker died while sending'))
                       else m.attempts end
        from over where m.id = over.id
        returning m.id, m.state
    ), outbox as (
        insert into followup (message_ids)
        select array_agg(id) from recovered where state = 'failed' having count(*) > 0
    )
    select count(*) from recovered
""")


def claim(
    connection: Connection,
    mailer_id: UUID,
    priority: int,
    *,
    version: str,
    worker: str,
    batch: int,
    lease: timedelta,
    suspects: int = SUSPECTS,
) -> Batch | None:
    """Takes up to ``batch`` due messages of a lane, oldest due first.

    version: of the mailer's row (`OpenMailer.version`) that they are to be sent by. suspects: how many of those whose
    worker died may go together. One statement, whole by itself. None: nothing is due, its queue is paused, or the
    mailer has changed.
    """
    lane = {"mailer_id": mailer_id, "priority": priority, "queue": SEND_QUEUES[Priority(priority)], "version": version}
    rows = fetch(connection, _CLAIM, lane | {"worker": worker, "batch": batch, "lease": lease, "suspects": suspects})
    if not rows:
        return None
    messages = tuple(Held._make((row[0], row[1], State(row[2]), *row[3:13])) for row in rows)
    return Batch(rows[0].lease_id, priority, messages)


def release(connection: Connection, lease_id: int, messages: Sequence[Held]) -> None:
    """Gives back what is still in hand, due at once: the claimed to the queue; the uncertain stay uncertain."""
    if messages:
        fetch(connection, _RETURN, {"ids": Ids(message.id for message in messages), "lease_id": lease_id})


@contextmanager
def handed_back(engine: Engine, batch: Batch) -> Iterator[None]:
    """Ends the lease at once if the work on it fails for a reason of its own: the beat recovers it as if the worker had
    died, so that what always fails is isolated.

    If it is the database that fails, nothing can be said to it now, and nothing is wrong with the mail: as soon as it
    is back, the heartbeat lets go of what is no longer in hand.
    """
    try:
        yield
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        with suppress(OperationalError, InterfaceError), engine.begin() as connection:
            connection.execute(_GIVE_UP, {"id": batch.lease_id})
        raise


def let_go(connection: Connection, worker: str) -> None:
    """The worker has nothing in hand, though a lease may say so: `recover` takes it back, and blames no mail for it.

    The claim was committed and its answer lost, or the database was away when the work ended.
    """
    connection.execute(_LET_GO, {"worker": worker, "blameless": BLAMELESS})


def end(connection: Connection, lease_id: int) -> None:
    """Nothing of the batch is in hand any more."""
    fetch(connection, "delete from lease where id = %s", [lease_id])


def recover(connection: Connection, *, listened: bool = True) -> int:
    """Ends the leases of dead and overdue workers. Returns how many messages came back. Several may run at once.

    listened: whether living workers could be heard of for the last `UNHEARD_SECONDS`; otherwise only what is overdue is
    recovered.
    """
    recovered = 0
    question = {"blameless": BLAMELESS, "listened": listened, "silent": timedelta(seconds=UNHEARD_SECONDS)}
    for lease_id, message_ids, crashed in connection.execute(_ORPHANS, question).all():
        parameters = {"ids": message_ids, "lease_id": lease_id, "crash": int(crashed), "isolate": CRASHES_TO_ISOLATE}
        recovered += connection.execute(_RECOVER, parameters).scalar_one()
        end(connection, lease_id)
    return recovered
