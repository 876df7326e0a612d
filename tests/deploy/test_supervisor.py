"""How programs are kept running, on programs that misbehave on purpose."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.program import LOG_CAP, Program, last_lines, start
from deploy.services import free_port
from deploy.supervisor import LAST_BACKOFF, Service, StartError, Supervisor
from tests.conftest import wait_until


@pytest.fixture
def reported() -> list[str]:
    return []


@pytest.fixture
def supervisor(reported: list[str]) -> Iterator[Supervisor]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
    with Supervisor(reported.append) as running:
        yield running
    for number, handler in before:
        signal.signal(number, handler)


def _shell(script: str, log: Path | None = None, stop_seconds: float = 5.0) -> Program:
    return Program(name="sh", argv=("/bin/sh", "-c", script), log=log, stop_seconds=stop_seconds)


def test_a_program_that_ends_while_starting_is_reported_with_the_end_of_its_log(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    supervisor.start([Service(program=_shell("echo no such table; exit 3", log), ready=lambda _: False)])
    with pytest.raises(StartError, match=r"(?s)sh ended while starting.*no such table"):
        supervisor.wait_ready(["sh"], 20)


def test_a_program_that_never_answers_is_reported_after_the_time_it_had(supervisor: Supervisor) -> None:
    supervisor.start([Service(program=_shell("sleep 60"), ready=lambda _: False)])
    with pytest.raises(StartError, match=r"sh was not ready after 0\.3 s"):
        supervisor.wait_ready(["sh"], 0.3)


def test_the_wait_before_a_new_start_doubles_up_to_a_limit(supervisor: Supervisor) -> None:
    service = Service(program=_shell("exit 1"), ready=lambda _: False)
    waits = []
    for _ in range(7):
        service.start()
        assert service.process is not None
        service.process.wait()
        before = time.monotonic()
        service.reap()
        waits.append((service.next_at - time.monotonic(), service.next_at - before))
    for (least, most), wait in zip(waits, [0.2, 0.4, 0.8, 1.6, LAST_BACKOFF, LAST_BACKOFF, LAST_BACKOFF], strict=True):
        assert least <= wait <= most


def test_a_program_that_ends_is_started_again_and_said_so(supervisor: Supervisor, reported: list[str]) -> None:
    service = Service(program=_shell("sleep 60"), ready=lambda _: True)
    supervisor.start([service])
    supervisor.wait_ready(["sh"], 30)
    first = service.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: supervisor.step(0.05) and service.is_ready, "the program is ready again")
    assert service.pid != first
    assert reported == ["sh ended (SIGKILL), starting it again"]


def _stubborn(log: Path, stop_seconds: float) -> Service:
    """Ready once it ignores SIGTERM."""
    script = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
    return Service(program=_shell(script, log, stop_seconds), ready=lambda _: log.read_text() == "deaf\n")


def test_a_program_that_ignores_the_request_to_end_is_killed(
    supervisor: Supervisor, reported: list[str], tmp_path: Path
) -> None:
    supervisor.start([_stubborn(tmp_path / "log", 0.3)])
    supervisor.wait_ready(["sh"], 30)
    supervisor.stop(["sh"])
    assert reported == ["sh did not end within 0.3 s, killing it"]


def test_a_second_request_to_stop_does_not_wait(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start([_stubborn(tmp_path / "log", 300)])
    supervisor.wait_ready(["sh"], 30)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    begun = time.monotonic()
    supervisor.stop(["sh"])
    assert time.monotonic() - begun < 60


def test_a_log_that_has_grown_large_is_set_aside_when_its_program_starts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (LOG_CAP + 1))
    start(_shell("echo fresh", log)).wait()
    assert log.read_text() == "fresh\n"
    assert (tmp_path / "log.1").stat().st_size == LOG_CAP + 1


def test_the_end_of_a_log_is_shown_without_reading_all_of_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(100_000)))
    assert last_lines(log, 2) == "99998\n99999"


def test_our_own_command_runs_in_a_fork_with_its_output_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert start(Program(name="version", command=("version",), log=log)).wait(60) == 0
    assert log.read_text().strip().count(".") == 2


def test_a_command_that_is_used_wrongly_ends_with_2_and_the_parent_lives_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert start(Program(name="worker", command=("worker", "--queues"), log=log)).wait(60) == 2
    assert "requires an argument" in log.read_text()


def test_a_program_that_is_told_to_end_before_it_has_begun_ends(supervisor: Supervisor, tmp_path: Path) -> None:
    """Between the fork and its first step it still has its supervisor's handlers, which would only take note."""
    for number in range(5):
        command = ("fake-redis", "--port", str(free_port()))
        process = start(Program(name="redis", command=command, log=tmp_path / f"log{number}"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    assert not supervisor.stopping
