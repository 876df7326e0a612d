"""What one process holds open: database, Redis, bells, the vault and the adapters in use."""

import os
import socket
import threading

import redis
from celery import Celery
from sqlalchemy import Engine

from models.database import connect
from worker import faults
from worker.activity import Activity
from worker.app import celery_app
from worker.bell import Bells
from worker.circuits import Circuits
from worker.domains import Domains
from worker.mailers import Providers
from worker.meter import Meter
from worker.notify import Notifier
from worker.pace import Pace
from worker.settings import Settings
from worker.siding import Siding
from worker.signers import Signers
from worker.submissions import Submissions
from worker.traces import open_traces
from worker.tracking import Tracker
from worker.vault import Vault


def open_tracker(settings: Settings) -> Tracker:
    """The signer and reader of tracking addresses; reads those signed before a key rotation too."""
    newest, *previous = (key.encode() for key in settings.keys)
    return Tracker(settings.public_url, newest, previous)


class Runtime:
    """Opened once per process, after any fork."""

    def __init__(self, settings: Settings, *, application: str, celery: Celery | None = None) -> None:
        faults.arm(settings.faults)
        self.settings = settings
        self.engine: Engine = connect(
            settings.sqlalchemy_url, pool_size=settings.pool_size, application=application, by_index=True
        )
        self.redis: redis.Redis = redis.Redis.from_url(
            settings.redis_url, socket_timeout=2, socket_connect_timeout=0.8, health_check_interval=10
        )
        self.activity = Activity()
        self.meter = Meter()
        self.traces = open_traces(settings, "postroad worker")
        self.bells = Bells(celery or celery_app(settings), self.redis)
        self.siding = Siding(self.bells.ring)
        self.pace = Pace(self.redis, self.bells)
        self.circuits = Circuits(self.redis)
        self.vault = Vault(settings.secret_keys)
        self.tracker = open_tracker(settings)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.providers = Providers(self.engine, settings, self.vault)
        self.domains = Domains(settings.dns_servers)
        self.submissions = Submissions()
        self.signers = Signers(self.vault)
        self.notifier = Notifier(self.engine, settings, self.vault, self.meter, self.traces)
        self.hands = threading.Lock()
        """Held while a batch is in hand: a lease of ours that stands while it is free, stands for nothing."""

    def close(self) -> None:
        self.siding.close()
        self.notifier.close()
        if self.traces is not None:
            self.traces.close()
        self.domains.close()
        self.providers.close()
        self.engine.dispose()
        self.redis.close()
