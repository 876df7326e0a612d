"""A second PostgreSQL that follows a first one, and takes over when that is gone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg

from deploy.program import Program, last_lines, start
from deploy.services import LOOPBACK, Postgres, free_port, unprivileged
from tests.conftest import wait_until


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A primary and its standby; no commit is answered before the standby has it on disk."""

    primary: Postgres
    standby: Postgres

    def kill_primary(self, pid: int) -> None:
        """Power off, for good: every process at once, and its files out of the reach of who would start it again."""
        self.primary.directory.rename(self.primary.directory.with_name("postgres.lost"))
        postmaster = psutil.Process(pid)
        postmaster.suspend()  # nobody is born while the others die
        for process in (*postmaster.children(recursive=True), postmaster):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def promote(self) -> None:
        """Makes the standby a primary. Returns when it takes writes."""
        with psycopg.connect(self.standby.url(), autocommit=True) as connection:
            done = connection.execute("select pg_promote(wait => true, wait_seconds => 60)").fetchone()
        assert done == (True,)


@contextmanager
def followed(directory: Path, database_url: str) -> Iterator[Pair]:
    """Gives a running primary a standby. directory: of the primary's files; the standby's are made beside it."""
    parts = urlsplit(database_url)
    password, port = parts.password or "", parts.port or 5432
    primary = Postgres(directory=directory, port=port, password=password, log=directory.with_name("primary.log"))
    log = directory.with_name("standby.log")
    standby = Postgres(directory=directory.with_name("standby"), port=free_port(), password=password, log=log)
    _copy(primary, standby)
    program = standby.program()
    process = start(program)
    try:
        wait_until(standby.ready, "the standby answers", 60)
        _follow_in_step(primary)
        yield Pair(primary=primary, standby=standby)
    finally:
        process.send_signal(program.stop_signal)
        process.wait(30)


def _copy(primary: Postgres, standby: Postgres) -> None:
    user = unprivileged(primary.directory)
    standby.directory.mkdir(mode=0o700)
    if user is not None:
        os.chown(standby.directory, user.uid, user.gid)
    executable = Path(primary.program().argv[0]).with_name("pg_basebackup")
    argv = (
        str(executable), "-h", LOOPBACK, "-p", str(primary.port), "-U", "postroad", "-D", str(standby.directory),
        "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast",
    )  # fmt: skip
    environment = {"PGPASSWORD": primary.password}
    copying = start(Program(name="pg_basebackup", argv=argv, log=standby.log, env=environment, run_as=user))
    assert copying.wait(120) == 0, last_lines(standby.log)


def _follow_in_step(primary: Postgres) -> None:
    """Synchronous from here on. Set after the copy was made: the standby must not wait for a standby of its own."""
    with psycopg.connect(primary.url(), autocommit=True) as connection:
        connection.execute("alter system set synchronous_standby_names = '*'")
        connection.execute("select pg_reload_conf()")
        state = "select true from pg_stat_replication where sync_state = 'sync'"
        wait_until(lambda: connection.execute(state).fetchone() is not None, "the standby is in step")
