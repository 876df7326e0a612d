"""Keeps programs running: starts them together, restarts what dies, stops them in order.

One thread, and no polling but the readiness checks of what is not ready yet.
"""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from deploy.program import Process, Program, last_lines, start

FIRST_BACKOFF, LAST_BACKOFF = 0.2, 2.0
"""Seconds before a program that died is started again: the first time, doubling up to the last."""
STEADY_SECONDS = 10.0
"""A program that ran this long has recovered; its backoff starts over."""
CHECK_SECONDS = 0.1
"""Between two readiness checks of one program."""
START_ATTEMPTS = 3
"""Ends before its first readiness that make a start fail for good."""


class StartError(Exception):
    """A program ended, or did not answer in time, before it was ready. Shows the end of its log."""


@dataclass(kw_only=True)
class Service:
    """A program under supervision.

    ready: whether it answers now, given for how many seconds its process has run.
    before_start: mends what a killed run left behind.
    """

    program: Program
    ready: Callable[[float], bool]
    before_start: Callable[[], None] = lambda: None
    process: Process | None = None
    is_ready: bool = False
    was_ready: bool = False
    failures: int = 0
    started_at: float = 0.0
    next_at: float = 0.0
    """While running: the next readiness check. While not: the next start."""

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def start(self) -> None:
        self.before_start()
        self.process = start(self.program)
        self.started_at = self.next_at = time.monotonic()
        self.is_ready = False

    def check(self) -> bool:
        """Asks for readiness if it is time to. True when it has just become ready."""
        if self.is_ready or self.process is None or time.monotonic() < self.next_at:
            return False
        self.is_ready = self.ready(time.monotonic() - self.started_at)
        self.was_ready |= self.is_ready
        self.next_at = time.monotonic() + CHECK_SECONDS
        return self.is_ready

    def reap(self) -> int | None:
        """The exit code if the process has just ended; then the next start is planned."""
        code = self.process.poll() if self.process else None
        if code is None:
            return None
        now = time.monotonic()
        self.failures = 1 if now - self.started_at > STEADY_SECONDS else self.failures + 1
        self.process, self.is_ready = None, False
        self.next_at = now + min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** (self.failures - 1))
        return code


class Supervisor:
    """Runs `Service`s until told to stop. Use as a context manager: it holds the signal handlers of the process."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.services: dict[str, Service] = {}
        self.stopping = False
        self._report = report
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._wake_writer = wake

    def __enter__(self) -> "Supervisor":
        signal.set_wakeup_fd(self._wake_writer.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_stop)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        for service in self.services.values():
            self._wait_stopped(service)
        signal.set_wakeup_fd(-1)
        self._wake.close()
        self._wake_writer.close()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            self.kill_all()  # asked twice: whoever asks does not want to wait
        self.stopping = True

    def start(self, services: Iterable[Service]) -> None:
        """Starts all of them without waiting for any."""
        for service in services:
            self.services[service.name] = service
            service.start()

    def wait_ready(self, names: Iterable[str], seconds: float) -> None:
        """Returns when all are ready, or when a stop is asked for. Raises StartError."""
        waiting = [self.services[name] for name in names]
        deadline = time.monotonic() + seconds
        while not self.stopping and not all(service.is_ready for service in waiting):
            self.step(0.05)
            for service in waiting:
                late = time.monotonic() > deadline and not service.is_ready
                if late or (service.failures >= START_ATTEMPTS and not service.was_ready):
                    raise StartError(_start_failure(service, seconds if late else None))

    def step(self, seconds: float) -> bool:
        """Waits at most ``seconds`` for something to happen, and deals with it.

        True when a service has become ready, so that what is known about it should be written again.
        """
        self._sleep(seconds)
        for service in self.services.values():
            code = service.reap()
            if code is not None and not self.stopping:
                self._report(f"{service.name} ended ({_exit_words(code)}), starting it again")
            if service.process is None and not self.stopping and time.monotonic() >= service.next_at:
                service.start()
        became_ready = [service.check() for service in self.services.values()]
        return any(became_ready)

    def _sleep(self, seconds: float) -> None:
        due = [service.next_at for service in self.services.values() if not service.is_ready]
        seconds = max(0.0, min([seconds, *(at - time.monotonic() for at in due)]))
        select.select([self._wake], [], [], seconds)
        with suppress(BlockingIOError):
            self._wake.recv(4096)

    def stop(self, names: Sequence[str]) -> None:
        """Asks these to end, waits for all of them, kills those that take too long."""
        self.stopping = True
        leaving = [service for name in names if (service := self.services.get(name)) is not None]
        for service in leaving:
            if service.process is not None:
                service.process.send_signal(service.program.stop_signal)
        for service in leaving:
            self._wait_stopped(service)

    def _wait_stopped(self, service: Service) -> None:
        if service.process is None:
            return
        try:
            service.process.wait(service.program.stop_seconds)
        except subprocess.TimeoutExpired:
            self._report(f"{service.name} did not end within {service.program.stop_seconds:g} s, killing it")
            _kill_session(service.process)
            service.process.wait()
        service.process = None

    def kill_all(self) -> None:
        """Kills without waiting, so that a signal handler may call it."""
        for service in self.services.values():
            if service.process is not None and service.process.returncode is None:
                _kill_session(service.process)


def _kill_session(process: Process) -> None:
    """Kills the program and what it started; each program leads a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _exit_words(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def _start_failure(service: Service, waited: float | None) -> str:
    what = f"was not ready after {waited:g} s" if waited else "ended while starting"
    log = service.program.log
    tail = last_lines(log)
    return f"{service.name} {what}." + (f" The end of {log}:\n{tail}" if tail else "")
