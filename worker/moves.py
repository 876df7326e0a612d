"""Moving messages by hand: cancel, park, let go, retry, reschedule, mark as sent. The SQL of all of them.

Every move is a compare-and-set on the state, in chunks that commit one by one, and never waits for a row that a
worker has locked: it is skipped and found by the next pass. So no deadlock with a worker is possible.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.orm import Session

from models.message import ACCEPTED, PATIENCE, UNTIL_SOMEBODY_ACTS, State, predecessors
from worker.bell import Lane, send_lane
from worker.outcome import RETRIED
from worker.outcome_rows import OUTCOME_CHANNEL

CHUNK = 20_000
"""Messages moved in one transaction."""
_FIRST = UUID(int=0)

_AT_THE_PROVIDER = "exists (select from jsonb_each(m.outcomes) one where one.value->>'outcome' = 'accepted')"
"""A mail that several share may be at the provider for some of them while it waits for the others."""

_STEP = "(picked.position + :offset) * interval '1 microsecond'"
_DUE = f"greatest(cast(:due as timestamptz) + {_STEP}, picked.send_at)"
_DEADLINE = f"picked.expires_at - interval '{PATIENCE.total_seconds():.0f} seconds'"
_PLACE = f"greatest(least(cast(:due as timestamptz), {_DEADLINE}) + {_STEP}, picked.send_at)"
"""As `models.message.due_now` has it for what comes at that time."""

_ATTEMPT = """m.attempts || jsonb_build_array(jsonb_build_object(
    'at', clock_timestamp(), 'outcome', cast(:outcome as text), 'detail', cast(:reason as text)))"""


@dataclass(frozen=True, slots=True)
class Move:
    """which: the messages that may be moved, as a condition. changes: what is written to them."""

    which: str
    changes: str
    finishes: bool = False
    """They reach an outcome: the follow-up logs them and tells the webhooks."""

    def statement(self, picked: str) -> TextClause:
        also, told = (_FINISH, _TOLD) if self.finishes else ("", "")
        return text(_MOVE.format(picked=picked.format(which=self.which), changes=self.changes, also=also, told=told))


def _states(state: State) -> str:
    return ", ".join(f"'{before}'" for before in predecessors(state))


PARK = Move(
    "state in ('queued', 'claimed') and due_at is distinct from :held",
    # A claimed one is taken out of its worker's hand: only what is still claimed is ever put on the wire.
    "state = 'queued', due_at = :held",
)
LET_GO = Move("state = 'queued' and due_at >= :held", f"due_at = {_PLACE}")
RESCHEDULE = Move("state = 'queued' and due_at < :held", f"due_at = {_DUE}, reason = null")
CANCEL = Move(
    f"state in ({_states(State.CANCELLED)})",
    f"""state = case when {_AT_THE_PROVIDER} then 'sent' else 'cancelled' end::message_state,
        due_at = null, finished_at = clock_timestamp(), reason = :reason""",
    finishes=True,
)
_AGAIN = f"""state = 'queued', due_at = {_DUE}, finished_at = null, crashes = 0, reason = null, attempts = {_ATTEMPT},
    outcomes = (select jsonb_object_agg(one.key, one.value) from jsonb_each(m.outcomes) one
                where one.value->>'outcome' = 'accepted')"""  # noqa: S608 -- constants
_HAS_MAILER = "exists (select from mailer where mailer.id = mailer_id and mailer.deleted_at is null for key share)"
"""Under a lock, so that the mailer cannot be deleted before the messages are seen to be open again."""
RETRY_FAILED = Move(f"state = 'failed' and {_HAS_MAILER}", _AGAIN)
RETRY = Move(f"state in ('failed', 'suppressed') and {_HAS_MAILER}", _AGAIN)
SEND_AGAIN = Move(
    f"(state in ('failed', 'suppressed') or state = 'uncertain' and due_at >= :held) and {_HAS_MAILER}", _AGAIN
)
MARK_SENT = Move(
    "state = 'uncertain' and due_at >= :held",
    f"""state = 'sent', due_at = null, finished_at = clock_timestamp(), reason = null, attempts = {_ATTEMPT},
        provider_message_id = coalesce(:provider_message_id, m.provider_message_id)""",
    finishes=True,
)

_NO_TIMES = "null::timestamptz as send_at, null::timestamptz as expires_at"
_PICK_ONE = f"select m.id, {_NO_TIMES} from message m where id = :id and ({{which}}) for no key update"  # noqa: S608

_PICK_THESE = f"""
    select m.id, {_NO_TIMES} from message m
    where id = any(cast(:ids as uuid[])) and ({{which}}) order by id for no key update skip locked
"""  # noqa: S608 -- a constant

# Inside one submission along the index, so that a chunk of a very large one costs no more than its own rows.
_PICK_SOME = """
    select m.id, submission.send_at, submission.expires_at
    from unnest(cast(:submissions as uuid[])) as asked (id) join submission on submission.id = asked.id,
         lateral (select id from message where submission_id = asked.id and id > :after and ({which})
                  order by id limit :chunk for no key update skip locked) m
