"""What an outcome means for a message, and how it is written down.

`judge` decides: a pure function from what was known, what the provider said and the policy. `record_verdicts` writes:
one statement for a whole slice, guarded by the state, the attempt and the lease, with the follow-up's outbox row in
the same commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from models.mailer import OnUncertain
from models.message import OPEN, TRANSITIONS, UNTIL_SOMEBODY_ACTS, State
from providers.base import Lookup, LookupAnswer, Outcome, Result
from worker.lease import Held
from worker.retry import Backoff, pause

OUTCOME_CHANNEL = "postroad_outcome"
"""PostgreSQL notifications for requests that wait: the message id, sent with the commit of its outcome."""

LOOKUPS = 5
"""Times a provider is asked about one uncertain mail before the mailer's policy decides."""

DECIDED = (Result.ACCEPTED, Result.PERMANENT)
"""Results after which a recipient is never tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the decision depends on besides the message and the answer."""

    now: datetime
    backoff: Backoff
    can_ask: bool
    """The provider can be asked what became of a mail."""
    settle_seconds: float
    on_uncertain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A message's next state and everything that is written with it."""

    message_id: UUID
    was: State
    state: State
    tries: int
    due_at: datetime | None = None
    attempt: Mapping[str, Any] | None = None
    provider_message_id: str | None = None
    rfc_message_id: str | None = None
    provider_thread_id: str | None = None
    outcomes: Mapping[str, Any] | None = None
    subject: str | None = None
    reason: str | None = None
    awaited: bool = False

    def __post_init__(self) -> None:
        if self.state is not self.was and self.state not in TRANSITIONS[self.was]:
            raise ValueError(f"a message may not go from {self.was} to {self.state}")


def judge(message: Held, outcome: Outcome, policy: Policy) -> Verdict:
    """The verdict on a mail that was put on the wire.

    Each recipient has its own result (the whole's, unless the provider said otherwise). Those accepted or refused for
    good are decided; the mail is finished when all are, and otherwise goes on for the rest alone.
    """
    results = {address: outcome.recipients.get(address, outcome) for address in message.pending}
    decided = {address: one for address, one in results.items() if one.result in DECIDED}
    outcomes = message.outcomes | {address: _one(one) for address, one in decided.items()}
    open_results = [one for address, one in results.items() if address not in decided]
    verdict = Verdict(
        message_id=message.id,
        was=State.SENDING,
        state=_finished_state(outcomes),
        tries=message.tries + 1,
        attempt=_attempt(outcome, policy.now),
        provider_message_id=outcome.provider_message_id,
        rfc_message_id=outcome.rfc_message_id,
        provider_thread_id=outcome.provider_thread_id,
        outcomes=outcomes if len(message.recipients) > 1 else None,
        reason=None if outcome.result is Result.ACCEPTED else outcome.detail,
    )
    return _go_on(message, open_results, verdict, policy) if open_results else verdict


def _go_on(message: Held, open_results: Sequence[Outcome], verdict: Verdict, policy: Policy) -> Verdict:
    """The verdict when recipients are left: the most doubtful of their results decides."""
    results = {one.result for one in open_results}
    reason = next(one.detail for one in open_results)
    waits = [one.retry_after for one in open_results if one.retry_after is not None]
    if Result.UNCERTAIN in results:
        due_at = policy.now + timedelta(seconds=policy.settle_seconds if policy.can_ask else 0)
        return replace(verdict, state=State.UNCERTAIN, due_at=due_at, reason=reason)
    if Result.CREDENTIALS in results:
        return replace(verdict, state=State.QUEUED, due_at=policy.now, reason=reason)
    if Result.THROTTLED in results:
        due_at = policy.now + timedelta(seconds=pause(max(waits, default=None)))
        return replace(verdict, state=State.QUEUED, due_at=due_at, reason=reason)
    failures = 1 + sum(attempt["outcome"] in (Result.TRANSIENT, Result.ACCEPTED) for attempt in message.attempts)
    delay = policy.backoff.delay(failures)
    if delay is None:
        return replace(verdict, reason=f"given up after {failures} attempts: {reason}")
    due_at = policy.now + timedelta(seconds=max(delay, *waits, 0))
    return replace(verdict, state=State.QUEUED, due_at=due_at, reason=reason)


