"""The last fence around work that does not end."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ends_at = math.inf
"""By `time.monotonic`: when this process ends, whatever it does."""


def end_within(seconds: float) -> None:
    """Ends the process after ``seconds``, by the alarm signal's default action, unless it has ended by itself.

    No deadline that is set or met afterwards changes that. May be called by a signal handler.
    """
    global _ends_at  # noqa: PLW0603 -- there is one timer for the process
    _ends_at = min(_ends_at, time.monotonic() + seconds)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _set(signal.getitimer(signal.ITIMER_REAL)[0])


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Ends the process if the work inside takes longer.

    By the alarm signal's default action, which asks nobody: an endless regular expression holds the interpreter, but
    not the kernel. A new process is started; the lease of what was in hand is recovered. Inside another deadline it
    takes its place.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _set(seconds)
    try:
        yield
    finally:
        _set(0)


@contextmanager
def stricter_deadline(seconds: float) -> Iterator[None]:
    """A shorter one for a part of the work inside another deadline, which goes on afterwards."""
    left, started = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    _set(seconds)
    try:
        yield
    finally:
        # Never 0, which would end the outer one instead of letting it strike.
        _set(max(left - (time.monotonic() - started), SOON_SECONDS) if left else 0)


SOON_SECONDS = 0.001


def _set(seconds: float) -> None:
    """Strikes after ``seconds``, with 0 never; and in any case when the process is to end."""
    ends_at = None
    while ends_at != _ends_at:  # which a signal may have set just now
        ends_at = _ends_at
        first = min(seconds or math.inf, max(ends_at - time.monotonic(), SOON_SECONDS))
        signal.setitimer(signal.ITIMER_REAL, 0 if first == math.inf else first)