"""

_MOVE = """
    with found as materialized ({picked}),
    picked as (select id, send_at, expires_at, row_number() over (order by id) as position from found),
    moved as (
        update message m set {changes} from picked where m.id = picked.id
        returning m.id, m.mailer_id, m.priority, m.submission_id
    ){also}
    select (select count(*) from moved) as number, (select id from moved order by id desc limit 1) as last,
           array(select distinct mailer_id::text || ' ' || priority from moved) as lanes{told}
"""

_FINISH = f""", numbered as (
        select id, (row_number() over (order by id) - 1) / 500 as part from moved
    ), outbox as (
        insert into followup (message_ids) select array_agg(id order by id) from numbered group by part
    ), announced as (
        select pg_notify('{OUTCOME_CHANNEL}', moved.id::text)
        from moved join submission on submission.id = moved.submission_id where submission.awaited
    )"""  # noqa: S608 -- constants
_TOLD = ", (select count(*) from announced) as told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one transaction moved. ``lanes``: those that have something due now."""

    count: int
    lanes: frozenset[Lane]


def move_one(db: Connection | Session, move: Move, message_id: UUID, **values: Any) -> Moved | None:
    """Moves one message if it is in a state that allows it; None if not. The caller commits."""
    row = db.execute(move.statement(_PICK_ONE), _parameters(values) | {"id": message_id}).one()
    return _moved(row) if row.number else None


def move_these(db: Connection | Session, move: Move, ids: Sequence[UUID], **values: Any) -> Moved:
    """Moves those of the messages that are in a state that allows it, in order. The caller commits."""
    return _moved(db.execute(move.statement(_PICK_THESE), _parameters(values) | {"ids": list(ids)}).one())


def move_some(db: Connection | Session, move: Move, groups: Sequence[Sequence[UUID]], **values: Any) -> Iterator[Moved]:
    """Moves all messages of some submissions (see `in_groups`); the caller commits after each item.

    ``due`` goes up by a microsecond from one message to the next, so that they leave in order.
    """
    statement = move.statement(_PICK_SOME)
    offset = 0
    for group in groups:
        after: UUID | None = _FIRST
        while after is not None:
            where = {"submissions": list(group), "after": after, "chunk": CHUNK, "offset": offset}
            row = db.execute(statement, _parameters(values) | where).one()
            offset += row.number
            after = row.last if row.number >= CHUNK else None
            yield _moved(row)


def in_groups(submissions: Sequence[tuple[UUID, int]]) -> list[list[UUID]]:
    """Submissions, with their number of messages, put together to chunks: one large one, or many small ones."""
    groups: list[list[UUID]] = []
    room = 0
    for submission_id, total in submissions:
        if total > room:
            groups.append([])
            room = CHUNK - 1
        groups[-1].append(submission_id)
        room -= total
    return groups


def _parameters(values: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "held": UNTIL_SOMEBODY_ACTS,
        "due": datetime.now(UTC),
        "offset": 0,
        "reason": None,
        "outcome": RETRIED,
        "provider_message_id": None,
    }
    return defaults | values


def _moved(row: Any) -> Moved:
    lanes = (lane.split() for lane in row.lanes)
    return Moved(
        count=row.number, lanes=frozenset(send_lane(UUID(mailer_id), int(priority)) for mailer_id, priority in lanes)
    )


_UNSETTLED = """
    select exists (
        select from unnest(cast(:submissions as uuid[])) as asked (id),
        lateral (select from message where submission_id = asked.id and (state = 'sending' or {which})) m)
"""


def unsettled(db: Connection | Session, move: Move, submissions: Sequence[UUID]) -> bool:
    """Whether anything is on the wire, or could still be moved, at one moment."""
    parameters = {"submissions": list(submissions), "held": UNTIL_SOMEBODY_ACTS}
    return bool(db.execute(text(_UNSETTLED.format(which=move.which)), parameters).scalar_one())


_COUNT = text(f"""
    select m.state, {_AT_THE_PROVIDER} as at_the_provider, count(*) as number
    from unnest(cast(:submissions as uuid[])) as asked (id) join message m on m.submission_id = asked.id
    group by 1, 2
""")  # noqa: S608 -- constants


def count_states(db: Connection | Session, submissions: Sequence[UUID]) -> dict[str, int]:
    """Messages by state; every state is there."""
    counts = dict.fromkeys((state.value for state in State), 0)
    for row in db.execute(_COUNT, {"submissions": list(submissions)}):
        counts[row.state] += row.number
    return counts


def ledger(db: Connection | Session, submissions: Sequence[UUID]) -> dict[str, Any]:
    """What became of every message, in numbers that add up to ``total``.

    sent: at the provider, for at least one recipient. in_flight: on the wire at this moment. uncertain: was on the
    wire and nobody knows. failed: tried in vain. never_sent: everything else. ``counts`` has the single states.
    """
    counts = dict.fromkeys((state.value for state in State), 0)
    shares = dict.fromkeys(("sent", "in_flight", "uncertain", "failed", "never_sent"), 0)
    for row in db.execute(_COUNT, {"submissions": list(submissions)}):
        counts[row.state] += row.number
        shares[_share(State(row.state), row.at_the_provider)] += row.number
    return {**shares, "total": sum(counts.values()), "counts": counts}


def _share(state: State, at_the_provider: bool) -> str:
    if state in ACCEPTED or at_the_provider:
        return "sent"
    return {State.SENDING: "in_flight", State.UNCERTAIN: "uncertain", State.FAILED: "failed"}.get(state, "never_sent")
