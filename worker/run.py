"""Starting a worker process: which queues, how many children, and the runtime of each."""

import gc
import os
import threading
from collections.abc import Sequence
from typing import Any

from celery.signals import (
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from worker import logs
from worker.app import celery_app
from worker.deadline import end_within
from worker.heartbeat import Heartbeat
from worker.meter import Flusher
from worker.runtime import Runtime
from worker.settings import Settings
from worker.tasks import register

STOP_SECONDS = 50.0
"""What is in hand may take so long after a SIGTERM. Shorter than the patience of what sends it: see deploy/systemd."""


class Worker:
    """One worker. With a concurrency of 1 the work is done in the process itself, otherwise in forked children."""

    def __init__(self, settings: Settings, queues: Sequence[str], concurrency: int) -> None:
        self._settings = settings
        self._queues = list(queues)
        self._concurrency = concurrency
        self._app = celery_app(settings)
        self._runtime: Runtime | None = None
        self._heartbeat: Heartbeat | None = None
        self._flusher: Flusher | None = None
        self._pid = os.getpid()
        self._opening = threading.Lock()
        register(self._app, self.runtime)

    def runtime(self) -> Runtime:
        """This process' runtime, opened on first use."""
        with self._opening:
            if self._runtime is None:
                self._runtime = Runtime(
                    self._settings, application=f"postroad {','.join(self._queues)}", celery=self._app
                )
            return self._runtime

    def run(self) -> None:
        """Works until SIGTERM; then finishes what is in hand, and returns or ends within `STOP_SECONDS`."""
        logs.configure(self._settings.log_level)
        solo = self._concurrency == 1
        worker_shutting_down.connect(self._end_in_time, weak=False)
        (worker_ready if solo else worker_process_init).connect(self._begin, weak=False)
        (worker_shutdown if solo else worker_process_shutdown).connect(self._end, weak=False)
        self._app.conf.worker_pool = "solo" if solo else "worker.pool:Prefork"
        gc.freeze()  # what was imported is never garbage; children share its pages
        self._app.worker_main(
            [
                "worker",
                f"--queues={','.join(self._queues)}",
                f"--concurrency={self._concurrency}",
                f"--pool={'solo' if solo else 'prefork'}",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
                "--loglevel=warning",
            ]
        )

    def _end_in_time(self, **_: Any) -> None:
        """The kernel ends us then, and the children with us, whatever they do. What they held is recovered."""
        end_within(STOP_SECONDS)

    def _begin(self, **_: Any) -> None:
        if os.getpid() != self._pid != os.getppid():
            os._exit(1)  # our parent died before we could ask the kernel to end us with it
        self._heartbeat = Heartbeat(self.runtime(), self._queues)
        self._heartbeat.start()
        self._flusher = Flusher(self.runtime().meter, self.runtime().engine)
        self._flusher.start()

    def _end(self, **_: Any) -> None:
        if self._flusher is not None:
            self._flusher.close()
        if self._heartbeat is not None:
            self._heartbeat.close()
        if self._runtime is not None:
            self._runtime.close()
