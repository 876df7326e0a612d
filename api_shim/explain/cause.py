"""A reason why a message is where it is. `Why` is the vocabulary; docs/explain.md says the same to people."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class Why(enum.StrEnum):
    """What holds a message back, or what became of it."""

    DATABASE_RECOVERING = "database_recovering"
    """The database answers, but takes no writes yet."""
    MAILER_DELETED = "mailer_deleted"
    RECONNECT_REQUIRED = "reconnect_required"
    """The provider refused the mailer's credentials."""
    MAILER_PAUSED = "mailer_paused"
    QUEUE_PAUSED = "queue_paused"
    """An operator stopped the whole queue."""
    CAMPAIGN_PAUSED = "campaign_paused"
    CAMPAIGN_CANCELLED = "campaign_cancelled"
    """Its campaign is being cancelled."""
    NO_WORKER = "no_worker"
    BEAT_SILENT = "beat_silent"
    BROKER_AWAY = "broker_away"
    THROTTLED = "throttled"
    """The provider asked for a pause."""
    CIRCUIT_OPEN = "circuit_open"
    """The mailer has not got anything through for a while, and has a fallback."""
    EXPIRED_SOON = "expired_soon"
    """Its ``expires_at`` comes before its turn."""
    SUPPRESSED_SOON = "suppressed_soon"
    """Its recipients are on the suppression list by now."""
    SCHEDULED = "scheduled"
    BACKOFF = "backoff"
    """The last attempt failed for the time being."""
    WORKER_DIED = "worker_died"
    """A worker died with it in hand: it goes alone."""
    PACED = "paced"
    """The mailer's own limit is used up for now."""
    SERVER_SLOW = "server_slow"
    """A batch of the lane waits for the mail server; no second one is begun."""
    MOVED = "moved"
    """It was given to the fallback of its first mailer."""
    IN_TURN = "in_turn"
    """It is due, and others are before it."""
    IN_HAND = "in_hand"
    """A worker has it and has not put it on the wire."""
    ON_THE_WIRE = "on_the_wire"
    WORKER_LOST = "worker_lost"
    """The worker that has it is gone; the beat takes it back."""
    BEING_LOOKED_UP = "being_looked_up"
    """The provider is being asked what became of it."""
    AWAITING_LOOKUP = "awaiting_lookup"
    AWAITING_DECISION = "awaiting_decision"
    """Nobody can tell whether it was sent: a person decides."""
    FOLLOWUP_OPEN = "followup_open"
    """Log, timelines and webhooks are not written yet."""
    FOLLOWUP_FAILED = "followup_failed"
    """They could not be written; it is tried again."""
    AWAITING_REPORT = "awaiting_report"
    """The provider took it and has not reported delivery."""
    ACCEPTED = "accepted"
    """The provider took it and never says more."""
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    REFUSED = "refused"
    """The provider refused it for good."""
    GIVEN_UP = "given_up"
    """Every attempt failed."""
    NOT_COMPOSED = "not_composed"
    ISOLATED = "isolated"
    """Worker after worker died with it in hand."""
    FAILED = "failed"
    """Any other failure; the reason says which."""
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason, in words and numbers."""

    why: Why
    what: str
    """A sentence for a person."""
    do: str = ""
    """What ends it; empty where nothing has to be done."""
    until: datetime | None = None
    """When it ends by itself, where that is known."""
    needs_person: bool = False
    """It does not end by itself."""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.why.value,
            "what": self.what,
            "do": self.do or None,
            "until": self.until,
            "needs_person": self.needs_person,
            "numbers": dict(self.numbers),
        }
