"""The table of attacks in docs/security.md names tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/security.md").read_text().partition("## Attacks")[2]
ROWS = [line for line in TABLE.splitlines() if "](../tests/" in line]


def test_every_attack_has_a_row() -> None:
    assert re.findall(r"^\| (S\d+) \|", TABLE, re.MULTILINE) == [f"S{number}" for number in range(1, 15)]


@pytest.mark.parametrize("row", ROWS)
def test_every_test_that_is_named_is_there(row: str) -> None:
    names = re.findall(r"`(test_\w+)`", row)
    files = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", row)
    assert names
    assert [name for name in names if f"def {name}(" not in "".join((ROOT / file).read_text() for file in files)] == []
