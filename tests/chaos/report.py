"""The table that `make chaos` prints: what was broken, and what became of the mail."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.oracle import Fate

HEADINGS = ("", "what was broken", "mails", "lost", "doubled", "uncertain", "stuck", "seconds to recover")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One scenario's result."""

    number: str
    """As in docs/reliability.md: R1 ..."""
    broken: str
    fate: Fate
    seconds: float
    """From the end of the fault until everything was settled."""

    def cells(self) -> tuple[str, ...]:
        fate = self.fate
        counts = (fate.promised, fate.lost, fate.doubled, fate.uncertain, fate.stuck)
        return (self.number, self.broken, *(f"{count:,}" for count in counts), f"{self.seconds:.1f}")


def table(lines: Sequence[Line]) -> str:
    """Markdown, with columns that also align in a terminal."""
    rows = [HEADINGS, *(line.cells() for line in sorted(lines, key=lambda line: int(line.number.strip("R"))))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rule = ["-" * widths[0], "-" * widths[1], *("-" * (width - 1) + ":" for width in widths[2:])]
    return "\n".join(_row(row, widths) for row in (rows[0], tuple(rule), *rows[1:]))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"
