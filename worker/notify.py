"""Webhook deliveries: claim what is due for an endpoint, sign, post, write down what became of it.

Each endpoint is a lane of its own. A delivery is posted at least once and its ``webhook-id`` never changes; no
transaction is open while a request is on the wire.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, Row, RowMapping, any_, literal, select, text
from sqlalchemy.types import NullType

from models.arrays import Ids
from models.event import WIRE_NAMES, Event
from models.webhook import EndpointStatus, WebhookEndpoint
from worker import deliveries
from worker.bell import WEBHOOK_QUEUE
from worker.faults import faultpoint
from worker.meter import Meter
from worker.parcel import Delivery, Parcel, parcels
from worker.postman import Answer, Postman
from worker.series import WEBHOOK_ATTEMPTS
from worker.settings import Settings
from worker.settlement import lost, next_wait, settlements
from worker.signature import new_secret, signature
from worker.standstill import RUNS
from worker.traces import Traces
from worker.turn import FAILURES_IN_A_ROW, GONE, Posted, Result, Turn
from worker.vault import SecretUnreadable, Vault
from worker.wire import FACTS

__all__ = ["SECRET_PURPOSE", "Notifier", "new_secret"]

SECRET_PURPOSE = "webhook_endpoint:{id}"  # noqa: S105 -- the name of a secret is none
"""The purpose under which the vault seals ``{"secret": "whsec_..."}`` for an endpoint."""

TURN_SECONDS = 10.0
"""No new request is begun after this; the lane goes on after the other lanes had their turn."""
LEASE_MARGIN_SECONDS = 5.0
"""Between the longest turn and the end of its claim: for writing down its results."""
PROBE_SECONDS = 60.0
"""A dead endpoint gets one request this often."""
NEWER_HOLD = timedelta(seconds=30)
"""How long an event that only a newer version can put into words is left to one."""
DISABLE_AFTER_AT_LEAST = timedelta(hours=12)
"""No endpoint is disabled for failing a shorter time than this."""
SINGLES = 256
"""Deliveries claimed for one turn where each is a request. With arrays: BATCHES requests, BATCHED deliveries at most"""
BATCHES = 40
BATCHED = 4096
PORTION = 1000
"""Deliveries claimed together where only what is due decides which they are: the first are posted while PostgreSQL
works on the next."""

Facts = Mapping[UUID, RowMapping]
"""Rows of `worker.wire.FACTS` by event id."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Circuit:
    """An endpoint in trouble, as this process saw it."""

    failures: int
    """In a row."""
    probe_at: float = 0.0
    """`time.monotonic` of the next probe; 0 while it is not taken for dead."""
    all_put_off: bool = True


