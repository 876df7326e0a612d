"""Runs `postroad` as a shell would: off a terminal in this process, and on a real one in a process of its own."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from click.testing import CliRunner

from deploy.cli import postroad


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """NDJSON."""
        return [orjson.loads(line) for line in self.out.splitlines()]


def run(arguments: Sequence[str], env: Mapping[str, str | None] | None = None, stdin: str = "") -> Ended:
    """Neither stdin nor stdout is a terminal. A traceback fails the test."""
    result = CliRunner().invoke(postroad, list(arguments), env=env, input=stdin, prog_name="postroad")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(code=result.exit_code, out=result.stdout, err=result.stderr)


def run_on_terminal(arguments: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and everything that is seen, on a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", **env},
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # Linux answers EIO when the other side is closed
        while part := os.read(ours, 65536):
            seen += part
    os.close(ours)
    return child.wait(60), seen.decode()
