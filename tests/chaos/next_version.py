"""The next version of postroad: this one's code with changes that a next version may make, and processes of it."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from deploy.program import Process, Program, last_lines, start
from deploy.services import free_port
from deploy.stack import LOCAL_HOSTS
from tests.chaos.world import World
from tests.conftest import wait_until

ROOT = Path(__file__).parents[2]
PACKAGES = ("api_shim", "worker", "models", "providers", "deploy")

CHANGES = (
    # A column that this version's rows get a null in.
    (
        "models/message.py",
        "    rfc_message_id: Mapped[str]\n",
        "    rfc_message_id: Mapped[str]\n    of_the_next_version: Mapped[str | None]\n",
    ),
    # A bell that says more.
    ("worker/bell.py", "args=[lane.subject, bell]", 'args=[lane.subject, bell], kwargs={"of_the_next_version": 1}'),
    # A type of events.
    ("models/event.py", '    ENDPOINT_TEST = "endpoint_test"\n', '    ENDPOINT_TEST = "of_the_next_version"\n'),
)
"""File, what stands there, and what stands there in the next version."""

MIGRATION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None


def upgrade() -> None:
    op.execute("alter table message add column of_the_next_version text")
    op.execute("create table of_the_next_version (id bigint primary key)")
    op.execute("alter type message_state add value 'of_the_next_version'")
"""


@dataclass(frozen=True, kw_only=True)
class NextVersion:
    """Where its code is, and its processes' environment."""

    code: Path
    environment: dict[str, str]
    port: int
    """Of its API."""

    def program(self, *command: str) -> Program:
        argv = (sys.executable, "-P", "-m", "deploy.cli", *command)
        return Program(name="next", argv=argv, log=self.code / f"{command[0]}.log", env=self.environment)

    def migrate(self) -> None:
        process = start(self.program("migrate"))
        assert process.wait(60) == 0, last_lines(self.code / "migrate.log")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Its API, beat, and a worker for every queue beside those of the version before."""
        commands = (("api", "--port", str(self.port)), ("beat",), ("worker", "--queues", "all", "-c", "1"))
        with ExitStack() as ended:
            for command in commands:
                ended.callback(_end, start(self.program(*command)))
            wait_until(self._answers, "the next version's API answers", 60)
            yield

    def _answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/livez", timeout=5).ok
        except requests.ConnectionError:
            return False

    def call(self, world: World, method: str, path: str, body: Any = None) -> requests.Response:
        """Asks its API."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.request(method, url, json=body, headers=world.stack.auth, timeout=60)


def _end(process: Process) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def make(directory: Path, world: World) -> NextVersion:
    """Writes its code into ``directory``."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, before, after in CHANGES:
        file = directory / name
        content = file.read_text()
        assert content.count(before) == 1, f"{name} has changed: what the next version replaces is not there once"
        file.write_text(content.replace(before, after))
    (directory / "models/migrations/versions/0002_next.py").write_text(MIGRATION)
    settings = {"POSTROAD_MAILER_ALLOWED_HOSTS": LOCAL_HOSTS, "POSTROAD_WEBHOOK_ALLOWED_HOSTS": LOCAL_HOSTS}
    environment = {name: value for name, value in world.environment.items() if name not in os.environ}
    own = environment | settings | {"PYTHONPATH": str(directory)}
    return NextVersion(code=directory, environment=own, port=free_port())
