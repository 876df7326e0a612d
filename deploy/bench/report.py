"""What a bench found: figures, costs, and whether any mail was lost or doubled; as tables or as JSON."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, or its ratio where ``of_ratio``, is to be at least (``>=``) or at most (``<=``) the bound."""

    comparison: str
    bound: float
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"{'ratio ' if self.of_ratio else ''}{self.comparison} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number, with what it is held against."""

    name: str
    """For programs: ``throughput``."""
    title: str
    value: float
    unit: str
    ratio: float | None = None
    """To the reference that the title names."""
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        measured = self.ratio if self.target and self.target.of_ratio else self.value
        if self.target is None or measured is None:
            return None
        return _COMPARISONS[self.target.comparison](measured, self.target.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor time of one component for one mail."""

    component: str
    microseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The most memory that one process has held."""

    process: str
    megabytes: float
    limited: bool = True
    """The limit for one process applies."""


@dataclass(kw_only=True)
class Grid:
    """Any other table: its first column is text, the others are numbers as they are shown."""

    title: str
    """For programs; the first column's name is for people."""
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)


MEMORY_LIMIT_MB = 250.0


@dataclass(kw_only=True)
class Report:
    """Grows while the bench runs."""

    figures: list[Figure] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: int = 0
    """Mails or rows that should be there and are not."""
    doubled: int = 0
    """Mails that came more than once, as far as the sink counts them."""

    failed: bool = False
    """A part could not be measured; the notes say why."""

    def add(self, *figures: Figure) -> None:
        self.figures += figures

    @property
    def exit_code(self) -> int:
        return 1 if self.lost or self.doubled or self.failed else 0

    def as_json(self) -> dict[str, Any]:
        figures = [
            {**asdict(figure), "target": str(figure.target) if figure.target else None, "met": figure.met}
            for figure in self.figures
        ]
        return {**asdict(self), "figures": figures, "memory_limit_mb": MEMORY_LIMIT_MB}

    def print(self, console: Console) -> None:
        for table in (*map(_grid, self.grids), self._figure_table(), self._cost_table(), self._memory_table()):
            if table.row_count:
                console.print(table)
                console.print()
        for note in self.notes:
            console.print(f"  {note}", soft_wrap=True)
        verdict = f"lost {self.lost:,}, sent twice {self.doubled:,}"
        console.print(f"  {verdict}", style="bold red" if self.exit_code else "green")

    def _figure_table(self) -> Table:
        table = _table("figure", "value", "unit", "target", "ratio", left=("figure", "unit", "target"))
        for figure in self.figures:
            ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
            target = "" if figure.target is None else f"{figure.target} {'met' if figure.met else 'missed'}"
            style = "red" if figure.met is False else ""
            table.add_row(figure.title, _number(figure.value), figure.unit, target, ratio, style=style)
        return table

    def _cost_table(self) -> Table:
        table = _table("processor time", "µs per mail", left=("processor time",))
        for cost in self.costs:
            table.add_row(cost.component, f"{cost.microseconds:,.0f}")
        return table

    def _memory_table(self) -> Table:
        table = _table("peak memory", "MB", "target", left=("peak memory", "target"))
        for entry in self.memory:
            over = entry.limited and entry.megabytes > MEMORY_LIMIT_MB
            target = f"<= {MEMORY_LIMIT_MB:g} {'missed' if over else 'met'}" if entry.limited else ""
            table.add_row(entry.process, f"{entry.megabytes:,.0f}", target, style="red" if over else "")
        return table


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of them do not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _table(*columns: str, left: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold", show_edge=False, pad_edge=True)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


def _grid(grid: Grid) -> Table:
    table = _table(*grid.columns, left=grid.columns[:1])
    for row in grid.rows:
        table.add_row(*row)
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
