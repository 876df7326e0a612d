"""A whole stack that may be hurt: behind wires that can be cut, in front of a provider that keeps books."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psutil
import psycopg
import redis
import requests
from psycopg import sql

from deploy.program import Program, last_lines, start
from models.message import UNTIL_SOMEBODY_ACTS
from providers.emulators.smtp import SmtpEmulator
from tests.chaos.oracle import Fate, look
from tests.chaos.proxy import Proxy
from tests.chaos.report import Line
from tests.conftest import Stack, wait_until
from tests.e2e.outside import Client

LONG = os.environ.get("CHAOS") == "long"
"""Whether this is `make chaos`; otherwise the same with less mail and shorter faults."""

RECOVERY_SECONDS = 10.0
"""Everything is to be settled so soon after the end of a fault."""
BUSY_SECONDS = 0.0 if LONG else 20.0
"""What a machine that runs other tests too is given beyond that, before one fails; `make chaos` has it for itself."""
LOOK_SECONDS = 5.0
"""Between two looks at all of a scenario's mail while something is still open. They cost what sending costs."""


@dataclass(kw_only=True)
class World:
    """A stack of its own, the wires to its PostgreSQL and Redis, its provider, and the results so far."""

    stack: Stack
    database: Proxy
    broker: Proxy
    smtp: SmtpEmulator
    plan: Path
    """The fault plan that every process of the stack reads."""
    lines: list[Line]
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(stack=self.stack)
        self.contact = self.stack.json["contact_id"]

    def mailer(self, port: int | None = None, **changes: Any) -> str:
        """A new mailer, and so a lane that nobody else holds up. Returns its id."""
        name = uuid4().hex[:12]
        credentials = {"host": "127.0.0.1", "port": port or self.smtp.port, "security": "none"}
        body = {"provider": "smtp", "name": name, "from": [self.stack.json["from"]], "credentials": credentials}
        answer = self.client.post("/v1/mailers", body | changes)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def pid(self, name: str) -> int:
        """The process of a service now; of `send.normal` the parent."""
        pids: dict[str, Any] = self.stack.json["pids"]
        return int(pids[name] if name in pids else pids["workers"][name])

    def running(self, name: str) -> int:
        """The same as soon as there is one. Never 0, which to `os.kill` means ourselves."""
        wait_until(lambda: self.pid(name) > 0 and psutil.pid_exists(self.pid(name)), f"{name} runs", 30)
        return self.pid(name)

    def children(self, name: str) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid(name)).children()]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends a process of the stack; the supervisor starts another, which is waited for."""
        pid = self.running(name)
        os.kill(pid, number)
        # A worker that is told to stop finishes what it has in hand, at most `worker.run.STOP_SECONDS`. Another starts in
        # half a second of CPU time; on two processors that thirty others want that was seen to take 20 s.
        wait_until(lambda: self.pid(name) not in (pid, 0), f"{name} runs again", 90)

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def arm(self, plan: str) -> None:
        """Sets the fault plan of every process, from now on."""
        fresh = self.plan.with_suffix(".new")
        fresh.write_text(plan)
        fresh.replace(self.plan)

    @contextmanager
    def armed(self, plan: str) -> Iterator[None]:
        self.arm(plan)
        try:
            yield
        finally:
            self.arm("")

    def struck(self) -> list[dict[str, Any]]:
        """Every fault that a process met so far: its point, action and pid, from the logs."""
        found = []
        for log in (self.stack.directory / "logs").glob("*.log"):
            lines = log.read_text(errors="replace").splitlines()
            found += [json.loads(line) for line in lines if '"event": "fault"' in line and line.startswith("{")]
        return found

    def struck_since(self, already: int) -> list[dict[str, Any]]:
        """Those after the first ``already`` by time."""
        return sorted(self.struck(), key=lambda fault: str(fault["timestamp"]))[already:]

    def alter(self, table: str, change: LiteralString) -> None:
        """Changes a table as a migration does that gives way: it asks for the lock for a moment, and again."""
        statement = sql.SQL("alter table {} ").format(sql.Identifier(table)) + sql.SQL(change)
        with self.connect() as connection:
            connection.execute("set lock_timeout = '200ms'")
            while True:
                with suppress(psycopg.errors.LockNotAvailable):
                    connection.execute(statement)
                    return

    def sql(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """Past the wire, as somebody on the database's own machine."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def waiting(self) -> int:
        """Mails that are due and in nobody's hand."""
        [(mails,)] = self.sql("select count(*) from message where due_at <= clock_timestamp()")
        return int(mails)

    def is_at_rest(self) -> bool:
        """Nothing waits but for a person, and nothing is in hand."""
        [(busy,)] = self.sql(
            """
            select exists (select from message where due_at < %s) or exists (select from lease)
                or exists (select from followup)
            """,
            UNTIL_SOMEBODY_ACTS,
        )
        return not busy

    def connect(self) -> psycopg.Connection[Any]:
        url, port = self.stack.json["database_url"], self.database.upstream()
        return psycopg.connect(url, port=port, autocommit=True, connect_timeout=5)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.stack.json["redis_url"])

    @property
    def environment(self) -> dict[str, str]:
        """What one more process of the stack needs to know."""
        secrets = json.loads((self.stack.directory / "stack.secrets").read_text())
        return os.environ | {
            "POSTROAD_DATABASE_URL": self.stack.json["database_url"],
            "POSTROAD_REDIS_URL": self.stack.json["redis_url"],
            "POSTROAD_SECRET_KEYS": secrets["secret_keys"],
        }

    def answers(self) -> bool:
        with suppress(requests.RequestException, OSError):
            return self.client.call("GET", "/readyz").ok
        return False

    @contextmanager
    def scenario(self, number: str, broken: str, *, failed: int = 0, may_double: bool = False) -> Iterator["Scenario"]:
        """Send, break and mend inside; at the end everything must be settled soon and the books must agree.

        failed: mails that are to fail.
        may_double: its mailers resend; whoever says so checks which copies there are.
        """
        scenario = Scenario(world=self, number=number, campaign=f"{number}-{uuid4().hex[:8]}")
        yield scenario
        fate, seconds = scenario.settle()
        self.lines.append(Line(number=number, broken=broken, fate=fate, seconds=seconds))
        wrong = (fate.lost, fate.ghosts, 0 if may_double else fate.doubled, fate.stuck, fate.unrecorded)
        assert wrong == (0, 0, 0, 0, 0), fate
        assert fate.failed == failed, fate
        assert fate.sent + fate.failed + fate.uncertain == fate.promised, fate
        assert seconds < RECOVERY_SECONDS + BUSY_SECONDS


