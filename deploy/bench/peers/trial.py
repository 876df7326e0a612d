"""One peer at work: its workers, and the program that puts mails into its queue."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self, cast

import psutil

from deploy.bench.peers.catalogue import Peer
from deploy.bench.peers.programs.job import VARIABLE, Job
from deploy.bench.processes import family, seconds_of
from deploy.bench.sinks import CountingPostfixSink, OwnSink
from deploy.program import Process, Program, last_lines, start

START_SECONDS = 60.0
PATIENCE_SECONDS = 30.0
SLOWEST_RATE = 10.0
"""Mails per second."""
POLL_SECONDS = 0.01
SETTLE_SECONDS = 0.2
"""A mail that comes a second time, and later than this after the last, is not seen."""


class TrialError(Exception):
    """A peer did not do its work. Says what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What it took to send some mails."""

    seconds: float
    """From before the first was submitted until the last had arrived."""
    processor_seconds: float
    """Of the peer's own processes."""
    arrived: int


class Trial:
    """A peer's processes, as a context manager. Their files lie in the job's folder."""

    def __init__(self, peer: Peer, python: str, job: Job, sink: CountingPostfixSink | OwnSink) -> None:
        self._peer = peer
        self._python = python
        self._job = job
        self._sink = sink
        self._folder = Path(job.folder)
        self._log = self._folder / "peer.log"
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        """Raises TrialError where it does not start."""
        file = self._folder / "job.json"
        file.write_text(json.dumps(asdict(self._job)))
        self._env = {
            VARIABLE: str(file),
            "PYTHONPATH": str(Path(__file__).parent),
            "RQ_REDIS_URL": self._job.redis_url,  # as an option it would be seen in the list of processes
        }
        self._orders = self._start_submitter()
        try:
            self._wait((self._folder / "ready").exists, START_SECONDS, "was not ready")
            for number, command in enumerate(self._peer.workers):
                argv = self._argv(command)
                self._processes.append(start(Program(name=f"worker {number}", argv=argv, log=self._log, env=self._env)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # At once: an orderly end takes seconds, and nothing that they hold is needed any more.
        for process in self._processes:
            for member in family(process.pid):
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
        self._orders.close()

    def send(self, first: int, end: int) -> Sending:
        """Submits the mails from ``first`` to before ``end`` and waits until they have arrived.

        Raises TrialError if they do not.
        """
        expected = self._sink.arrived + end - first
        used, began = self._processor_seconds(), time.monotonic()
        self._submit(first, end)
        patience = PATIENCE_SECONDS + (end - first) / SLOWEST_RATE
        self._wait(lambda: self._sink.arrived >= expected, patience, f"had not sent {end - first:,} mails")
        took = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        return Sending(
            seconds=took,
            processor_seconds=self._processor_seconds() - used,
            arrived=self._sink.arrived - expected + end - first,
        )

    def _argv(self, command: str) -> tuple[str, ...]:
        # -P: what lies in the current folder must not be imported.
        return (self._python, "-P", "-m", *shlex.split(command))

    def _start_submitter(self) -> IO[bytes]:
        """Where to write what it is to submit."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._argv(f"programs.submit {self._peer.program}"),
                stdin=subprocess.PIPE,  # its end ends the process, whatever becomes of us
                stdout=log,
                stderr=log,
                env=os.environ | self._env,
                start_new_session=True,
            )
        self._processes.append(process)
        return cast(IO[bytes], process.stdin)

    def _submit(self, first: int, end: int) -> None:
        with suppress(BrokenPipeError):  # `_wait` says why it ended
            self._orders.write(f"{first} {end}\n".encode())
            self._orders.flush()

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            ended = any(process.poll() is not None for process in self._processes)
            if ended or time.monotonic() > deadline:
                when = "when one of its processes ended" if ended else f"after {seconds:.0f} s"
                raise TrialError(f"{what} {when}: {last_lines(self._log, 5)}")
            time.sleep(POLL_SECONDS)

    def _processor_seconds(self) -> float:
        return sum(seconds_of(process.pid) for process in self._processes)
