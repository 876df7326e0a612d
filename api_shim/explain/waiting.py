"""Why a message that is not finished waits: a rule for each reason, in the order in which they matter."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from api_shim.explain.cause import Cause, Why
from api_shim.explain.facts import Facts
from api_shim.explain.stopped import STOPPED, Rule, database_recovering
from api_shim.ops import words
from models.message import UNTIL_SOMEBODY_ACTS, State
from providers import adapter
from providers.base import Provider
from worker.lease import CRASHES_TO_ISOLATE
from worker.outcome import MOVED
from worker.pace import Standing

SLOW_SECONDS = 0.5
"""A lane with a lease older than this takes nothing more in hand: worker/lease.py."""


def causes_of_waiting(facts: Facts) -> Iterator[Cause]:
    """The reasons why an open message is where it is, the first to be ended first."""
    for rule in RULES[State(facts.message.state)]:
        if cause := rule(facts):
            yield cause


def _throttled(facts: Facts) -> Cause | None:
    until = facts.mailer.throttled_until
    if until is None or until <= facts.now:
        return None
    left = (until - facts.now).total_seconds()
    return Cause(
        why=Why.THROTTLED,
        what=f"{facts.mailer.provider} asked mailer {facts.mailer.name} for a pause, which ends in {words.span(left)}.",
        do="Wait. If it happens often, lower caps.per_second of the mailer.",
        until=until,
        numbers={"seconds": round(left, 1)},
    )


def _circuit_open(facts: Facts) -> Cause | None:
    if not facts.circuit_open:
        return None
    return Cause(
        why=Why.CIRCUIT_OPEN,
        what=f"Mailer {facts.mailer.name} has not got anything through for a while; its mail is given to its fallback.",
        do="Wait. What the fallback may not carry stays, and is tried again here.",
        numbers={"fallback_id": str(facts.mailer.fallback_id)},
    )


def _scheduled(facts: Facts) -> Cause | None:
    due_at, send_at = facts.message.due_at, facts.submission.send_at
    if send_at is None or due_at is None or facts.message.tries or not facts.now < due_at < UNTIL_SOMEBODY_ACTS:
        return None
    left = (due_at - facts.now).total_seconds()
    return Cause(
        why=Why.SCHEDULED,
        what=f"It is scheduled: send_at comes in {words.span(left)}.",
        do="Wait, or set another time with PATCH /v1/submissions/{ref_id}.",
        until=due_at,
        numbers={"seconds": round(left, 1)},
    )


def _backoff(facts: Facts) -> Cause | None:
    due_at, attempts = facts.message.due_at, facts.message.attempts
    if due_at is None or not facts.message.tries or not facts.now < due_at < UNTIL_SOMEBODY_ACTS:
        return None
    last = attempts[-1] if attempts else {}
    said = " ".join(str(last[name]) for name in ("code", "detail") if last.get(name)) or "no answer"
    left = (due_at - facts.now).total_seconds()
    return Cause(
        why=Why.BACKOFF,
        what=f"Attempt {facts.message.tries} failed for the time being ({said}); the next is in {words.span(left)}.",
        do="Wait.",
        until=due_at,
        numbers={"attempts": facts.message.tries, "seconds": round(left, 1)},
    )


def _worker_died(facts: Facts) -> Cause | None:
    crashes = facts.message.crashes
    if not crashes:
        return None
    return Cause(
        why=Why.WORKER_DIED,
        what=f"A worker died {crashes} times with it in hand. It goes alone; at {CRASHES_TO_ISOLATE} it is given up.",
        do="Look into the log of the workers.",
        numbers={"crashes": crashes},
    )


def _paced(facts: Facts) -> Cause | None:
    """The limit that has nothing left for this priority, or that the mails before it use up."""
    before = facts.lane.before if facts.lane else 0
    tight = [one for one in facts.limits if _left(facts, one) <= before]
    if not tight or not _is_due(facts):
        return None
    worst = max(tight, key=lambda one: one.limit.period)
    name = worst.limit.name.replace("_", " ")
    return Cause(
        why=Why.PACED,
        what=f"Mailer {facts.mailer.name} may send {worst.limit.count} {name}; left are {_left(facts, worst)}.",
        do="Wait; the limit delays and never fails. Raise the mailer's caps if its provider allows more.",
        until=None if _left(facts, worst) else facts.now + timedelta(seconds=worst.resets_in),
        numbers={
            "limit": worst.limit.name,
            "count": worst.limit.count,
            "remaining": worst.remaining,
            "reserved_for_high": worst.limit.reserved(facts.message.priority),
            "resets_in_seconds": round(worst.resets_in, 1),
        },
    )


def _left(facts: Facts, standing: Standing) -> int:
    return max(0, standing.remaining - standing.limit.reserved(facts.message.priority))


def _is_due(facts: Facts) -> bool:
    return facts.message.due_at is not None and facts.message.due_at <= facts.now


def _server_slow(facts: Facts) -> Cause | None:
    slowest = facts.lane.slowest_seconds if facts.lane else None
    if slowest is None or slowest <= SLOW_SECONDS or not _is_due(facts):
        return None
    return Cause(
        why=Why.SERVER_SLOW,
        what=f"A batch of the same mailer has waited {words.span(slowest)} for the mail server; no other is begun.",
        do="Wait, and if it lasts look at the mail server.",
        numbers={"seconds": round(slowest, 1), "in_hand": facts.lane.in_hand if facts.lane else 0},
    )


def _suppressed(facts: Facts) -> Cause | None:
    if not facts.suppressed:
        return None
    reasons = ", ".join(sorted(set(facts.suppressed.values())))
    return Cause(
        why=Why.SUPPRESSED_SOON,
        what=f"Every recipient is on the suppression list by now ({reasons}): it will not be sent.",
        do="Remove them from the list, if they agree, before its turn comes.",
        numbers={"recipients": len(facts.suppressed)},
    )


def _expires(facts: Facts) -> Cause | None:
    expires_at, due_at = facts.submission.expires_at, facts.message.due_at
    if expires_at is None or due_at is None:
        return None
    left = (expires_at - facts.now).total_seconds()
    if expires_at > max(due_at, facts.now + timedelta(minutes=EXPIRES_SOON_MINUTES)):
        return None
    told = f"expires in {words.span(left)}" if left > 0 else "has expired and ends as soon as a worker looks at it"
    return Cause(
        why=Why.EXPIRED_SOON,
        what=f"It {told}.",
        do="Submit it again with a later expires_at, or without one, if it is still wanted.",
        until=expires_at,
        numbers={"seconds": round(left, 1)},
    )


EXPIRES_SOON_MINUTES = 5


def _moved(facts: Facts) -> Cause | None:
    if not any(attempt["outcome"] == MOVED for attempt in facts.message.attempts):
        return None
    said = next(one.get("detail") for one in reversed(facts.message.attempts) if one["outcome"] == MOVED)
    return Cause(why=Why.MOVED, what=f"It was {said}.")


def _in_turn(facts: Facts) -> Cause | None:
    if facts.lane is None or not _is_due(facts):
        return None
    before, rate = facts.lane.before, facts.lane.rate
    at_rate = f" They go at {words.rate(rate)} a second." if rate and before else ""
    ahead = " Its expires_at has put it ahead of others." if _is_ahead(facts) else ""
    what = f"It is due, with {words.number_of(before, 'mail')} of its mailer before it.{at_rate}"
    return Cause(
        why=Why.IN_TURN,
        what=(what if before else "It is due and next in its lane.") + ahead,
        numbers={
            "before": before,
            "in_hand": facts.lane.in_hand,
            "per_second": None if rate is None else round(rate, 2),
        },
    )


def _is_ahead(facts: Facts) -> bool:
    """Dated back for its deadline, as `models.message.due_now` does."""
    message = facts.message
    return message.due_at is not None and message.due_at < message.created_at - timedelta(seconds=1)


def _worker_lost(facts: Facts) -> Cause | None:
    if facts.lease is not None and facts.lease.alive:
        return None
    return Cause(
        why=Why.WORKER_LOST,
        what="The worker that had it in hand is gone.",
        do="Nothing: the beat takes it back within seconds. Requeue orphaned on the page of queues does it at once.",
    )


def _in_hand(facts: Facts) -> Cause | None:
    if facts.lease is None or not facts.lease.alive:
        return None
    why = {State.CLAIMED: Why.IN_HAND, State.SENDING: Why.ON_THE_WIRE}.get(
        State(facts.message.state), Why.BEING_LOOKED_UP
    )
    held = (facts.now - facts.lease.created_at).total_seconds()
    does = {
        Why.IN_HAND: "has it in a batch of {mails}, and has not begun with it",
        Why.ON_THE_WIRE: "is sending it, in a batch of {mails}",
        Why.BEING_LOOKED_UP: "asks the provider what became of it, in a batch of {mails}",
    }[why].format(mails=words.count(facts.lease.mails))
    return Cause(
        why=why,
        what=f"Worker {facts.lease.worker} {does}, since {words.span(held)}.",
        until=facts.lease.expires_at,
        numbers={"worker": facts.lease.worker, "batch": facts.lease.mails, "seconds": round(held, 1)},
    )


def _uncertain(facts: Facts) -> Cause | None:
    """An uncertain message that nobody has in hand: to be asked about, or to be decided by a person."""
    due_at, last = facts.message.due_at, facts.message.reason or "no answer is on record"
    if due_at is None:
        return None
    if due_at >= UNTIL_SOMEBODY_ACTS:
        return Cause(
            why=Why.AWAITING_DECISION,
            what=f"It was on the wire and nobody can tell whether it arrived ({last}). It is held, not sent twice.",
            do="Look it up at the provider by its Message-ID, then mark it as sent or send it again.",
            needs_person=True,
        )
    asked = sum(one["outcome"].startswith("lookup_") for one in facts.message.attempts)
    can_ask = adapter(facts.mailer.provider).lookup is not Provider.lookup
    how = f"the provider is asked, for the {asked + 1}. time" if can_ask else "the mailer's policy decides"
    return Cause(
        why=Why.AWAITING_LOOKUP,
        what=f"It was on the wire and no answer is on record ({last}); next, {how}.",
        do="Wait.",
        until=due_at,
        numbers={"asked": asked, "seconds": round(max(0.0, (due_at - facts.now).total_seconds()), 1)},
    )


RULES: dict[State, Sequence[Rule]] = {
    State.QUEUED: (
        *STOPPED, _suppressed, _expires, _throttled, _circuit_open, _scheduled, _backoff, _worker_died, _paced,
        _server_slow, _moved, _in_turn,
    ),
    State.CLAIMED: (_worker_lost, _in_hand, database_recovering),
    State.SENDING: (_worker_lost, _in_hand, database_recovering),
    State.UNCERTAIN: (_in_hand, _uncertain, *STOPPED, _throttled),
}  # fmt: skip
"""State of an open message -> the rules that are asked, in order."""
