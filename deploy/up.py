"""The course of one `postroad up`: start, seed, demo, watch, stop."""

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from deploy.directory import Directory
from deploy.program import Process, start
from deploy.stack import STOP_ORDER, WORKERS, Stack
from deploy.supervisor import Supervisor

START_SECONDS = 60.0


def up(
    directory: Path,
    *,
    ports: Mapping[str, int | None] = MappingProxyType({}),
    demo: bool,
    once: bool,
    senders: int | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Runs the stack until it is told to stop, with ``once`` until the demo is over. Returns the exit code.

    ports: what is insisted on: ``api``, ``inbox``, and ``inbound``, which takes in bounces and replies over SMTP there
    and without a port nowhere. senders: processes that send normal mail.
    settings: POSTROAD_* variables that go before the stack's own.
    Raises StackError, StartError and ServiceMissingError where it cannot start.
    """
    report = _reporter()
    with Directory(directory) as held, Supervisor(report) as supervisor:
        stack = Stack(held, ports, report, settings, senders)
        try:
            _start(stack, supervisor, with_receiver=demo)
            return 0 if supervisor.stopping else _serve(stack, supervisor, demo=demo, once=once)
        finally:
            report("stopping")
            for names in STOP_ORDER:
                supervisor.stop(names)
            stack.close()
            report("stopped")


def _start(stack: Stack, supervisor: Supervisor, *, with_receiver: bool) -> None:
    if not stack.postgres.is_initialised():
        stack.report("making a PostgreSQL database")
        stack.postgres.initialise()
    stack.report(f"starting PostgreSQL, {stack.redis_source}, inbox")
    supervisor.start(stack.services())
    stack.preload()
    supervisor.wait_ready(("postgres",), START_SECONDS)
    if supervisor.stopping:
        return
    stack.report("bringing the tables up to date")
    stack.migrate()
    stack.report("starting the API, the workers and the beat")
    supervisor.start(stack.own_processes())
    stack.seed(with_receiver=with_receiver)
    supervisor.wait_ready(("redis", "inbox", "api", "beat", *WORKERS), START_SECONDS)
    if not supervisor.stopping:
        stack.write_json(supervisor)
        stack.report(f"ready: {stack.api_url}")


def _serve(stack: Stack, supervisor: Supervisor, *, demo: bool, once: bool) -> int:
    """Watches over the programs; ends when told to, or with ``once`` when the demo has ended, with its exit code."""
    demo_process = start(stack.demo_program(once=once)) if demo else None
    try:
        while not supervisor.stopping:
            if supervisor.step(60.0):
                stack.write_json(supervisor)
            if once and demo_process is not None and (code := demo_process.poll()) is not None:
                return code
        return 0
    finally:
        _end(demo_process)


def _end(process: Process | None) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _reporter() -> Callable[[str], None]:
    """Says on stderr what is going on, with the seconds since the start."""
    import click

    begun = time.monotonic()
    return lambda text: click.echo(f"{time.monotonic() - begun:6.1f} s  {text}", err=True)
