"""Fault points: named places where a process can be made to die, freeze, dawdle or fail. Only tests arm them.

A plan is a list of ``point:action:chance[:text]``, separated by commas::

    POSTROAD_FAULTS="sent:kill:0.03"                   every 33rd slice or so dies with its worker
    POSTROAD_FAULTS="composing:crash:1:mole@"          a mail to mole@... is deadly
    POSTROAD_FAULTS="@/run/plan"                       the plan stands in that file, read anew at every point

With ``text`` a fault strikes only where that stands in what is in hand. Unarmed, a point costs one look at a global;
none is passed for each mail.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()

POINTS: Mapping[str, str] = {
    "intake_storing": "the API has written a submission's rows and not committed them",
    "intake_stored": "the API has committed a submission and not answered",
    "claimed": "the claim is committed, nothing is on the wire",
    "composing": "a slice is about to become mails",
    "sending": "a slice's attempts are on record, the provider has heard nothing",
    "sent": "the provider has answered, nobody has written it down",
    "recording": "a slice's outcomes are about to be committed",
    "recorded": "a slice's outcomes are committed, nothing follows from them yet",
    "asked": "the provider has said what became of an uncertain mail, nobody has written it down",
    "following_up": "the log rows are written and not committed",
    "posted": "a webhook was answered, nobody has written it down",
    "recovering": "the leases of dead workers are ended, not yet committed",
}
"""Every point -> what is true there."""


class FaultRaised(Exception):
    """What the action ``raise`` raises: a bug that nobody foresaw."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _sleep() -> None:
    time.sleep(SLEEP_SECONDS)


def _spin() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")  # a backtracking match that would take longer than the world has stood


def _raise() -> None:
    raise FaultRaised


ACTIONS: Mapping[str, Callable[[], None]] = {
    "kill": _kill,
    "crash": _crash,
    "stop": _stop,
    "sleep": _sleep,
    "spin": _spin,
    "raise": _raise,
}
"""kill: SIGKILL, as the kernel does when memory runs out. crash: a segmentation fault. stop: frozen until SIGCONT.
sleep: `SLEEP_SECONDS`. spin: an endless regular expression, which holds the interpreter. raise: an exception.
"""

SLEEP_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One part of a plan."""

    point: str
    action: str
    chance: float
    """0 to 1."""
    text: str = ""
    """What must stand in what is in hand; empty: nothing must."""

    def strikes(self, point: str, in_hand: object) -> bool:
        return point == self.point and random.random() < self.chance and self.text in repr(in_hand)  # noqa: S311


def parse_plan(plan: str) -> tuple[Fault, ...]:
    """Reads a plan. Raises ValueError that names what is wrong with which part."""
    return tuple(_parse(part.strip()) for part in plan.split(",") if part.strip())


def _parse(part: str) -> Fault:
    point, action, chance, text = (*part.split(":", 3), "", "", "")[:4]
    if point not in POINTS:
        raise ValueError(f"{part!r}: there is no fault point {point!r}; there are {', '.join(POINTS)}")
    if action not in ACTIONS:
        raise ValueError(f"{part!r}: there is no action {action!r}; there are {', '.join(ACTIONS)}")
    try:
        fault = Fault(point=point, action=action, chance=float(chance), text=text)
    except ValueError:
        raise ValueError(f"{part!r}: the chance must be a number from 0 to 1") from None
    if not 0 <= fault.chance <= 1:
        raise ValueError(f"{part!r}: the chance must be a number from 0 to 1")
    return fault


_plan: str = ""


def arm(plan: str) -> None:
    """Sets the plan of this process; an empty one disarms it. Raises ValueError for one that cannot be read."""
    global _plan  # noqa: PLW0603 -- one plan for the process, asked for in places that share nothing else
    _read(plan)
    _plan = plan


def faultpoint(point: str, in_hand: object = None) -> None:
    """Does nothing, or what the plan says. ``in_hand``: what a fault's text is looked for in."""
    if _plan:
        _strike(point, in_hand)


def _strike(point: str, in_hand: object) -> None:
    for fault in _read(_plan):
        if fault.strikes(point, in_hand):
            log.warning("fault", point=point, action=fault.action, pid=os.getpid())
            ACTIONS[fault.action]()


def _read(plan: str) -> tuple[Fault, ...]:
    if not plan.startswith("@"):
        return parse_plan(plan)
    file = Path(plan[1:])
    return parse_plan(file.read_text()) if file.exists() else ()
