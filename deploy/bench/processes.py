"""What the processes of a stack cost: processor time and memory by component, read from the kernel."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

from deploy.bench.report import Cost, Figure, Memory, Target

REDIS_LIMIT_MB = 20.0
POSTGRES = "postgres, all together"

Seconds = dict[str, float]
"""Processor time so far, by component."""


def pids_of(stack: Mapping[str, Any]) -> dict[str, int]:
    """Component -> main process, of a stack.json."""
    workers = {f"worker {queue}": pid for queue, pid in stack["pids"]["workers"].items()}
    return {name: pid for name, pid in stack["pids"].items() if name != "workers"} | workers


def seconds_of(pid: int) -> float:
    """Processor time of a process, its living children and those that it has waited for."""
    return sum(_used(process) for process in family(pid))


def components(stack: Mapping[str, Any], connection: psycopg.Connection) -> Seconds:
    """Of every component of a stack; PostgreSQL's is split by whom a backend serves."""
    pids = pids_of(stack)
    used = {name: seconds_of(pid) for name, pid in pids.items() if name != "postgres"}
    return used | _postgres(pids["postgres"], _backends(connection))


def costs(before: Seconds, after: Seconds, mails: int) -> list[Cost]:
    """Microseconds for each mail, the dearest first, what is below one left out, with their sum."""
    spent = {name: (seconds - before.get(name, 0.0)) / mails * 1e6 for name, seconds in after.items()}
    rows = [Cost(component=name, microseconds=cost) for name, cost in spent.items() if cost >= 1]
    rows.sort(key=lambda row: -row.microseconds)
    return [*rows, Cost(component="sum", microseconds=sum(spent.values()))]


def peaks(stack: Mapping[str, Any]) -> list[Memory]:
    """The most that each process of a stack has held resident.

    PostgreSQL's would each count the shared buffers, so it is one row: what all of them hold now, each page once.
    """
    rows = [Memory(process=title, megabytes=held) for title, held in _held(stack, "VmHWM")]
    return [*rows, Memory(process=POSTGRES, megabytes=_shared_out(stack), limited=False)]


def resident(stack: Mapping[str, Any]) -> dict[str, float]:
    """MB that each process holds now, as in `peaks`."""
    return dict(_held(stack, "VmRSS")) | {POSTGRES: _shared_out(stack)}


def redis_peak(stack: Mapping[str, Any]) -> Figure:
    """The most that Redis has held, its own memory without the copy-on-write of a snapshot."""
    held = redis.Redis.from_url(stack["redis_url"]).info("memory")["used_memory_peak"]
    target = Target("<=", REDIS_LIMIT_MB)
    return Figure(name="redis_peak", title="most in Redis", value=held / 1024**2, unit="MB", target=target)


def _held(stack: Mapping[str, Any], key: str) -> Iterator[tuple[str, float]]:
    """Process and MB, of all but PostgreSQL's."""
    for name, main in pids_of(stack).items():
        for number, process in enumerate(family(main) if name != "postgres" else ()):
            title = f"{name}, child {number}" if number else name
            yield title, _kilobytes(process.pid, "status", key) / 1024


def _shared_out(stack: Mapping[str, Any]) -> float:
    """MB of PostgreSQL's processes, each page once."""
    return sum(_kilobytes(one.pid, "smaps_rollup", "Pss") for one in family(stack["pids"]["postgres"])) / 1024


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; nothing if it is gone."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _used(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _backends(connection: psycopg.Connection) -> dict[int, str]:
    query = "select pid, coalesce(nullif(application_name, ''), backend_type) from pg_stat_activity"
    return dict(connection.execute(query).fetchall())


def _postgres(pid: int, served: Mapping[int, str]) -> Seconds:
    used: Seconds = {}
    for process in family(pid):
        name = f"postgres for {served.get(process.pid, 'itself').removeprefix('postroad ')}"
        used[name] = used.get(name, 0.0) + _used(process)
    return used


def _kilobytes(pid: int, file: str, key: str) -> int:
    """A number from a file of /proc; 0 where there is none (another system, a process that has ended)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0
