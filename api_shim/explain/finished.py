"""What became of a finished message, why, and what can still be done about it."""

from collections.abc import Callable, Iterator, Mapping

from api_shim.explain.cause import Cause, Why
from api_shim.explain.facts import Facts
from api_shim.explain.stopped import no_worker, queue_paused
from api_shim.ops import words
from models.message import State
from providers import CONFIRMS_DELIVERY
from worker.delivery import NOT_COMPOSED


def causes_of_the_end(facts: Facts) -> Iterator[Cause]:
    """What became of it, and the follow-up if that is still open."""
    yield OUTCOMES[State(facts.message.state)](facts)
    if facts.followup is not None:
        yield _followup(facts)
        yield from filter(None, (queue_paused(facts), no_worker(facts)))


def _followup(facts: Facts) -> Cause:
    row = facts.followup
    age = (facts.now - row.created_at).total_seconds() if row is not None else 0.0
    if row is None or not row.tries:
        return Cause(
            why=Why.FOLLOWUP_OPEN,
            what=f"Log, timelines and webhooks are not written yet, {words.span(age)} after the outcome.",
            do="Wait; if it lasts, look whether a worker of followup is alive, and whether that queue is paused.",
            numbers={"seconds": round(age, 1), "outbox": row.outbox if row is not None else 0},
        )
    return Cause(
        why=Why.FOLLOWUP_FAILED,
        what=f"Log, timelines and webhooks could not be written in {row.tries} tries: {row.error or 'no reason given'}",
        do="It repeats by itself and sends no mail. Try now on the page Stuck does not wait.",
        until=row.due_at,
        numbers={"tries": row.tries, "seconds": round(age, 1)},
    )


def _sent(facts: Facts) -> Cause:
    provider = facts.mailer.provider
    if provider in CONFIRMS_DELIVERY:
        return Cause(
            why=Why.AWAITING_REPORT,
            what=f"{provider} took it and has not reported delivery yet.",
            do="Wait. If reports never come, see whether its webhook is set up at the provider.",
        )
    return Cause(why=Why.ACCEPTED, what=f"{provider} took it. It reports no delivery: this is the best news there is.")


def _delivered(_: Facts) -> Cause:
    return Cause(why=Why.DELIVERED, what="The receiving server took it.")


def _bounced(facts: Facts) -> Cause:
    return Cause(
        why=Why.BOUNCED,
        what=f"It came back after the provider had taken it{_said(facts)}.",
        do="Check the address. After a hard bounce it is on the suppression list.",
    )


def _complained(facts: Facts) -> Cause:
    return Cause(
        why=Why.COMPLAINED,
        what=f"A recipient reported it as spam{_said(facts)}.",
        do="Send no more mail there; the address is on the suppression list.",
    )


_FAILURES: Mapping[str, tuple[Why, str, str]] = {
    "given up": (Why.GIVEN_UP, "Every attempt failed", "Send it again when the trouble is over: retry."),
    NOT_COMPOSED: (Why.NOT_COMPOSED, "It could not be made into a mail", "Correct the content and submit it again."),
    "isolated": (Why.ISOLATED, "It was taken out of the queue", "Look into the log of the workers, then retry."),
}
"""How the reason of a failure begins -> what it was, in words, and what to do."""


def _failed(facts: Facts) -> Cause:
    """By the reason that the worker left; without one that is known, by what the provider said last."""
    reason = facts.message.reason or ""
    for beginning, (why, what, do) in _FAILURES.items():
        if reason.startswith(beginning):
            return Cause(why=why, what=f"{what}: {reason}.", do=do, numbers={"attempts": facts.message.tries})
    refused = any(attempt["outcome"] == "permanent" for attempt in facts.message.attempts)
    why = Why.REFUSED if refused else Why.FAILED
    what = f"{facts.mailer.provider} refused it for good" if refused else "It failed"
    do = "Correct what the provider names, usually the address, and send it again; retry repeats it as it is."
    return Cause(why=why, what=f"{what}{_said(facts)}.", do=do, numbers={"attempts": facts.message.tries})


def _cancelled(facts: Facts) -> Cause:
    return Cause(why=Why.CANCELLED, what=f"It was cancelled before it was sent{_said(facts)}.", do="Submit it again.")


def _suppressed(facts: Facts) -> Cause:
    return Cause(
        why=Why.SUPPRESSED,
        what=f"Every recipient is on the suppression list{_said(facts)}.",
        do="If they agree, remove them with postroad suppression remove, then retry.",
    )


def _expired(facts: Facts) -> Cause:
    return Cause(
        why=Why.EXPIRED,
        what=f"It could not be sent in time{_said(facts)}.",
        do="Submit it again with a later expires_at, or without one.",
    )


def _skipped(facts: Facts) -> Cause:
    return Cause(
        why=Why.SKIPPED,
        what=f"No recipient can get mail, as settings.validate found{_said(facts)}.",
        do="Correct the address, or submit it again without validation.",
    )


def _said(facts: Facts) -> str:
    """The reason on record, else the provider's last answer."""
    last = facts.message.attempts[-1] if facts.message.attempts else {}
    said = facts.message.reason or " ".join(str(last[name]) for name in ("code", "detail") if last.get(name))
    return f": {said.rstrip('.')}" if said else ""


OUTCOMES: Mapping[State, Callable[[Facts], Cause]] = {
    State.SENT: _sent,
    State.DELIVERED: _delivered,
    State.BOUNCED: _bounced,
    State.COMPLAINED: _complained,
    State.FAILED: _failed,
    State.CANCELLED: _cancelled,
    State.SUPPRESSED: _suppressed,
    State.EXPIRED: _expired,
    State.SKIPPED: _skipped,
}
"""State of a finished message -> what to say about it."""
