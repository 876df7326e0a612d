"""The samples of a long load, and what their beginning says beside their end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from deploy.bench import bloat, processes
from deploy.bench.report import Cost, Figure, Grid, Report, Target

SAMPLES = 12
QUARTER = SAMPLES // 4
MOST_GROWTH = 1.25
"""Of the last quarter's cost, wait and room, beside the first's."""
MOST_DEAD_PERCENT = 10.0
COLUMNS = ("sample", "in/s", "out/s", "waiting", "p50 ms", "p99 ms", "µs/mail", "WAL KB", "room KB", "dead %")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The counters at one moment."""

    at: float
    """By the clock on the wall, seconds since the epoch."""
    submitted: int
    arrived: int
    used: processes.Seconds
    memory: dict[str, float]
    """MB resident, by process."""
    tables: bloat.Tables
    wal: int
    """Bytes."""
    backlog: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What happened between two readings."""

    taken: float
    """Mails per second that the API took."""
    sent: float
    """Mails per second that arrived."""
    costs: list[Cost]
    """Processor time for one mail, their sum last."""
    p50: float
    """Milliseconds from acceptance to outcome, of the mails accepted in this time."""
    p99: float
    wal: float
    """Bytes for one mail."""
    room: float
    """Bytes by which one mail made tables and indexes larger."""
    dead: float
    """Dead rows of table message at the end, of all of them."""
    backlog: int
    """At the end."""

    @property
    def cost(self) -> float:
        """Microseconds for one mail."""
        return self.costs[-1].microseconds


def conclude(report: Report, readings: Sequence[Reading], samples: Sequence[Sample]) -> None:
    """Adds the tables and the figures. ``samples``: `SAMPLES` of them, one between each two readings."""
    rows = [row(number, sample) for number, sample in enumerate(samples, 1)]
    report.grids += [
        Grid(title="samples", columns=COLUMNS, rows=rows),
        bloat.grid([reading.tables for reading in readings]),
        _memory(readings),
    ]
    report.add(
        Figure(name="endurance", title="mails at an even pace", unit="mails/s",
               value=fmean(sample.sent for sample in samples)),
        *_ratios(samples),
        _dead(samples),
        Figure(name="endurance_backlog", title="  most waiting at the end of a sample", unit="mails",
               value=max(sample.backlog for sample in samples)),
        _most_growth(readings),
    )  # fmt: skip
    report.costs += [replace(cost, component=f"last quarter: {cost.component}") for cost in _mean_costs(samples)]


def row(number: int, sample: Sample) -> list[str]:
    """As people read it, in the order of `COLUMNS`."""
    return [
        f"{number}", f"{sample.taken:,.1f}", f"{sample.sent:,.1f}", f"{sample.backlog:,}", f"{sample.p50:,.0f}",
        f"{sample.p99:,.0f}", f"{sample.cost:,.0f}", f"{sample.wal / 1024:.1f}", f"{sample.room / 1024:.2f}",
        f"{sample.dead:.1%}",
    ]  # fmt: skip


_GROWING: dict[str, tuple[str, str, Callable[[Sample], float]]] = {
    "cost": ("cost of a mail", "µs", lambda sample: sample.cost),
    "p50": ("acceptance to outcome, p50", "ms", lambda sample: sample.p50),
    "p99": ("acceptance to outcome, p99", "ms", lambda sample: sample.p99),
    "room": ("room that a mail takes", "bytes", lambda sample: sample.room),
}
"""Figure -> its title, unit and what it is the mean of."""


def _ratios(samples: Sequence[Sample]) -> list[Figure]:
    """Of the last quarter, each beside the first quarter."""
    figures = []
    for name, (title, unit, of) in _GROWING.items():
        first, last = fmean(map(of, samples[:QUARTER])), fmean(map(of, samples[-QUARTER:]))
        figures.append(
            Figure(name=f"endurance_{name}", title=f"  {title}, last quarter to first", value=last, unit=unit,
                   ratio=last / first if first > 0 else None, target=Target("<=", MOST_GROWTH, of_ratio=True))
        )  # fmt: skip
    return figures


def _dead(samples: Sequence[Sample]) -> Figure:
    first, last = (max(sample.dead for sample in of) for of in (samples[:QUARTER], samples[-QUARTER:]))
    return Figure(name="endurance_dead", title="  dead rows of table message, most, last quarter to first",
                  value=100 * last, unit="%", ratio=last / first if first > 0 else None,
                  target=Target("<=", MOST_DEAD_PERCENT))  # fmt: skip


def _most_growth(readings: Sequence[Reading]) -> Figure:
    """Of the process that grew most after the first quarter. PostgreSQL is left out: what it holds is its cache."""
    early, late = readings[QUARTER].memory, readings[-1].memory
    growth = {name: late[name] / early[name] for name in late if early.get(name) and name != processes.POSTGRES}
    name = max(growth, key=growth.__getitem__)
    return Figure(name="endurance_memory", title=f"  {name}, which grew most, end to first quarter", value=late[name],
                  unit="MB", ratio=growth[name], target=Target("<=", MOST_GROWTH, of_ratio=True))  # fmt: skip


def _mean_costs(samples: Sequence[Sample]) -> list[Cost]:
    """Of the last quarter."""
    last = [{cost.component: cost.microseconds for cost in sample.costs} for sample in samples[-QUARTER:]]
    return [Cost(component=name, microseconds=fmean(one.get(name, 0.0) for one in last)) for name in last[-1]]


def _memory(readings: Sequence[Reading]) -> Grid:
    """Of each process at the end of each quarter."""
    moments = readings[QUARTER::QUARTER]
    rows = [[name, *(f"{moment.memory.get(name, 0.0):,.0f}" for moment in moments)] for name in readings[-1].memory]
    return Grid(title="memory", columns=("MB after each quarter", "1", "2", "3", "4"), rows=rows)
