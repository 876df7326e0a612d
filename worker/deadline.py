"""The last fence around work that does not end."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Ends the process if the work inside takes longer.

    By the alarm signal's default action, which asks nobody: an endless regular expression holds the interpreter, but
    not the kernel. A new process is started; the lease of what was in hand is recovered. Inside another deadline it
    takes its place.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def stricter_deadline(seconds: float) -> Iterator[None]:
    """A shorter one for a part of the work inside another deadline, which goes on afterwards."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        yield
    finally:
        # Never 0, which would end the outer one instead of letting it strike.
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 0.001) if left else 0)
