"""What the verbs print: tables for people, JSON for everything else. Progress and errors go to stderr."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

Verb = TypeVar("Verb", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, as is done where stdout is no terminal.")


def yes(verb: Verb) -> Verb:
    """Adds ``--yes`` to a verb that cannot be taken back."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(verb)


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be taken back. Where nobody can be asked, ``--yes`` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is there to be asked: repeat it with --yes.")
    click.confirm(question, abort=True, err=True)


class Output:
    """Prints results on stdout; ``human`` as tables."""

    def __init__(self, *, as_json: bool) -> None:
        self.human = not as_json and sys.stdout.isatty()
        self._console = Console(highlight=False)

    def one(self, thing: Mapping[str, Any]) -> None:
        """A single thing."""
        if not self.human:
            self._json(thing)
            return
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in thing.items():
            table.add_row(name, Text(shown(value)))
        self._console.print(table)

    def page(self, page: Mapping[str, Any], columns: Sequence[str]) -> None:
        """A list as the API answers it; people see these columns of it."""
        if not self.human:
            self._json(page)
            return
        self.table(page["data"], columns)
        if page["next_cursor"]:
            click.echo(f"There is more: --cursor {page['next_cursor']}", err=True)

    def table(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column in ("id", "ref_id", "state"))
        for row in rows:
            table.add_row(*(Text(shown(row.get(column))) for column in columns))
        self._console.print(table)

    def line(self, thing: Mapping[str, Any]) -> None:
        """One line of a stream (NDJSON)."""
        click.echo(orjson.dumps(thing))

    def _json(self, thing: Mapping[str, Any]) -> None:
        click.echo(orjson.dumps(thing, option=orjson.OPT_INDENT_2))


def shown(value: Any) -> str:
    """A value for people. What a terminal would obey instead of showing is replaced: it may come from anywhere."""
    lines = _phrased(value).split("\n") if isinstance(value, list | dict) else [_phrased(value)]
    return "\n".join(_visible(line) for line in lines)


def _visible(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _phrased(value: Any) -> str:
    """Counts as ``sent 9, failed 1``, lists of things one a line, everything else as JSON would have it."""
    match value:
        case None:
            return ""
        case str():
            return value
        case dict() if value and all(isinstance(number, int) for number in value.values()):
            return ", ".join(f"{_visible(name)} {number:,}" for name, number in value.items() if number) or "0"
        case list() if all(isinstance(item, str) for item in value):
            return ", ".join(_visible(item) for item in value)
        case list() if all(isinstance(item, dict) for item in value):
            return "\n".join(_visible(" ".join(_phrased(part) for part in item.values())) for item in value)
        case _:
            return orjson.dumps(value, default=str).decode()
