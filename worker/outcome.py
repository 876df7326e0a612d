"""What an outcome means for a message: pure functions of what was known, what the provider said and the policy.

How it is written down: `worker.outcome_rows`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from models.mailer import OnUncertain
from models.message import UNTIL_SOMEBODY_ACTS, State
from providers.base import Lookup, LookupAnswer, Outcome, Result
from worker.lease import Held
from worker.retry import Backoff, pause

PATIENCE: Mapping[Lookup, int] = {Lookup.CANNOT_TELL: 5, Lookup.UNANSWERED: 30}
"""How often that may be the answer about one uncertain mail before the mailer's policy decides.

A provider that does not know is soon believed, one that is away is waited for, about a day.
"""

LONGEST_LOOKUP_WAIT_SECONDS = 3600.0

RETRIED = "retried"
"""Outcome in the entry that a person's retry leaves among the attempts: what failed before it no longer counts."""

MOVED = "moved"
"""The same of mail that was given to another mailer: its attempts start anew."""

UNTRIED = "untried"
PUT_OFF = (Result.THROTTLED, Result.TRANSIENT, Result.ACCEPTED, UNTRIED)
"""Outcomes of attempts that left somebody for a later one. Refused credentials wait for a person, however long."""

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
    retry_for: timedelta = timedelta(days=3)
    """How long a mail that is always put off is tried again."""


class Verdict(NamedTuple):
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


def judge(message: Held, outcome: Outcome, policy: Policy) -> Verdict:
    """The verdict on a mail that was put on the wire.

    Each recipient has its own result (the whole's, unless the provider said otherwise). Those accepted or refused for
    good are decided; the mail is finished when all are, and otherwise goes on for the rest alone.
    """
    if outcome.result is Result.ACCEPTED and not outcome.recipients and not message.outcomes:
        return _accepted(message, outcome, policy)
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


def _accepted(message: Held, outcome: Outcome, policy: Policy) -> Verdict:
    """The verdict when everybody got it at the first go: nearly all of them."""
    return Verdict(
        message_id=message.id,
        was=State.SENDING,
        state=State.SENT,
        tries=message.tries + 1,
        attempt=_attempt(outcome, policy.now),
        provider_message_id=outcome.provider_message_id,
        rfc_message_id=outcome.rfc_message_id,
        provider_thread_id=outcome.provider_thread_id,
    )


def _go_on(message: Held, open_results: Sequence[Outcome], verdict: Verdict, policy: Policy) -> Verdict:
    """The verdict when recipients are left: the most doubtful of their results decides."""
    results = {one.result for one in open_results}
    reason = next(one.detail for one in open_results)
    waits = [one.retry_after for one in open_results if one.retry_after is not None]
    if Result.UNCERTAIN in results:
        due_at = policy.now + timedelta(seconds=policy.settle_seconds if policy.can_ask else 0)
        return verdict._replace(state=State.UNCERTAIN, due_at=due_at, reason=reason)
    if Result.CREDENTIALS in results:
        return verdict._replace(state=State.QUEUED, due_at=policy.now, reason=reason)
    since = _put_off_since(message, policy.now)
    if policy.now - since >= policy.retry_for:
        return verdict._replace(reason=f"given up: put off again and again since {since.isoformat()}: {reason}")
    if Result.THROTTLED in results:
        due_at = policy.now + timedelta(seconds=pause(max(waits, default=None)))
        return verdict._replace(state=State.QUEUED, due_at=due_at, reason=reason)
    if all(one.untried for one in open_results):
        return verdict._replace(state=State.QUEUED, due_at=policy.now, reason=reason)
    failures = 1 + sum(attempt["outcome"] in (Result.TRANSIENT, Result.ACCEPTED) for attempt in _since_retry(message))
    delay = policy.backoff.delay(failures)
    if delay is None:
        return verdict._replace(reason=f"given up after {failures} attempts: {reason}")
    due_at = policy.now + timedelta(seconds=max(delay, *waits, 0))
    return verdict._replace(state=State.QUEUED, due_at=due_at, reason=reason)


