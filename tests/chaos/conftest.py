"""One world for all scenarios, and the table at the end of the run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import world as worlds
from tests.chaos.report import Line, table
from tests.chaos.world import World

LINES: list[Line] = []


@pytest.fixture(scope="session")
def world(scratch: Path) -> Iterator[World]:
    with worlds.world(scratch / "chaos", LINES) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Whatever passed or failed: what was broken and what came of it."""
    if LINES:
        terminalreporter.section("chaos")
        terminalreporter.write_line(table(LINES))
