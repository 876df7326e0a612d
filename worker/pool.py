"""The processes of one worker: Celery's prefork pool, which looks more often whether one of them has died.

The pool hears of a death by a file that becomes readable. Where several come at once it mistakes the file of a new
process for that of a dead one, and from then on hears nothing of it (celery 5.6.3: `AsynPool._event_process_exit`).
Its death is noticed at the pool's regular look only, which is taken every five seconds.
"""

from collections.abc import Callable

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

LOOK_SECONDS = 0.5


class WatchedPool(AsynPool):
    """Replaces a dead process within `LOOK_SECONDS`."""

    @property
    def timers(self) -> dict[Callable[[], None], float]:
        return {self.maintain_pool: LOOK_SECONDS}


class Prefork(TaskPool):
    """What `--pool=prefork` means with us."""

    Pool = WatchedPool
