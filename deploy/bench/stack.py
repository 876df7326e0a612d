"""A stack for one bench: started in a folder of its own, asked over HTTP, and gone afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString, Self, cast
from uuid import UUID

import psycopg
import requests

from deploy.program import Program, last_lines, start
from deploy.services import free_port
from models.base import from_ulid

START_SECONDS = 90.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 20.0
SLOWEST_RATE = 300.0
"""Mails per second."""

# Leases first: while mail is sent there is one, and nothing else is looked at.
_BUSY: LiteralString = """
    select exists (select from lease) or exists (select from followup)
        or exists (select from message where due_at < clock_timestamp() + interval '1 hour')
"""


class BenchError(Exception):
    """The bench cannot go on. Says why."""


class BenchStack:
    """A running `postroad up`. A context manager; what it stored is removed with it."""

    def __init__(self, senders: int | None = None) -> None:
        self._senders = senders

    def __enter__(self) -> Self:
        """Raises BenchError where it does not start."""
        self._folder = Path(tempfile.mkdtemp(prefix="postroad-bench-"))
        data = self._folder / "data"
        # Ports nobody prefers: another stack may be starting at this moment.
        api, inbox = free_port(), free_port()
        options = ["--port", str(api), "--inbox-port", str(inbox)]
        options += ["--senders", str(self._senders)] if self._senders else []
        argv = (sys.executable, "-m", "deploy.cli", "up", "--data", str(data), "--no-demo", *options)
        self._log = self._folder / "up.log"
        self._process = start(Program(name="up", argv=argv, log=self._log))
        try:
            self.json = self._wait_for(data / "stack.json")
        except BaseException:
            self.__exit__()
            raise
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {self.json['api_key']}"
        return self

    def __exit__(self, *_: object) -> None:
        if "database" in self.__dict__:
            self.database.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGKILL)
                self._process.wait(STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for(self, stack_json: Path) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS
        while not stack_json.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the stack did not start:\n{last_lines(self._log, 30)}")
            time.sleep(0.05)
        return cast(dict[str, Any], json.loads(stack_json.read_text()))

    @cached_property
    def database(self) -> psycopg.Connection:
        """For counts; not for two threads at once."""
        return psycopg.connect(self.json["database_url"], autocommit=True, application_name="bench")

    @property
    def environment(self) -> dict[str, str]:
        """In which a further process of this stack runs."""
        secrets = json.loads((self._folder / "data" / "stack.secrets").read_text())
        return os.environ | {
            "POSTROAD_DATABASE_URL": self.json["database_url"],
            "POSTROAD_REDIS_URL": self.json["redis_url"],
            "POSTROAD_SECRET_KEYS": secrets["secret_keys"],
        }

    @property
    def send_url(self) -> str:
        return f"{self.json['api']}/v1/email/send"

    def post(self, path: str, body: bytes | dict[str, Any]) -> dict[str, Any]:
        """The answer's body. Raises BenchError if it is an error."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        answer = self.http.post(f"{self.json['api']}{path}", data=data, headers=headers, timeout=120)
        if not answer.ok:
            raise BenchError(f"POST {path} was answered {answer.status_code} {answer.text[:500]}")
        return cast(dict[str, Any], answer.json())

    def send(self, body: bytes) -> UUID:
        """Submits in the mailer shape; the id of the submission."""
        ref_id = str(self.post("/v1/email/send", body)["ref_id"])
        submission = from_ulid(ref_id)
        if submission is None:
            raise BenchError(f"{ref_id} is not a ref_id")
        return submission

    def add_tenant(self, name: str) -> "Tenant":
        """Another workspace."""
        argv = (sys.executable, "-m", "deploy.cli", "workspace", "create", name, "--mail-domain", "demo.test")
        made = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise BenchError(f"workspace {name} was not made: {made.stderr}")
        return Tenant(self, json.loads(made.stdout)["key"])

    def add_mailer(self, name: str, port: int) -> str:
        """A mailer that sends to an SMTP server on this machine; its id."""
        body = {
            "provider": "smtp",
            "name": name,
            "from": [self.json["from"]],
            "credentials": {"host": "127.0.0.1", "port": port, "security": "none"},
        }
        return str(self.post("/v1/mailers", body)["id"])

    def wait_idle(self, mails: int) -> float:
        """Waits until everything is sent and recorded; ``time.monotonic()`` of then.

        Raises BenchError if ``mails`` take longer than the slowest machine worth measuring.
        """
        seconds = PATIENCE_SECONDS + mails / SLOWEST_RATE
        deadline = time.monotonic() + seconds
        while self.count(_BUSY):
            if time.monotonic() > deadline:
                left = self.count("select count(*) from message where finished_at is null")
                raise BenchError(f"{left:,} mails were still not sent after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return time.monotonic()

    def count(self, query: LiteralString, *parameters: object) -> int:
        """The one number (or truth value) that a query gives."""
        row = self.database.execute(query, parameters).fetchone()
        return int(row[0] or 0) if row else 0


class Tenant(BenchStack):
    """Another workspace of a running stack: the same requests under its own key."""

    def __init__(self, stack: BenchStack, key: str) -> None:
        super().__init__()
        self.json = stack.json | {"api_key": key, "contact_id": None}
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {key}"
