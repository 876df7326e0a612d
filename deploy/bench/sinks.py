"""Where the mail of a bench goes, and the machine's limit: Postfix's smtp-source and smtp-sink, where installed."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.bench.processes import seconds_of
from deploy.bench.stack import BenchError
from deploy.program import Program, start
from deploy.services import LOOPBACK, free_port, unprivileged
from providers.emulators.smtp import SmtpEmulator

NOT_INSTALLED = "smtp-source and smtp-sink are not installed: apt-get install postfix"
LIMIT_SECONDS = 120.0
_COUNT = re.compile(rb"mesg=(\d+)\r")
_LAST_BYTES = 4096


def find_tool(name: str) -> str | None:
    """Where a program of Postfix's lies; an ordinary user's PATH has no sbin."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/lib/postfix/sbin")


class PostfixSink:
    """smtp-sink: takes everything, keeps nothing, counts nothing."""

    def __init__(self, program: str, *options: str, log: Path = Path(os.devnull)) -> None:
        # The log is thrown away as a rule: it complains of every connection that rests.
        self.port = free_port()
        # As root it wants another user; given one by us, not with -u, it still ends when we are killed.
        self._program = Program(
            name="smtp-sink",
            argv=(program, *options, f"{LOOPBACK}:{self.port}", "1024"),
            log=log,
            run_as=unprivileged(Path("nowhere")),
        )

    def __enter__(self) -> Self:
        self._process = start(self._program)
        deadline = time.monotonic() + 10
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise BenchError("smtp-sink did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def seconds(self) -> float:
        return seconds_of(self._process.pid)

    @property
    def doubled(self) -> int:
        return 0


class CountingPostfixSink(PostfixSink):
    """smtp-sink that writes how many mails it has taken, after each: as fast for everybody, a little slower."""

    def __init__(self, program: str, log: Path) -> None:
        super().__init__(program, "-c", log=log)
        self._log = log

    @property
    def arrived(self) -> int:
        """Mails taken so far."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _LAST_BYTES))
            counts = _COUNT.findall(file.read())
        return int(counts[-1]) if counts else 0


class OwnSink:
    """Our emulator, in this process: knows every Message-ID."""

    def __init__(self) -> None:
        self.emulator = SmtpEmulator(keep_data=False)
        self.port = self.emulator.port

    def __enter__(self) -> Self:
        self.emulator.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        at: TracebackType | None = None,
    ) -> None:
        self.emulator.stop()

    @property
    def seconds(self) -> float:
        return time.process_time()

    @property
    def arrived(self) -> int:
        """Mails taken so far."""
        return len(self.emulator.received)

    @property
    def doubled(self) -> int:
        """Mails that came more often than once, each time counted."""
        return sum(times - 1 for times in self.emulator.ledger.values())


def open_sink() -> PostfixSink | OwnSink:
    """The fastest there is. Enter it to start it."""
    program = find_tool("smtp-sink")
    return PostfixSink(program) if program else OwnSink()


def open_counting_sink(folder: Path) -> CountingPostfixSink | OwnSink:
    """The fastest that counts, its log in ``folder``. Enter it to start it."""
    program = find_tool("smtp-sink")
    return CountingPostfixSink(program, folder / "sink.log") if program else OwnSink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What Postfix's own pair did."""

    rate: float
    """Mails per second."""
    microseconds: float
    """Processor time of both for one mail."""


def measure_limit(sink: PostfixSink, mails: int, size: int, *, keep: bool) -> Limit:
    """smtp-source, four sessions at once; ``keep`` sends many mails over each connection, as we do.

    Raises BenchError where it is not installed or fails.
    """
    program = find_tool("smtp-source")
    if program is None:
        raise BenchError(NOT_INSTALLED)
    options = ("-s", "4", "-l", str(size), "-m", str(mails), *(("-d",) if keep else ()))
    began, used = time.monotonic(), sink.seconds + _waited_for()
    try:
        subprocess.run((program, *options, f"{LOOPBACK}:{sink.port}"), check=True, timeout=LIMIT_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"smtp-source failed: {error}") from error
    took = time.monotonic() - began
    return Limit(rate=mails / took, microseconds=(sink.seconds + _waited_for() - used) / mails * 1e6)


def _waited_for() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
