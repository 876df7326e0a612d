"""Child processes that never outlive the process that started them.

Our own commands are forked from a process that has imported them already: six of them start in the time of one,
share its memory, and are back at once after a crash. Other programs are executed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOG_CAP = 5 * 1024 * 1024
"""A log larger than this is moved to ``NAME.log.1`` when its program starts."""

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_NAME, _PR_CAP_AMBIENT = 1, 8, 15, 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

_ENDINGS = (signal.SIGINT, signal.SIGTERM)

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
    argv: tuple[str, ...] = ()
    """A program to execute. Empty for one of our own."""
    command: tuple[str, ...] = ()
    """One of our own subcommands with its options."""
    log: Path | None
    """Where stdout and stderr go, appended. None: where ours go."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to our own environment. May hold secrets."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks for an orderly end; sent also by the kernel when the parent dies."""
    stop_seconds: float = 5.0
    """How long an orderly end may take before SIGKILL."""
    run_as: RunAs | None = None


class Forked:
    """A forked child, with the part of `subprocess.Popen` that is needed here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


Process = subprocess.Popen[bytes] | Forked


def start(program: Program) -> Process:
    """Starts ``program`` in a session of its own, so that Ctrl-C in the terminal reaches only us.

    Raises OSError where the program cannot be executed.
    """
    log = _open_log(program.log)
    try:
        # A fork that is not followed by an exec is safe with one thread; macOS' frameworks do not survive it even so.
        if program.command and sys.platform == "linux":
            return _fork(program, log)
        return _execute(program, log)
    finally:
        if log is not None:
            os.close(log)


def _execute(program: Program, log: int | None) -> Process:
    parent = os.getpid()
    # -P: a folder of the user's that is called models or deploy must not be imported.
    own = (sys.executable, "-P", "-m", "deploy.cli", *program.command)
    return subprocess.Popen(
        program.argv or own,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **program.env},
        start_new_session=True,
        preexec_fn=lambda: _before_exec(program, parent),  # noqa: PLW1509
    )


def _fork(program: Program, log: int | None) -> Process:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # What is told to end at once must hear it with its own ears, not with ours.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        pid = os.fork()
    finally:
        if os.getpid() == parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    if pid:
        return Forked(pid)
    code = 1
    try:
        os.setsid()
        _before_exec(program, parent)
        _forget_parent(log)
        _libc.prctl(_PR_SET_NAME, program.name.encode(), 0, 0, 0)  # tells the forks apart in top and pstree
        os.environ.update(program.env)
        code = _run_command(program.command)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Nothing of the parent's may be cleaned up here: its connections and locks are its own.
        os._exit(code)


def _forget_parent(log: int | None) -> None:
    """Lets go of the parent's signal handlers and open files, the lock on its folder among them."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    if log is not None:
        os.dup2(log, 1)
        os.dup2(log, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # Streams of our own: the parent's may have been replaced, and may hold a file that is closed now.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))


def _run_command(command: tuple[str, ...]) -> int:
    from deploy.cli import main

    try:
        main(command)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:  # noqa: BLE001 -- a child must not run on into its parent's code
        traceback.print_exc()
        return 1
    return 0


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
