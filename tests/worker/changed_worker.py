"""`postroad worker` with something changed: python -m tests.worker.changed_worker CHANGE QUEUE CONCURRENCY."""

import sys
import time
from collections.abc import Callable, Mapping

from celery import platforms
from celery.concurrency.asynpool import AsynPool

from worker import run
from worker.settings import Settings

STOP_SECONDS = 1.0
START_SECONDS = 1.0


def hear_of_no_death() -> None:
    """As it happens to the pool by itself when processes die together."""
    AsynPool._event_process_exit = lambda *_: None  # type: ignore[attr-defined]


def stop_soon() -> None:
    run.STOP_SECONDS = STOP_SECONDS


def start_slowly() -> None:
    """Processes take their time before they ask to end with their parent."""
    ask = platforms.set_pdeathsig  # type: ignore[attr-defined]

    def ask_later(name: str) -> None:
        time.sleep(START_SECONDS)
        ask(name)

    platforms.set_pdeathsig = ask_later  # type: ignore[attr-defined]


CHANGES: Mapping[str, Callable[[], None]] = {
    change.__name__: change for change in (hear_of_no_death, stop_soon, start_slowly)
}


if __name__ == "__main__":
    _, change, queue, concurrency = sys.argv
    CHANGES[change]()
    run.Worker(Settings.from_env(), [queue], int(concurrency)).run()
