"""What the API process holds open."""

import redis
from sqlalchemy.orm import Session, sessionmaker

from api_shim.limits import Limiter
from api_shim.waiting import Announcements
from models.database import connect
from worker import faults
from worker.app import celery_app
from worker.bell import BellRinger, Bells
from worker.domains import Domains
from worker.mailers import Providers
from worker.meter import Flusher, Meter
from worker.pace import Pace
from worker.return_path import ReturnPaths
from worker.runtime import open_tracker
from worker.settings import Settings
from worker.traces import open_traces
from worker.vault import Vault


class Services:
    """Database, Redis, bells, the vault and the listener of one API process."""

    def __init__(self, settings: Settings) -> None:
        faults.arm(settings.faults)
        self.settings = settings
        self.engine = connect(settings.sqlalchemy_url, pool_size=settings.pool_size, application="postroad api")
        self.sessions = sessionmaker(self.engine, class_=Session, expire_on_commit=False)
        statements = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.statements = sessionmaker(statements, class_=Session, expire_on_commit=False)
        """Sessions in which each statement is a transaction: half as many round trips."""
        self.redis: redis.Redis = redis.Redis.from_url(
            settings.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5, health_check_interval=10
        )
        self.traces = open_traces(settings, "postroad api")
        self.meter = Meter()
        self.flusher = Flusher(self.meter, self.engine)
        self.limiter = Limiter(self.redis, settings)
        self.celery = celery_app(settings)
        bells = Bells(self.celery, self.redis)
        self.ringer = BellRinger(bells)
        self.pace = Pace(self.redis, bells)
        self.vault = Vault(settings.secret_keys)
        self.tracker = open_tracker(settings)
        self.paths = ReturnPaths(settings.keys)
        self.providers = Providers(self.engine, settings, self.vault)
        self.domains = Domains(settings.dns_servers)
        self.announcements = Announcements(settings.database_url)
        self.peppers = settings.keys
        """Keys that API key hashes may have been made with; the first makes new ones."""

    def close(self) -> None:
        self.flusher.close()
        if self.traces is not None:
            self.traces.close()
        self.ringer.close()
        self.providers.close()
        self.domains.close()
        self.engine.dispose()
        self.redis.close()
