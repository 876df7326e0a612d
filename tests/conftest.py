"""What every test may use: a real PostgreSQL, a real Redis, and the whole stack.

services        PostgreSQL and Redis, started once for the run
database_url    a database of this test module's own, migrated and empty
redis_url       the Redis, emptied for this test module
stack           a running ``postroad up --no-demo``: the content of its stack.json, and its process
"""

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from deploy.program import Process, Program, last_lines, start
from deploy.services import Postgres, Redis, find_redis, free_port

TEMPLATE = "postroad_template"
PATIENCE_SECONDS = 60.0
"""How long a test waits for what must come: long, as nothing but a failing test waits so long."""


def pytest_configure() -> None:
    """What is started in the background of a shell ignores Ctrl-C, and so would every process of the tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The same examples in every run, however busy the machine is; `--hypothesis-profile=default` tries others.
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    hypothesis_settings.register_profile(
        "steady", derandomize=True, deadline=None, database=None, suppress_health_check=slow
    )
    hypothesis_settings.load_profile("steady")


@dataclass(frozen=True, kw_only=True)
class Services:
    postgres: Postgres
    redis: Redis

    def fresh_database(self) -> str:
        """URL of a new, migrated, empty database."""
        name = f"test_{secrets.token_hex(6)}"
        self.postgres.ensure_database(name, template=TEMPLATE)
        return self.postgres.url(name)


@dataclass(kw_only=True)
class Stack:
    """A running ``postroad up``."""

    directory: Path
    process: Process
    log: Path

    @property
    def json(self) -> dict[str, Any]:
        """stack.json as it is now; it changes when a child is started again."""
        content: dict[str, Any] = json.loads((self.directory / "stack.json").read_text())
        return content

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.json['api_key']}"}

    def stop(self) -> int:
        """Asks it to stop as Ctrl-C would; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Waits until ``condition`` holds; fails the test naming ``what`` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory for the run; short, because it ends up in paths of services."""
    path = Path(tempfile.mkdtemp(prefix="postroad-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def services(scratch: Path) -> Iterator[Services]:
    executable, _ = find_redis()
    postgres = Postgres(
        directory=scratch / "postgres", port=free_port(), password="test", log=scratch / "postgres.log", durable=False
    )
    redis = Redis(
        directory=scratch / "redis", port=free_port(), password="test", log=scratch / "redis.log", executable=executable
    )
    postgres.initialise()
    programs = (postgres.program(), redis.program())
    children = [start(program) for program in programs]
    wait_until(lambda: postgres.ready() and redis.ready(), "PostgreSQL and Redis answer")
    _make_template(postgres)
    yield Services(postgres=postgres, redis=redis)
    for program, child in zip(programs, children, strict=True):
        child.send_signal(program.stop_signal)
        child.wait(PATIENCE_SECONDS)


def _make_template(postgres: Postgres) -> None:
    from models.migrations import migrate

    postgres.ensure_database(TEMPLATE)
    migrate(postgres.url(TEMPLATE).replace("postgresql://", "postgresql+psycopg://", 1))


@pytest.fixture(scope="module")
def database_url(services: Services) -> str:
    return services.fresh_database()


@pytest.fixture(scope="module")
def redis_url(services: Services) -> str:
    import redis

    with redis.Redis.from_url(services.redis.url) as client:
        client.flushall()
    return services.redis.url


def run_stack(directory: Path, *arguments: str) -> Stack:
    """Starts ``postroad up`` and waits until it has written stack.json."""
    log = directory.with_name(directory.name + ".out")
    (directory / "stack.json").unlink(missing_ok=True)
    argv = (sys.executable, "-m", "deploy.cli", "up", "--data", str(directory), *arguments)
    process = start(Program(name="up", argv=argv, log=log))
    stack = Stack(directory=directory, process=process, log=log)
    wait_until(
        lambda: (directory / "stack.json").exists() or process.poll() is not None, "postroad up writes stack.json", 120
    )
    if process.poll() is not None:
        pytest.fail(f"postroad up ended with {process.returncode}:\n{last_lines(log, 40)}")
    return stack


@pytest.fixture(scope="session")
def stack(scratch: Path) -> Iterator[Stack]:
    running = run_stack(scratch / "stack", "--no-demo")
    yield running
    assert running.stop() == 0, last_lines(running.log)


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """Settings of the machine must not leak into the tests."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("POSTROAD_")}
    yield
    os.environ.update(kept)
