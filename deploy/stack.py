"""`postroad up`: what runs, in which order it starts and stops, and the stack.json that says where it is."""

import gc
import http.client
import os
import socket
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from deploy.directory import Directory, StackError
from deploy.heartbeats import Heartbeats
from deploy.identity import Identity, write_private
from deploy.program import Program
from deploy.services import LOOPBACK, Postgres, Redis, claim, find_redis, free_port
from deploy.supervisor import Service, Supervisor

WORKERS = {"send.high": 1, "send.normal": max(2, (os.cpu_count() or 2) // 2), "followup": 1, "webhooks": 1}
"""Worker processes behind each queue, unless another number of senders is asked for."""

STOP_ORDER = (("api", "inbound"), ("beat",), tuple(WORKERS), ("inbox", "redis"), ("postgres",))
"""No new requests, no new bells, then the work in hand is finished while everything it needs still runs."""

LOCAL_HOSTS = "localhost,127.0.0.0/8,::1"
MAIL_DOMAIN = "demo.test"
SENDER = f"hello@{MAIL_DOMAIN}"

PRELOADED = (
    "api_shim.app", "uvicorn.loops.uvloop", "deploy.request_head", "deploy.inbox", "deploy.seed",
    "worker.beat", "worker.run", "celery.bin.celery", "celery.worker.components", "celery.worker.consumer",
    "celery.worker.strategy", "celery.concurrency.solo", "celery.concurrency.prefork", "celery.app.log",
    "celery.app.amqp", "celery.app.control", "celery.app.events", "kombu.transport.redis",
    "celery.apps.worker", "celery.backends.base", "celery.events.dispatcher", "celery.fixups.django",
    "celery.loaders.app", "celery.utils.debug", "celery.utils.static", "celery.worker.autoscale",
    "celery.worker.consumer.delayed_delivery", "billiard.heap", "billiard.popen_fork", "billiard.sharedctypes",
    "cffi.cparser", "worker.pool",
)  # fmt: skip
"""What our processes would import one by one, so that they start in the time of one."""

PREFERRED_PORTS = {"api": 8025, "inbox": 2525}


class Stack:
    """The programs of one stack, as `Service`s, and what connects them."""

    def __init__(
        self,
        directory: Directory,
        ports: Mapping[str, int | None],
        report: Callable[[str], None],
        settings: Mapping[str, str] = MappingProxyType({}),
        senders: int | None = None,
    ) -> None:
        """ports: what the caller insists on, by program; None where any will do. Raises StackError if one is taken.
        settings: POSTROAD_* variables that go before the stack's own. senders: processes that send normal mail.
        """
        self._workers = WORKERS | ({"send.normal": senders} if senders else {})
        self.directory = directory
        self._settings = settings
        self.report = report
        self.identity = Identity.load(directory.path / "stack.secrets")
        self._choose_ports(ports)
        executable, self.redis_source = find_redis()
        self.postgres = Postgres(
            directory=directory.path / "postgres",
            port=self.ports["postgres"],
            password=self.identity.database_password,
            log=directory.log("postgres"),
        )
        self.redis = Redis(
            directory=directory.path / "redis",
            port=self.ports["redis"],
            password=self.identity.redis_password,
            log=directory.log("redis"),
            executable=executable,
        )
        self._heartbeats = Heartbeats(self.postgres.url())
        self.api_url = f"http://{LOOPBACK}:{self.ports['api']}"

    def _choose_ports(self, wanted: Mapping[str, int | None]) -> None:
        chosen: dict[str, int] = {}
        optional = ("inbound",) if wanted.get("inbound") else ()
        for name in ("api", "inbox", "postgres", "redis", "receiver", *optional):
            insisted = wanted.get(name)
            preferred = self.identity.ports.get(name) or PREFERRED_PORTS.get(name, 0)
            if insisted or (preferred and not claim(preferred)):
                preferred = insisted or 0
            port = free_port(preferred, avoid=frozenset(chosen.values()))
            if insisted and port != insisted:
                raise StackError(f"Port {insisted} is taken. Choose another one, or none to have a free one picked.")
            chosen[name] = port
        self.ports = chosen
        if chosen != self.identity.ports:
            self.identity.ports = chosen
            self.identity.save()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of every process of the stack."""
        return {
            "POSTROAD_DATABASE_URL": self.postgres.url(),
            "POSTROAD_REDIS_URL": self.redis.url,
            "POSTROAD_BROKER_URL": self.redis.url,
            "POSTROAD_SECRET_KEYS": self.identity.secret_keys,
            "POSTROAD_PUBLIC_URL": self.api_url,
            "POSTROAD_MAIL_DOMAIN": MAIL_DOMAIN,
            "POSTROAD_INBOUND_DOMAINS": MAIL_DOMAIN,
            "POSTROAD_ATTACHMENT_ROOT": str(self.directory.attachments),
            "POSTROAD_WEBHOOK_ALLOWED_HOSTS": LOCAL_HOSTS,
            "POSTROAD_MAILER_ALLOWED_HOSTS": LOCAL_HOSTS,
            **self._settings,
        }

    def program(self, name: str, *arguments: str, stop_seconds: float = 5.0, quiet: bool = True) -> Program:
        """One of our own commands as a child; ``quiet`` sends what it prints to its log."""
        return Program(
            name=name,
            command=arguments,
            log=self.directory.log(name) if quiet else None,
            env=self.environment,
            stop_seconds=stop_seconds,
        )

    def services(self) -> list[Service]:
        """PostgreSQL, Redis and the inbox: what has to be there before the rest."""
        inbox = ("inbox", "--directory", str(self.directory.inbox), "--port", str(self.ports["inbox"]))
        return [
            Service(
                program=self.postgres.program(),
                ready=lambda _: self.postgres.ready(),
                before_start=self.postgres.clear_stale_lock,
            ),
            Service(program=self.redis.program(), ready=lambda _: self.redis.ready()),
            Service(program=self.program("inbox", *inbox), ready=lambda _: self._speaks_smtp("inbox")),
        ]

    def own_processes(self) -> list[Service]:
        """The API, the beat and the workers: postroad itself."""
        api = ("api", "--port", str(self.ports["api"]), "--inbox", str(self.directory.inbox))
        return [
            Service(program=self.program("api", *api, stop_seconds=4), ready=lambda _: self._api_answers()),
            *(self._worker(queue, count) for queue, count in self._workers.items()),
            *self._inbound(),
            Service(program=self.program("beat", "beat", stop_seconds=3), ready=lambda _: True),
        ]

    def _worker(self, queue: str, count: int) -> Service:
        program = self.program(queue, "worker", "--queues", queue, "-c", str(count))
        return Service(program=program, ready=lambda age: self._heartbeats.seen(queue, age))

    def _inbound(self) -> list[Service]:
        """What takes in bounces and replies, where it was asked for."""
        if "inbound" not in self.ports:
            return []
        place = f"{LOOPBACK}:{self.ports['inbound']}"
        program = self.program("inbound", "inbound", "--smtp", place, "--imap", stop_seconds=12)
        return [Service(program=program, ready=lambda _: self._speaks_smtp("inbound"))]

    def _speaks_smtp(self, name: str) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.ports[name]), timeout=1) as connection:
                return connection.recv(3) == b"220"
        except OSError:
            return False

    def _api_answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.ports["api"], timeout=1)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @staticmethod
    def preload() -> None:
        """Imports what the forked processes run; meanwhile PostgreSQL starts."""
        for module in PRELOADED:
            import_module(module)
        gc.collect()
        gc.freeze()

    def migrate(self) -> None:
        """Makes the database where there is none, and brings its tables up to date."""
        from models.migrations import migrate

        self.postgres.ensure_database()
        migrate(_sqlalchemy_url(self.postgres.url()))

    def seed(self, *, with_receiver: bool) -> None:
        from sqlalchemy import NullPool, create_engine

        from deploy.seed import seed

        receiver = f"http://{LOOPBACK}:{self.ports['receiver']}/" if with_receiver else None
        engine = create_engine(_sqlalchemy_url(self.postgres.url()), poolclass=NullPool)
        seed(engine, self.identity, domain=MAIL_DOMAIN, smtp_port=self.ports["inbox"], receiver_url=receiver)

    def demo_program(self, *, once: bool) -> Program:
        arguments = ("demo", "--stack", str(self.directory.stack_json), "--receiver-port", str(self.ports["receiver"]))
        return self.program("demo", *arguments, *(["--once"] if once else []), quiet=False)

    def close(self) -> None:
        self._heartbeats.close()

    def write_json(self, supervisor: Supervisor) -> None:
        """Writes stack.json: where everything is, and which process is what."""
        from api_shim.auth import PREFIX

        identity, pids = self.identity, {name: service.pid for name, service in supervisor.services.items()}
        content: dict[str, Any] = {
            "api": self.api_url,
            "api_key": PREFIX + identity.api_secret,
            "workspace_id": identity.workspace_id,
            "user_id": identity.user_id,
            "database_url": self.postgres.url(),
            "redis_url": self.redis.url,
            "inbox": {"smtp": f"{LOOPBACK}:{self.ports['inbox']}", "http": f"{self.api_url}/inbox"},
            "mailer_id": identity.mailer_id,
            "from": SENDER,
            "contact_id": identity.contact_id,
            "deal_id": identity.deal_id,
            "customer_id": identity.customer_id,
            "webhook_secret": identity.webhook_secret,
            "ops_url": f"{self.api_url}/ops",
            "pids": {
                **{name: pids[name] for name in ("postgres", "redis", "api", "beat")},
                "workers": {queue: pids[queue] for queue in WORKERS},
            },
        }
        if "inbound" in self.ports:
            content["inbound"] = {"smtp": f"{LOOPBACK}:{self.ports['inbound']}"}
            content["pids"]["inbound"] = pids["inbound"]
        write_private(self.directory.stack_json, content)
        self.directory.note_pids(pids.values())


def _sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
