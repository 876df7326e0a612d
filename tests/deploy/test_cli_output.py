"""What people see of the API's answers, and that scripts are asked nothing."""

from typing import Any

import click
import pytest

from deploy.commands.output import confirm, shown


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, ""),
        ("plain [bold]", "plain [bold]"),
        (["a", "b"], "a, b"),
        ([], ""),
        (True, "true"),
        (1.5, "1.5"),
        ({"sent": 1200, "failed": 1, "queued": 0}, "sent 1,200, failed 1"),
        ({"sent": 0}, "0"),
        ({"per_second": None}, '{"per_second":null}'),
        ([{"at": "noon", "code": "250", "outcome": None}, {"at": "one"}], "noon 250 \none"),
        ("two\nlines", "two\N{REPLACEMENT CHARACTER}lines"),
        ("\x1b[2J\x9b", "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"),
        (["\x1b"], "\N{REPLACEMENT CHARACTER}"),
        ([{"detail": "forged\nline"}], "forged\N{REPLACEMENT CHARACTER}line"),
        ({"\x1b": 1}, "\N{REPLACEMENT CHARACTER} 1"),
    ],
)
def test_values_are_phrased_and_nothing_is_obeyed(value: Any, seen: str) -> None:
    assert shown(value) == seen


def test_where_nobody_can_be_asked_yes_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(click.UsageError, match="--yes"):
        confirm("Really?", yes=False)
    confirm("Really?", yes=True)