def judge_lookup(message: Held, answer: LookupAnswer, policy: Policy) -> Verdict:
    """The verdict on an uncertain mail after the provider was asked.

    A "yes" proves nothing about the rest of a shared mail of which an earlier attempt had reached somebody: all
    attempts carry the same reference.
    """
    if answer.answer is Lookup.ACCEPTED and _finished_state(message.outcomes) is State.SENT:
        earlier = "an earlier attempt reached other recipients of this mail; the answer may be about that one"
        answer = replace(answer, answer=Lookup.CANNOT_TELL, detail=earlier)
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
        return verdict._replace(
            state=State.QUEUED, due_at=policy.now, reason="the provider does not have it: sent again"
        )
    asked = _answered(message, answer.answer)
    if policy.can_ask and asked < PATIENCE[answer.answer]:
        again = policy.now + timedelta(seconds=_next_lookup(answer.answer, asked, policy.settle_seconds))
        return verdict._replace(state=State.UNCERTAIN, due_at=again, reason=answer.detail)
    if policy.on_uncertain == OnUncertain.RESEND:
        return verdict._replace(state=State.QUEUED, due_at=policy.now, reason="sent again: on_uncertain is resend")
    held = "held: the provider cannot tell whether it took this mail; mark it sent or send it again"
    return verdict._replace(state=State.UNCERTAIN, due_at=UNTIL_SOMEBODY_ACTS, reason=held)


def _answered(message: Held, answer: Lookup) -> int:
    """How often that was the answer since the mail was last on the wire, or in a person's hand."""
    asked = itertools.takewhile(lambda one: one["outcome"].startswith("lookup_"), reversed(message.attempts))
    return sum(one["outcome"] == f"lookup_{answer}" for one in asked)


def _next_lookup(answer: Lookup, asked: int, settle_seconds: float) -> float:
    """Seconds until the provider is asked again."""
    if answer is not Lookup.UNANSWERED:
        return settle_seconds
    return min(settle_seconds * 2.0**asked, max(settle_seconds, LONGEST_LOOKUP_WAIT_SECONDS))


def too_early(message: Held, policy: Policy) -> Verdict | None:
    """Puts the question off while the provider's index may still lag: a "not there" would be no proof.

    The doubt of a mail whose worker died begins when that was found out.
    """
    if not policy.can_ask or not message.attempts:
        return None
    last = message.attempts[-1]
    if last["outcome"] != Result.UNCERTAIN:
        return None
    settled_at = datetime.fromisoformat(last["at"]) + timedelta(seconds=policy.settle_seconds)
    if settled_at <= policy.now:
        return None
    return Verdict(
        message_id=message.id,
        was=State.UNCERTAIN,
        state=State.UNCERTAIN,
        tries=message.tries,
        due_at=settled_at,
        outcomes=message.outcomes or None,
        reason=last["detail"],
    )


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


def _since_retry(message: Held) -> Sequence[Mapping[str, Any]]:
    retries = [number for number, attempt in enumerate(message.attempts, 1) if attempt["outcome"] in (RETRIED, MOVED)]
    return message.attempts[retries[-1] :] if retries else message.attempts


def _put_off_since(message: Held, now: datetime) -> datetime:
    """When it was first put off, since a person last had it sent again."""
    times = (attempt["at"] for attempt in _since_retry(message) if attempt["outcome"] in PUT_OFF)
    first = next(times, "")
    return datetime.fromisoformat(first) if first else now


def _finished_state(outcomes: Mapping[str, Any]) -> State:
    return State.SENT if any(one["outcome"] == Result.ACCEPTED for one in outcomes.values()) else State.FAILED


def _one(outcome: Outcome) -> dict[str, str]:
    """What is kept of one recipient's outcome."""
    kept = {"outcome": outcome.result.value, "detail": outcome.detail}
    return kept | {"code": outcome.code} if outcome.code else kept


def _attempt(outcome: Outcome, at: datetime) -> dict[str, Any]:
    return {"at": at.isoformat(), **_one(outcome)} | ({"outcome": UNTRIED} if outcome.untried else {})
