"""The folder of a stack: who holds it, and what a killed run left in it."""

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from deploy.identity import write_private


class StackError(Exception):
    """The stack cannot run here. Says why and what to do."""


class Directory:
    """The folder a stack lives in; one `postroad up` at a time holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.stack_json = self.path / "stack.json"
        self._pids = self.path / "stack.pids"
        self.inbox = self.path / "inbox"
        self.attachments = self.path / "attachments"

    def __enter__(self) -> Self:
        """Raises StackError where another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "up.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            pid = self._lock.read().strip()
            self._lock.close()
            raise StackError(
                f"postroad up already runs on {self.path} as process {pid}. "
                f"Stop it (kill {pid}), or choose another folder with --data."
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        self._end_leftovers()
        self.stack_json.unlink(missing_ok=True)
        self.attachments.mkdir(mode=0o700, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack_json.unlink(missing_ok=True)
        self._pids.unlink(missing_ok=True)
        self._lock.close()

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def note_pids(self, pids: Iterable[int]) -> None:
        """Keeps the processes of this run, so that the next one knows them should this one be killed."""
        found = []
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                found.append([pid, psutil.Process(pid).create_time()])
        write_private(self._pids, found)

    def _end_leftovers(self) -> None:
        """Waits for what a killed run left behind: the kernel told it to end; it is killed if it does not."""
        leftovers = []
        with suppress(FileNotFoundError, ValueError):
            for pid, created in json.loads(self._pids.read_text()):
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    if process.create_time() == created:
                        leftovers.append(process)
        _, alive = psutil.wait_procs(leftovers, timeout=8)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)
