"""Work that never ends takes its process with it, whatever it does."""

import os
import signal
import time
from collections.abc import Callable

from worker.deadline import deadline, stricter_deadline
from worker.faults import ACTIONS


def how_it_ended(work: Callable[[], None]) -> int:
    """The exit code of a process that does the work, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def spin_under(outer: float, inner: float) -> Callable[[], None]:
    def work() -> None:
        with deadline(outer), stricter_deadline(inner):
            ACTIONS["spin"]()

    return work


def test_r26_an_endless_regular_expression_ends_its_process_at_the_shorter_deadline() -> None:
    started = time.monotonic()
    assert how_it_ended(spin_under(60.0, 0.1)) == -signal.SIGALRM
    assert time.monotonic() - started < 30


def test_the_outer_deadline_goes_on_after_the_stricter_one() -> None:
    def work() -> None:
        with deadline(0.3):
            with stricter_deadline(10.0):
                pass
            time.sleep(30)

    assert how_it_ended(work) == -signal.SIGALRM


def test_work_that_ends_in_time_ends_nothing() -> None:
    def work() -> None:
        with deadline(60.0), stricter_deadline(30.0):
            begun = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        ended = signal.getitimer(signal.ITIMER_REAL)[0] == 0
        os._exit(0 if begun and ended else 1)

    assert how_it_ended(work) == 0
