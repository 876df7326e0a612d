"""Every series of `/metrics`: its name without the prefix, what kind it is, its labels and what it says.

docs/metrics.md is made from this table, and whatever counts or measures names an entry of it.
"""

import enum
from dataclasses import dataclass

PREFIX = "postroad_"


class Kind(enum.StrEnum):
    """What a series is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds in seconds, without the infinite one."""

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


def _counter(name: str, help_: str, *labels: str) -> Series:
    return Series(name=name, kind=Kind.COUNTER, labels=labels, help=help_)


def _gauge(name: str, help_: str, *labels: str) -> Series:
    return Series(name=name, kind=Kind.GAUGE, labels=labels, help=help_)


def _histogram(name: str, help_: str, *labels: str, buckets: tuple[float, ...]) -> Series:
    return Series(name=name, kind=Kind.HISTOGRAM, labels=labels, help=help_, buckets=buckets)


# fmt: off
ACCEPTED = _counter("messages_accepted_total", "Messages that were stored, by the request shape they came in.", "lane", "shape")
FINISHED = _counter("messages_finished_total", "Messages that reached an outcome and were logged; outcome is the message's state.", "lane", "provider", "outcome")
DELIVERY = _histogram("delivery_seconds", "From the time a message was accepted, or was to be sent, until its provider took it.", "lane", buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600))
REQUEST = _histogram("provider_request_seconds", "One call of a provider, which may carry several mails; result is the worst of its outcomes.", "provider", "result", buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
ERRORS = _counter("provider_errors_total", "Mails that a provider did not take at an attempt, by the class of its answer.", "provider", "class")
THROTTLED = _counter("provider_throttled_seconds_total", "Time that mailers were told to wait by their providers.", "provider")
WEBHOOK_ATTEMPTS = _counter("webhook_attempts_total", "Webhook requests: delivered, refused, gone (410), timeout or unreachable.", "result")
HTTP = _histogram("http_request_seconds", "Requests to the API by route, as its pattern, and status.", "route", "status", buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))

DEPTH = _gauge("queue_depth", "Work in a queue: ready, scheduled (retry_waiting and parked are parts of it), in_flight, uncertain or failed.", "lane", "state")
OLDEST = _gauge("queue_oldest_age_seconds", "Age of the oldest work that is due; 0 where nothing is.", "lane")
COMING = _gauge("queue_in_per_second", "Work that came in, averaged over 10 s.", "lane")
GOING = _gauge("queue_out_per_second", "Work that was done, averaged over 10 s.", "lane")
WORKERS = _gauge("workers", "Worker processes that were heard of in the last 15 s.", "lane")
FOLLOWUP_LAG = _gauge("followup_lag_seconds", "Age of the oldest outcome that is not in the log.")
WEBHOOKS_PENDING = _gauge("webhook_pending", "Webhook deliveries that are due now or later.")
WEBHOOK_OLDEST = _gauge("webhook_oldest_age_seconds", "Age of the oldest webhook delivery that is due.")
STUCK = _gauge("stuck_messages", "Messages that do not go on by themselves, or not in time: held (uncertain, waiting for a person), late (due for 5 minutes at a mailer that may send), reconnect (their mailer's credentials were refused), unlogged (the follow-up failed).", "reason")
MAILERS = _gauge("mailers", "Mailers: active, throttled, paused or reconnect_required.", "provider", "status")
ENDPOINTS = _gauge("webhook_endpoints", "Webhook endpoints: active, failing or disabled.", "status")
PAUSED = _gauge("queue_paused", "1 where an operator has paused the queue, else 0.", "lane")
INVARIANTS = _gauge("invariant_violations", "Rows that break a rule which must always hold; `postroad doctor --invariants` names the rules.", "rule")
KEY_EXPIRES = _gauge("api_key_expires_timestamp_seconds", "When the next API key expires that was used in the last 7 days; absent if none will.")
LAST_BEAT = _gauge("last_beat_timestamp_seconds", "When the beat measured last. All other gauges are of that moment.")
# fmt: on

SERIES: dict[str, Series] = {
    series.name: series
    for series in (
        ACCEPTED, FINISHED, DELIVERY, REQUEST, ERRORS, THROTTLED, WEBHOOK_ATTEMPTS, HTTP,
        DEPTH, OLDEST, COMING, GOING, WORKERS, FOLLOWUP_LAG, WEBHOOKS_PENDING, WEBHOOK_OLDEST, STUCK, MAILERS,
        ENDPOINTS, PAUSED, INVARIANTS, KEY_EXPIRES, LAST_BEAT,
    )
}  # fmt: skip
