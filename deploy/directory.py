"""The folder of a stack: who holds it, and what a killed run left in it."""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil


class StackError(Exception):
    """The stack cannot run here. Says why and what to do."""


class Directory:
    """The folder a stack lives in; one `postroad up` at a time holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.stack_json = self.path / "stack.json"
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
        _end_leftovers(self.stack_json)
        self.stack_json.unlink(missing_ok=True)
        self.attachments.mkdir(mode=0o700, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack_json.unlink(missing_ok=True)
        self._lock.close()

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"


def _end_leftovers(stack_json: Path) -> None:
    """Waits for what a killed run left behind; it has been told to end by the kernel, and is killed if it does not."""
    if not stack_json.exists():
        return
    leftovers = []
    for pid in _pids(stack_json):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.environ().get("POSTROAD_STACK") == str(stack_json.parent):
                leftovers.append(process)
    _, alive = psutil.wait_procs(leftovers, timeout=5)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def _pids(stack_json: Path) -> list[int]:
    with suppress(ValueError, KeyError):
        pids = json.loads(stack_json.read_text())["pids"]
        return [*(pid for pid in pids.values() if isinstance(pid, int)), *pids["workers"].values()]
    return []
