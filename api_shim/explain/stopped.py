"""What stops a lane, or all of it: rules that hold for whatever waits in it."""

from collections.abc import Callable, Sequence

from api_shim.explain.cause import Cause, Why
from api_shim.explain.facts import Facts
from api_shim.ops import words
from models.mailer import MailerStatus
from models.message import UNTIL_SOMEBODY_ACTS, CampaignStatus
from worker.liveness import BEAT_SILENT_SECONDS

Rule = Callable[[Facts], Cause | None]


def database_recovering(facts: Facts) -> Cause | None:
    if not facts.recovering:
        return None
    what = "The database is recovering and takes no writes yet; workers wait for it."
    return Cause(why=Why.DATABASE_RECOVERING, what=what, do="Wait, or look at the log of PostgreSQL.")


def _mailer(facts: Facts) -> Cause | None:
    mailer = facts.mailer
    if mailer.deleted_at is not None:
        return Cause(
            why=Why.MAILER_DELETED,
            what=f"Its mailer {mailer.name} was deleted.",
            do="Cancel it, and send it again through another mailer.",
            needs_person=True,
        )
    if mailer.status == MailerStatus.RECONNECT_REQUIRED:
        reason = mailer.status_reason or f"{mailer.provider} refused its credentials"
        return Cause(
            why=Why.RECONNECT_REQUIRED,
            what=f"Mailer {mailer.name} must be reconnected: {reason}.",
            do=f"Where it says nothing else: POST /v1/mailers/{mailer.id}/connect for a mailbox, PATCH its credentials "
            "otherwise.",
            needs_person=True,
        )
    if mailer.status == MailerStatus.PAUSED:
        return Cause(
            why=Why.MAILER_PAUSED,
            what=f"An operator paused mailer {mailer.name}.",
            do=f"POST /v1/mailers/{mailer.id}/resume, or Resume on the page of mailers.",
            needs_person=True,
        )
    return None


def queue_paused(facts: Facts) -> Cause | None:
    if facts.paused is None:
        return None
    said = f": {facts.paused.reason}" if facts.paused.reason else ""
    since = (facts.now - facts.paused.paused_at).total_seconds()
    return Cause(
        why=Why.QUEUE_PAUSED,
        what=f"The whole queue {facts.queue} has been paused for {words.span(since)}{said}.",
        do=f"postroad queue resume {facts.queue}",
        needs_person=True,
        numbers={"queue": facts.queue, "paused_seconds": round(since, 1)},
    )


def _campaign(facts: Facts) -> Cause | None:
    name = facts.submission.campaign_id
    if facts.campaign == CampaignStatus.CANCELLED:
        return Cause(
            why=Why.CAMPAIGN_CANCELLED,
            what=f"Its campaign {name} is cancelled; what is left of it is being taken out of the queue.",
            do="Nothing. To send it all the same, submit it under another campaign_id.",
        )
    held = facts.message.due_at is not None and facts.message.due_at >= UNTIL_SOMEBODY_ACTS
    if facts.campaign != CampaignStatus.PAUSED or not held:
        return None
    return Cause(
        why=Why.CAMPAIGN_PAUSED,
        what=f"Its campaign {name} is paused.",
        do=f"postroad campaign resume {name}",
        needs_person=True,
    )


def no_worker(facts: Facts) -> Cause | None:
    if facts.workers:
        return None
    return Cause(
        why=Why.NO_WORKER,
        what=f"No worker of {facts.queue} is alive.",
        do=f"Start one: postroad worker --queues {facts.queue}",
        needs_person=True,
        numbers={"workers": 0},
    )


def _beat_silent(facts: Facts) -> Cause | None:
    silent = facts.beat_silent
    if silent is not None and silent <= BEAT_SILENT_SECONDS:
        return None
    since = "was never heard of" if silent is None else f"has been silent for {words.span(silent)}"
    return Cause(
        why=Why.BEAT_SILENT,
        what=f"The beat {since}: retries, schedules and recovery wait for it.",
        do="Start one: postroad beat",
        needs_person=_waits_for_the_beat(facts),
        numbers={"silent_seconds": None if silent is None else round(silent, 1)},
    )


def _waits_for_the_beat(facts: Facts) -> bool:
    """What lies in the future is found by the beat alone; what is due may have its bell already."""
    due_at = facts.message.due_at
    return due_at is not None and due_at > facts.now


def _broker_away(facts: Facts) -> Cause | None:
    if not facts.broker_away:
        return None
    return Cause(
        why=Why.BROKER_AWAY,
        what="Redis does not answer, so no bell reaches a worker. Nothing is lost: the mail is in PostgreSQL.",
        do="Start Redis, or look at POSTROAD_REDIS_URL; the beat rings within a second after it is back.",
        needs_person=True,
    )


STOPPED: Sequence[Rule] = (
    database_recovering, _mailer, queue_paused, _campaign, no_worker, _broker_away, _beat_silent,
)  # fmt: skip
"""The rules, in the order in which they matter."""
