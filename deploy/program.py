"""Child processes that never outlive the process that started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOG_CAP = 5 * 1024 * 1024
"""A log larger than this is moved to ``NAME.log.1`` when its program starts."""

_PR_SET_KEEPCAPS, _PR_SET_PDEATHSIG, _PR_CAP_AMBIENT = 8, 1, 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """The user that a program of root's runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start and how to end it."""

    name: str
    argv: tuple[str, ...]
    log: Path | None
    """Where stdout and stderr go, appended. None: where ours go."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to our own environment. May hold secrets."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks for an orderly end; sent also by the kernel when the parent dies."""
    stop_seconds: float = 5.0
    """How long an orderly end may take before SIGKILL."""
    run_as: RunAs | None = None


def start(program: Program) -> subprocess.Popen[bytes]:
    """Starts ``program`` in a session of its own, so that Ctrl-C in the terminal reaches only us.

    Raises OSError where the program cannot be executed.
    """
    parent = os.getpid()
    log = _open_log(program.log)
    try:
        return subprocess.Popen(
            program.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.env},
            start_new_session=True,
            # The supervisor has one thread, so running Python between fork and exec is safe.
            preexec_fn=lambda: _before_exec(program, parent),  # noqa: PLW1509
        )
    finally:
        if log is not None:
            os.close(log)


def last_lines(log: Path | None, count: int = 15) -> str:
    """The end of a log, for the message about a program that did not start."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])


def _open_log(path: Path | None) -> int | None:
    if path is None:
        return None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_CAP:
        path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _before_exec(program: Program, parent: int) -> None:
    if program.run_as is not None:
        _become(program.run_as)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        _libc.prctl(_PR_SET_PDEATHSIG, int(program.stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _become(user: RunAs) -> None:
    """Gives up root for ``user`` and keeps one right: to pass folders such as ``/root`` that are closed to others.

    The alternative would be to open these folders to everybody. Where the right cannot be kept, the program works all
    the same if its folders are open.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)
    if sys.platform == "linux":
        bit = 1 << _CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
        _libc.capset(header, data)
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