class Notifier:
    """Delivers webhooks. One per worker process; keeps connections and remembers which endpoints are dead.

    A claim holds a little longer than a turn can take; where ``settings.lease_seconds`` is shorter than that, a slow
    receiver may see an event twice.
    """

    def __init__(
        self, engine: Engine, settings: Settings, vault: Vault, meter: Meter | None = None, traces: Traces | None = None
    ) -> None:
        self._engine = engine
        self._meter = meter or Meter()
        self._traces = traces
        self._settings = settings
        self._vault = vault
        self._postman = Postman(settings.webhook_guard, settings.webhook_timeout_seconds)
        self._agent = f"postroad/{version('postroad')}"
        self._circuits: dict[UUID, _Circuit] = {}
        # What a killed worker had claimed is due again after that; shorter, and a slow turn would be repeated.
        longest_turn = TURN_SECONDS + settings.webhook_timeout_seconds
        self._lease = timedelta(seconds=min(settings.lease_seconds, longest_turn + LEASE_MARGIN_SECONDS))

    def deliver(self, endpoint_id: UUID) -> bool:
        """Delivers what is due at the endpoint, for about TURN_SECONDS at most. True: there is more, ring again.

        Whatever is claimed and not settled when the process dies is due again after the lease.
        """
        endpoint = self._endpoint(endpoint_id)
        if endpoint is None or not self._may_post(endpoint):
            return False
        try:
            secrets = self._secrets(endpoint)
        except SecretUnreadable:
            log.error("webhook_secret_unreadable", endpoint_id=str(endpoint_id))
            self._put_off(endpoint_id)
            return False
        limit = self._limit(endpoint)
        turn = Turn(
            failures=self._failures(endpoint_id),
            seconds=min(TURN_SECONDS, self._settings.lease_seconds / 2),
            ordered=endpoint.ordered,
            every=1 / endpoint.max_per_second if endpoint.max_per_second else 0.0,
        )
        portions = self._portions(endpoint, limit)
        turn.run(portions, partial(self._post, endpoint.url, secrets), partial(self._report, endpoint_id))
        if not turn.taken:
            return False
        return self._finish(endpoint, turn) and (bool(turn.unposted()) or turn.taken == limit)

    def close(self) -> None:
        """Closes the connections."""
        self._postman.close()

    def _endpoint(self, endpoint_id: UUID) -> Row[Any] | None:
        """None too while the whole queue is paused."""
        runs = text(RUNS.format(queue=f"'{WEBHOOK_QUEUE}'"))
        with self._engine.connect() as db:
            return db.execute(
                select(WebhookEndpoint.__table__).where(WebhookEndpoint.id == endpoint_id, runs)
            ).one_or_none()

    def _may_post(self, endpoint: Row[Any]) -> bool:
        """False for a disabled endpoint and for a dead one not yet to be probed; nothing of theirs stays due."""
        if endpoint.status != EndpointStatus.ACTIVE:
            with self._engine.begin() as db:
                deliveries.park(db, endpoint.id)
            return False
        circuit = self._circuits.get(endpoint.id)
        if circuit is None:
            return True
        if endpoint.failing_since is None:  # another process got through
            del self._circuits[endpoint.id]
            return True
        wait = circuit.probe_at - time.monotonic()
        if wait <= 0:
            return True
        if circuit.all_put_off:
            self._circuits[endpoint.id] = replace(circuit, all_put_off=self._put_off(endpoint.id, wait))
        return False

    def _put_off(self, endpoint_id: UUID, seconds: float = PROBE_SECONDS) -> bool:
        with self._engine.begin() as db:
            return deliveries.put_off(db, endpoint_id, timedelta(seconds=seconds))

    def _secrets(self, endpoint: Row[Any]) -> list[str]:
        """The newest first. Raises SecretUnreadable."""
        sealed = [endpoint.sealed_secret]
        if endpoint.sealed_old_secret and endpoint.old_secret_until and endpoint.old_secret_until > datetime.now(UTC):
            sealed.append(endpoint.sealed_old_secret)
        purpose = SECRET_PURPOSE.format(id=endpoint.id)
        return [self._vault.open(purpose, each)["secret"] for each in sealed]

    def _failures(self, endpoint_id: UUID) -> int:
        circuit = self._circuits.get(endpoint_id)
        return 0 if circuit is None else circuit.failures

    def _limit(self, endpoint: Row[Any]) -> int:
        """How many deliveries to claim: one request's worth for a probe, no more than may be posted in a turn."""
        if self._failures(endpoint.id) >= FAILURES_IN_A_ROW:
            return int(endpoint.max_batch)
        limit = SINGLES if endpoint.max_batch == 1 else max(SINGLES, min(endpoint.max_batch * BATCHES, BATCHED))
        if endpoint.max_per_second:
            limit = min(limit, max(1, int(endpoint.max_per_second * TURN_SECONDS / 2)) * endpoint.max_batch)
        return int(limit)

    def _portions(self, endpoint: Row[Any], limit: int) -> Iterator[list[Parcel]]:
        """Claims up to ``limit`` deliveries as they are asked for."""
        at_once = endpoint.ordered or endpoint.max_per_second
        portion = limit if at_once else max(PORTION // endpoint.max_batch, 1) * endpoint.max_batch
        for start in range(0, limit, portion):
            size = min(portion, limit - start)
            claimed, facts = self._claim(endpoint, size)
            yield parcels(claimed, facts, endpoint.max_batch, ordered=endpoint.ordered)
            if len(claimed) < size:
                return

    def _claim(self, endpoint: Row[Any], limit: int) -> tuple[list[Delivery], Facts]:
        """What is due, and what is known of its events, in one short transaction."""
        with self._engine.begin() as db:
            if endpoint.max_per_second and (rest := deliveries.rests(db, endpoint.id)):
                deliveries.put_off(db, endpoint.id, timedelta(seconds=rest))
                return [], {}
            if endpoint.ordered:
                claimed, blocked_until = deliveries.claim_in_order(db, endpoint.id, limit, self._lease)
                if blocked_until is not None and endpoint.failing_since is not None:
                    wait = min(blocked_until - datetime.now(UTC), timedelta(seconds=PROBE_SECONDS))
                    deliveries.put_off(db, endpoint.id, wait)
            else:
                claimed = deliveries.claim(db, endpoint.id, limit, self._lease)
            if not claimed:
                return [], {}
            if endpoint.max_per_second:
                requests = math.ceil(len(claimed) / endpoint.max_batch)
                deliveries.rest(db, endpoint.id, requests / endpoint.max_per_second)
            facts = self._facts(db, endpoint.workspace_id, claimed)
            deliveries.settle(db, [lost(each) for each in claimed if each.event_id not in facts])
            ours, newer = _tell_apart([each for each in claimed if each.event_id in facts], facts, endpoint.ordered)
            deliveries.hand_back(db, newer, NEWER_HOLD)
        return ours, facts

    def _facts(self, db: Connection, workspace_id: UUID, claimed: Sequence[Delivery]) -> Facts:
        events = Ids(each.event_id for each in claimed)
        these = FACTS.where(Event.workspace_id == workspace_id, Event.id == any_(literal(events, NullType())))
        return {row["id"]: row for row in db.execute(these).mappings().all()}

    def _post(self, url: str, secrets: Sequence[str], parcel: Parcel) -> Posted:
        if self._traces is None:
            return self._sent(url, secrets, parcel, ())
        with self._traces.request("webhook", parcel.traceparents, {"events": len(parcel.deliveries)}) as traceparent:
            return self._sent(url, secrets, parcel, [("traceparent", traceparent)] if traceparent else ())

    def _sent(self, url: str, secrets: Sequence[str], parcel: Parcel, more: Iterable[tuple[str, str]]) -> Posted:
        webhook_id, body, timestamp = parcel.webhook_id(), parcel.body(), int(time.time())
        signed = signature(secrets, webhook_id, timestamp, body)
        headers = (
            ("content-type", "application/json"),
            ("user-agent", self._agent),
            ("webhook-id", webhook_id),
            ("webhook-timestamp", str(timestamp)),
            ("webhook-signature", signed),
            *more,
        )
        answer = self._postman.post(url, headers, body)
        faultpoint("posted")
        return Posted(webhook_id=webhook_id, body=body, timestamp=timestamp, signature=signed, answer=answer)

    def _report(self, endpoint_id: UUID, results: Sequence[Result]) -> None:
        for kind, number in Counter(_kind(result.answer) for result in results).items():
            self._meter.count(WEBHOOK_ATTEMPTS, kind, by=number)
        delays = self._settings.webhook_retry_delays
        with self._engine.begin() as db:  # the endpoint's row first, as whoever disables or deletes it
            deliveries.note_health(db, endpoint_id, [(result.answer.accepted, result.at) for result in results])
            deliveries.settle(db, [each for result in results for each in settlements(result, delays)])

    def _finish(self, endpoint: Row[Any], turn: Turn) -> bool:
        """Gives back what was not posted and draws the consequences. False: the lane has to wait."""
        dead = turn.failures >= FAILURES_IN_A_ROW
        hold = timedelta(seconds=PROBE_SECONDS) if dead else self._blocked_for(turn)
        with self._engine.begin() as db:
            deliveries.hand_back(db, turn.unposted(), hold)
            all_put_off = hold is None or deliveries.put_off(db, endpoint.id, hold)
        if turn.failures:
            probe_at = time.monotonic() + PROBE_SECONDS if dead else 0.0
            self._circuits[endpoint.id] = _Circuit(failures=turn.failures, probe_at=probe_at, all_put_off=all_put_off)
        else:
            self._circuits.pop(endpoint.id, None)
        if (turn.gone or turn.failures) and self._disable(endpoint, turn.gone):
            return False
        return hold is None

    def _blocked_for(self, turn: Turn) -> timedelta | None:
        """How long an ordered lane waits behind the delivery that failed."""
        if turn.blocked is None:
            return None
        wait = next_wait(turn.blocked, turn.blocked.parcel.deliveries[0], self._settings.webhook_retry_delays)
        return None if wait is None else timedelta(seconds=min(wait, PROBE_SECONDS))

    def _disable(self, endpoint: Row[Any], gone: bool) -> bool:
        """Disables the endpoint if it is gone or has only failed for too long."""
        patience = max(timedelta(days=self._settings.webhook_disable_days), DISABLE_AFTER_AT_LEAST)
        with self._engine.begin() as db:
            failing_since = db.execute(
                select(WebhookEndpoint.failing_since).where(WebhookEndpoint.id == endpoint.id)
            ).scalar()
            if gone:
                reason = "The endpoint answered 410 Gone."
            elif failing_since is not None and datetime.now(UTC) - failing_since >= patience:
                reason = f"Every delivery has failed since {failing_since:%Y-%m-%d %H:%M} UTC."
            else:
                return False
            done = deliveries.disable(db, endpoint.id, reason)
        self._circuits.pop(endpoint.id, None)
        if done:
            log.warning("webhook_endpoint_disabled", endpoint_id=str(endpoint.id), gone=gone)
        return True


def _tell_apart(claimed: list[Delivery], facts: Facts, ordered: bool) -> tuple[list[Delivery], list[Delivery]]:
    """Those that we can put into words, and a newer version's events; in an ordered lane with all that follow."""
    newer = [each for each in claimed if facts[each.event_id]["type"] not in WIRE_NAMES]
    if newer and ordered:
        first = claimed.index(newer[0])
        return claimed[:first], claimed[first:]
    return [each for each in claimed if each not in newer] if newer else claimed, newer


def _kind(answer: Answer) -> str:
    """As `worker.series.WEBHOOK_ATTEMPTS` labels it."""
    if answer.accepted:
        return "delivered"
    if answer.status is not None:
        return "gone" if answer.status == GONE else "refused"
    return "timeout" if answer.timed_out else "unreachable"