def judge_lookup(message: Held, answer: LookupAnswer, policy: Policy) -> Verdict:
    """The verdict on an uncertain mail after the provider was asked."""
    attempt = {"at": policy.now.isoformat(), "outcome": f"lookup_{answer.answer.value}", "detail": answer.detail}
    verdict = Verdict(
        message_id=message.id,
        was=State.UNCERTAIN,
        state=State.SENT,
        tries=message.tries,
        attempt=attempt,
        provider_message_id=answer.provider_message_id,
        rfc_message_id=answer.rfc_message_id,
        provider_thread_id=answer.provider_thread_id,
        outcomes=message.outcomes or None,
    )
    if answer.answer is Lookup.ACCEPTED:
        return verdict
    if answer.answer is Lookup.NOT_ACCEPTED:
        return replace(
            verdict, state=State.QUEUED, due_at=policy.now, reason="the provider does not have it: sent again"
        )
    asked = sum(attempt["outcome"].startswith("lookup_") for attempt in message.attempts)
    if policy.can_ask and asked < LOOKUPS:
        again = policy.now + timedelta(seconds=policy.settle_seconds)
        return replace(verdict, state=State.UNCERTAIN, due_at=again, reason=answer.detail)
    if policy.on_uncertain == OnUncertain.RESEND:
        return replace(verdict, state=State.QUEUED, due_at=policy.now, reason="sent again: on_uncertain is resend")
    held = "held: the provider cannot tell whether it took this mail; mark it sent or send it again"
    return replace(verdict, state=State.UNCERTAIN, due_at=UNTIL_SOMEBODY_ACTS, reason=held)


def ended(message: Held, state: State, reason: str) -> Verdict:
    """The verdict on a claimed message that never reaches the wire."""
    return Verdict(
        message_id=message.id,
        was=State.CLAIMED,
        state=state,
        tries=message.tries,
        outcomes=message.outcomes or None,
        reason=reason,
    )


def _finished_state(outcomes: Mapping[str, Any]) -> State:
    return State.SENT if any(one["outcome"] == Result.ACCEPTED for one in outcomes.values()) else State.FAILED


def _one(outcome: Outcome) -> dict[str, str]:
    """What is kept of one recipient's outcome."""
    kept = {"outcome": outcome.result.value, "detail": outcome.detail}
    return kept | {"code": outcome.code} if outcome.code else kept


def _attempt(outcome: Outcome, at: datetime) -> dict[str, Any]:
    return {"at": at.isoformat(), **_one(outcome)}


# A slice's verdicts travel as one JSON array. A worker that comes back after its lease was ended may still report on
# the very
# attempt it made (the message is uncertain and no later attempt has begun): what it knows is better than asking.
_RECORD = text(f"""
    with verdict as materialized (
        select * from jsonb_to_recordset(cast(:verdicts as jsonb)) as v(
            message_id uuid, was message_state, state message_state, tries int, due_at timestamptz, attempt jsonb,
            provider_message_id text, rfc_message_id text, provider_thread_id text, outcomes jsonb, subject text,
            reason text, awaited bool, finished bool)
    ), written as (
        update message m
        set state = v.state, due_at = v.due_at,
            attempts = case when v.attempt is null then m.attempts else m.attempts || v.attempt end,
            provider_message_id = coalesce(v.provider_message_id, m.provider_message_id),
            rfc_message_id = coalesce(v.rfc_message_id, m.rfc_message_id),
            provider_thread_id = coalesce(v.provider_thread_id, m.provider_thread_id),
            outcomes = v.outcomes, subject = coalesce(v.subject, m.subject), reason = v.reason,
            finished_at = case when v.finished then clock_timestamp() end
        from verdict v
        where m.id = v.message_id and m.tries = v.tries
          and (m.lease_id = :lease_id and m.state = v.was or v.was = 'sending' and m.state = 'uncertain')
        returning m.id, v.finished, v.awaited
    ), outbox as (
        insert into followup (message_ids)
        select array_agg(id) from written where finished having count(*) > 0
    ), announced as (
        select pg_notify('{OUTCOME_CHANNEL}', id::text) from written where finished and awaited
    )
    select id, (select count(*) from announced) from written
""")  # noqa: S608 -- a constant

_LATE = text("""
    update message m set attempts = m.attempts || jsonb_build_array(v.attempt || '{"late": true}')
    from jsonb_to_recordset(cast(:verdicts as jsonb)) as v(message_id uuid, attempt jsonb)
    where m.id = v.message_id and v.attempt is not null
""")


def record_verdicts(connection: Connection, lease_id: int, verdicts: Sequence[Verdict]) -> None:
    """Writes a slice's verdicts. One that was overtaken changes no state, but stays on the message as evidence."""
    rows = [_row(verdict) for verdict in verdicts]
    written = connection.execute(_RECORD, {"verdicts": orjson.dumps(rows).decode(), "lease_id": lease_id}).scalars()
    if late := {verdict.message_id for verdict in verdicts} - set(written):
        overtaken = [row for row in rows if row["message_id"] in late]
        connection.execute(_LATE, {"verdicts": orjson.dumps(overtaken).decode()})


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        "message_id": verdict.message_id,
        "was": verdict.was,
        "state": verdict.state,
        "tries": verdict.tries,
        "due_at": verdict.due_at,
        "attempt": verdict.attempt,
        "provider_message_id": verdict.provider_message_id,
        "rfc_message_id": verdict.rfc_message_id,
        "provider_thread_id": verdict.provider_thread_id,
        "outcomes": verdict.outcomes,
        "subject": verdict.subject,
        "reason": verdict.reason,
        "awaited": verdict.awaited,
        "finished": verdict.state not in OPEN,
    }