@dataclass(kw_only=True)
class Scenario:
    """One thing broken, and the mail that was promised meanwhile."""

    world: World
    number: str
    campaign: str
    promised: int = 0
    mended_at: float | None = None
    others: list[SmtpEmulator] = field(default_factory=list)
    """Providers that it uses beside the world's."""

    def body(self, count: int, **changes: Any) -> dict[str, Any]:
        recipients = [f"{self.number.lower()}-{uuid4().hex[:8]}-{number}@example.com" for number in range(count)]
        links = {"campaign_id": self.campaign, "contact_id": self.world.contact}
        return self.world.client.mailer_body(*recipients, **(links | changes))

    def send(self, count: int, **changes: Any) -> str:
        """Has mail accepted. Returns its ref_id."""
        answer = self.world.client.send(self.body(count, **changes))
        assert answer.status_code == 202, answer.text
        self.promised += count
        return str(answer.json()["ref_id"])

    def mended(self) -> None:
        """The fault is over: from now on the time to recover counts."""
        self.mended_at = time.monotonic()

    def fate(self) -> Fate:
        with self.world.connect() as connection:
            ledger = sum((server.ledger for server in self.others), Counter(self.world.smtp.ledger))
            return look(connection, self.campaign, self.promised, ledger)

    def settle(self, seconds: float = 60.0) -> tuple[Fate, float]:
        """Waits until nothing is open. Returns what became of the mail, and the seconds since the fault ended."""
        since = self.mended_at or time.monotonic()
        deadline = time.monotonic() + seconds
        looks_at = 0.0
        while True:
            rests, asked_at = self.world.is_at_rest(), time.monotonic()
            if rests or asked_at >= looks_at:
                fate = self.fate()
                if (fate.stuck == 0 and fate.unrecorded == 0) or asked_at > deadline:
                    return fate, (asked_at if rests else time.monotonic()) - since
                looks_at = time.monotonic() + LOOK_SECONDS
            time.sleep(0.1)

    def wait_for(self, condition: Callable[[Fate], bool], what: str, seconds: float = 30.0) -> None:
        wait_until(lambda: condition(self.fate()), what, seconds)


@contextmanager
def world(directory: Path, lines: list[Line]) -> Iterator[World]:
    """Starts it all, and stops it."""
    plan = directory.with_name(directory.name + ".plan")
    log = directory.with_name(directory.name + ".out")

    def port_of(name: str) -> int:
        return int(json.loads((directory / "stack.secrets").read_text())["ports"][name])

    with (
        SmtpEmulator(keep_data=False) as smtp,
        Proxy(lambda: port_of("postgres")) as database,
        Proxy(lambda: port_of("redis")) as broker,
    ):
        argv = (sys.executable, "-m", "tests.chaos.site", str(directory), str(database.port), str(broker.port))
        env = {
            "POSTROAD_FAULTS": f"@{plan}",
            "POSTROAD_RETRY_SECONDS": "0.5,1,1,2,2,2,2,2,2,2",
            "POSTROAD_WEBHOOK_RETRY_SECONDS": "0.5,1,1,2,2,2,2",
        }
        process = start(Program(name="site", argv=argv, log=log, env=env))
        try:
            stack = Stack(directory=directory, process=process, log=log)
            ready = lambda: (directory / "stack.json").exists() or process.poll() is not None  # noqa: E731
            wait_until(ready, "the stack is up", 90)
            assert process.poll() is None, last_lines(log, 40)
            yield World(stack=stack, database=database, broker=broker, smtp=smtp, plan=plan, lines=lines)
            database.mend()
            broker.mend()
            assert stack.stop() == 0, last_lines(log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
