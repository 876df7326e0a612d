"""docs/cli.md against the commands themselves."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploy.cli import COMMANDS, postroad

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHOWN = [
    line[line.index("postroad ") :]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


def _command(name: str) -> click.Command:
    command = postroad.get_command(click.Context(postroad), name)
    assert command is not None
    return command


def _subcommands() -> Iterator[tuple[str, str]]:
    for name in COMMANDS:
        command = _command(name)
        if isinstance(command, click.Group) and not command.invoke_without_command:
            yield from ((name, verb) for verb in command.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_on_the_page(name: str) -> None:
    assert re.search(rf"^\| .*`postroad {name}\b.*\|.*\|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("name", "verb"), list(_subcommands()))
def test_every_verb_is_in_the_row_of_its_noun(name: str, verb: str) -> None:
    (row,) = re.findall(rf"^\| `postroad {name} .*\|$", PAGE, re.MULTILINE)
    assert re.search(rf"[ `]{verb}`", row)


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_that_is_shown_has_the_options_it_uses(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])[1:]
    command = _command(words[0])
    if isinstance(command, click.Group):
        command = command.commands[words[1]]
    known = {name for parameter in command.params for name in parameter.opts}
    used = {word for word in words if word.startswith("--")}
    assert used - known == set()


@pytest.mark.parametrize(("name", "verb"), [*_subcommands(), ("send", ""), ("queue", ""), ("doctor", ""), ("mcp", "")])
def test_every_verb_says_in_its_help_what_it_does_and_what_each_option_is_called(name: str, verb: str) -> None:
    command = _command(name)
    if verb:
        assert isinstance(command, click.Group)
        command = command.commands[verb]
    assert command.help
    assert re.fullmatch(r"[a-z-]+", command.name or "")
