"""The Celery application. Its messages are bells: small, repeatable, acknowledged early, of no value."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import redis
from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection, Exchange, Queue
from kombu.transport.redis import Channel, Transport

from worker.bell import QUEUES
from worker.settings import Settings


class KeptClient(Channel):
    """Publishes by one client. kombu's makes a new one for each message (5.7: `Channel.conn_or_acquire`), which takes a
    quarter of the time of a bell; the connections are the same pool's either way.
    """

    pool: redis.ConnectionPool
    _kept: redis.Redis | None = None

    @contextmanager
    def conn_or_acquire(self, client: redis.Redis | None = None) -> Iterator[redis.Redis]:
        kept = client or self._kept
        if kept is None or (client is None and kept.connection_pool is not self.pool):
            with super().conn_or_acquire() as kept:
                self._kept = kept
        yield kept


class OneClient(Transport):
    """kombu's way to Redis over such channels."""

    Channel = KeptClient


class ProbedConnection(Connection):
    """Asks every second or two whether the broker is back, however long it was away; kombu's own waits grow to 30 s."""

    def ensure_connection(self, *args: Any, **options: Any) -> Self:
        waits = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 1.5}
        super().ensure_connection(*args, **waits | options)
        return self


class ProbedBroker(AMQP):
    """Celery's way to the broker, over such connections."""

    Connection = ProbedConnection


def celery_app(settings: Settings) -> Celery:
    """The app every process rings with and every worker runs.

    No results, no ETA, no retries by Celery: what must not be lost is a row. Timeouts bound what a hanging broker can
    cost.
    """
    app = Celery("postroad", broker=settings.broker, amqp=ProbedBroker, include=["worker.tasks"])
    app.conf.update(
        # Each with an exchange of its own: queues that share one and its key would each get a copy of every bell.
        task_queues=[Queue(name, Exchange(name, type="direct"), routing_key=name) for name in QUEUES],
        task_create_missing_queues=False,
        task_default_queue=QUEUES[1],
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        enable_utc=True,
        task_acks_late=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_max_memory_per_child=400_000,
        # A new process waits up to 10 s for the database; one that is killed meanwhile only begins to wait again.
        worker_proc_alive_timeout=60,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport=_TRANSPORTS.get(settings.broker.partition(":")[0]),
        broker_transport_options=_transport(settings.broker),
    )
    return app


_TRANSPORTS = dict.fromkeys(("redis", "rediss"), f"{__name__}:{OneClient.__name__}")
"""By the scheme of the broker's URL; the others are kombu's own."""


def _transport(broker: str) -> dict[str, Any]:
    if not broker.startswith(("redis", "sentinel")):
        return {}
    return {
        "ack_emulation": False,  # bells are acknowledged early: nobody need write down which are not
        "socket_timeout": 5,
        "socket_connect_timeout": 0.8,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry_on_timeout": False,
    }
