"""Doorbells: Celery messages that say "this lane has due work" and nothing else.

At most one bell per lane is outstanding: its id stands in Redis, and whoever answers a bell takes the id away only if
it is still that bell's. A bell that was replaced therefore still does its work, but cannot start a second chain.
Losing a bell, or all of Redis, costs a second: the beat rings again.
"""

import queue
import threading
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID, uuid4

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from models.message import Priority

log = structlog.get_logger()

SEND_QUEUES = {Priority.HIGH: "send.high", Priority.NORMAL: "send.normal"}
PRIORITIES = {queue: priority for priority, queue in SEND_QUEUES.items()}
FOLLOWUP_QUEUE = "followup"
WEBHOOK_QUEUE = "webhooks"
QUEUES = (*SEND_QUEUES.values(), FOLLOWUP_QUEUE, WEBHOOK_QUEUE)

OUTSTANDING_SECONDS = 60
"""How long a bell counts as outstanding at most, should its worker die between taking it and answering."""

_ANSWER = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


@dataclass(frozen=True, slots=True)
class Lane:
    """What a bell is about: a task, its queue and the one thing it is for."""

    task: str
    queue: str
    subject: str

    @property
    def key(self) -> str:
        return f"postroad:bell:{self.queue}:{self.subject}"


def send_lane(mailer_id: UUID, priority: int) -> Lane:
    """The lane of a mailer's mail of one priority."""
    return Lane("deliver", SEND_QUEUES[Priority(priority)], f"{mailer_id}:{priority}")


def endpoint_lane(endpoint_id: UUID) -> Lane:
    return Lane("notify", WEBHOOK_QUEUE, str(endpoint_id))


def inbox_lane(mailer_id: UUID) -> Lane:
    """The lane of mail to be had at a mailer's provider. It calls what sending calls, so it is with those who wait."""
    return Lane("collect", SEND_QUEUES[Priority.NORMAL], str(mailer_id))


class Work(NamedTuple):
    """What came of a bell: how much was done, and whether there may be more.

    Without more nobody need ring again: whatever came after the bell was answered has rung for itself.
    """

    done: int
    more: bool


NOTHING = Work(0, more=False)

FOLLOWUP_LANE = Lane("record", FOLLOWUP_QUEUE, "all")
REPORTS_LANE = Lane("apply_reports", FOLLOWUP_QUEUE, "reports")


class Bells:
    """Rings and answers. Everything here may fail without losing anything."""

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        self._app = app
        self._redis = client

    def ring(self, lane: Lane, *, replace: bool = False) -> bool:
        """Rings unless a bell of the lane is outstanding. ``replace`` rings all the same and disowns the earlier one.

        Returns whether it rang. Never raises for a broker that is away, and never waits longer than its socket
        timeouts.
        """
        bell = uuid4().hex
        try:
            if not self._redis.set(lane.key, bell, nx=not replace, ex=OUTSTANDING_SECONDS):
                return False
            self._app.send_task(lane.task, args=[lane.subject, bell], queue=lane.queue, retry=False)
        except (redis.RedisError, OperationalError, OSError) as error:
            log.warning(
                "bell_not_rung", queue=lane.queue, error=type(error).__name__, next="the beat rings within a second"
            )
            return False
        return True

    def answer(self, lane: Lane, bell: str) -> None:
        """The bell was heard: the next ring of the lane gets through."""
        try:
            self._redis.eval(_ANSWER, 1, lane.key, bell)
        except redis.RedisError as error:
            log.warning("bell_not_answered", queue=lane.queue, error=type(error).__name__)

    def waiting(self, queue_name: str) -> int:
        """Bells in a queue that no worker has taken yet."""
        return self._redis.llen(queue_name)


class BellRinger:
    """Rings from a thread of its own, so that a request never waits for the broker. Keeps each lane at most once."""

    def __init__(self, bells: Bells) -> None:
        self._bells = bells
        self._lanes: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()
        self._pending: set[Lane] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="bell-ringer", daemon=True)
        self._thread.start()

    def ring(self, lane: Lane) -> None:
        """Returns at once. While the broker hangs, lanes gather here, each once; the beat heals the rest."""
        with self._lock:
            if lane in self._pending:
                return
            self._pending.add(lane)
        self._lanes.put(lane)

    def _run(self) -> None:
        while (lane := self._lanes.get()) is not None:
            with self._lock:
                self._pending.discard(lane)
            try:
                self._bells.ring(lane)
            except Exception as error:  # one bell is no reason to ring no other; the beat rings this one
                log.exception("bell_not_rung", queue=lane.queue, error=type(error).__name__)

    def close(self) -> None:
        self._lanes.put(None)
        self._thread.join(timeout=5)
