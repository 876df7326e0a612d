"""Charts as inline SVG, drawn on the server: lines over a window of time, one colour per queue.

The drawing is stretched to its place, so that words stand outside it, in HTML, in their own size at every width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api_shim.ops import words
from api_shim.ops.figures import TITLES, History, Step

HEIGHT = 100
TOP = 1.1
"""Room above the highest point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart: the commands of an SVG path, broken where nothing was measured."""

    path: str
    style: str
    """Class names: the queue's colour, and ``dashed``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of the legend."""

    style: str
    title: str
    now: str
    peak: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing `figures.STEPS` wide and `HEIGHT` high, and the words around it."""

    title: str
    note: str
    lines: Sequence[Line]
    keys: Sequence[Key]
    scale: Sequence[str]
    """Labels of the upright axis, from the top."""
    times: Sequence[str]
    """Labels of the other axis, from the left."""

    @property
    def summary(self) -> str:
        """The chart in words, for those who cannot see it."""
        said = "; ".join(f"{key.title}: now {key.now}, at most {key.peak}" for key in self.keys)
        return f"{self.title} since {self.times[0]}. {said}."


Measure = Callable[[Step], float]

SPANS = (1, 2, 4, 10, 20, 60, 120, 240, 600, 1200, 3600, 7200, 14_400, 43_200, 86_400)
"""Seconds that have a name, and so have their halves."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How the upright axis is measured: its end for a highest value, and a value in words."""

    end: Callable[[float], float]
    show: Callable[[float], str]


def _round_number(highest: float) -> float:
    """The next of 1, 2, 4, 6, 10, 20, 40, ... that is not below the highest value."""
    magnitude = 10.0 ** math.floor(math.log10(max(highest, 1.0)))
    return next(step * magnitude for step in (1, 2, 4, 6, 10) if step * magnitude >= highest)


def _round_span(highest: float) -> float:
    return next((span for span in SPANS if span >= highest), _round_number(highest / 86_400) * 86_400)


NUMBERS = Scale(_round_number, words.rate)
AGES = Scale(_round_span, words.span)


def charts(history: History) -> list[Chart]:
    """Throughput, oldest age and failures."""
    return [
        _chart(history, "Throughput", "a second; dashed: in, full: out", NUMBERS, [_went, _came]),
        _chart(history, "Oldest age", "of work that is due", AGES, [_oldest]),
        _chart(history, "Failures", "a minute", NUMBERS, [_failed]),
    ]


def _went(step: Step) -> float:
    return step.went


def _came(step: Step) -> float:
    return step.came


def _oldest(step: Step) -> float:
    return step.oldest


def _failed(step: Step) -> float:
    return step.failed


def _chart(history: History, title: str, note: str, scale: Scale, measures: Sequence[Measure]) -> Chart:
    end = scale.end(max((measure(step) for measure in measures for step in _measured(history)), default=0.0))
    drawn = [
        Line(path=_path([measure(step) if step else None for step in steps], end), style=f"queue-{number}{dashed}")
        for number, steps in enumerate(history.queues.values())
        for measure, dashed in zip(measures, ("", " dashed"), strict=False)
    ]
    keys = [
        _key(number, TITLES[queue], [measures[0](step) for step in steps if step], scale.show)
        for number, (queue, steps) in enumerate(history.queues.items())
    ]
    labels = [scale.show(end), scale.show(end / 2), "0"]
    times = [f"{words.span(history.window)} ago", words.span(history.window / 2), "now"]
    return Chart(title=title, note=note, lines=drawn, keys=keys, scale=labels, times=times)


def _measured(history: History) -> list[Step]:
    return [step for steps in history.queues.values() for step in steps if step]


def _key(number: int, title: str, values: Sequence[float], show: Callable[[float], str]) -> Key:
    if not values:
        return Key(style=f"queue-{number}", title=title, now="–", peak="–")
    return Key(style=f"queue-{number}", title=title, now=show(values[-1]), peak=show(max(values)))


def _path(values: Sequence[float | None], top: float) -> str:
    """A line through the values. One that stands alone is drawn as a short stroke, or it could not be seen."""
    commands: list[str] = []
    pen_is_down = False
    for number, value in enumerate(values):
        if value is None:
            pen_is_down = False
            continue
        height = HEIGHT - value / top * HEIGHT / TOP
        commands.append(f"{'L' if pen_is_down else 'M'}{number} {height:.1f}h.5")
        pen_is_down = True
    return "".join(commands)
