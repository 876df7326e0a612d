"""`postroad settings`: what a server is configured with, from ``POSTROAD_*``."""

from typing import Any

import click

from deploy.commands.output import Output, as_json

HIDDEN = "(set, not shown)"


@click.group()
def settings() -> None:
    """Look at the settings of the server on this machine."""


@settings.command()
@as_json
def show(as_json: bool) -> None:
    """Show every setting with its value; secrets, and addresses that hold them, are not shown."""
    from deploy.commands.processes import settings as read

    found = read()
    fields = type(found).model_fields
    output = Output(as_json=as_json)
    rows = {_variable(name): _shown(getattr(found, name), secret=field.repr is False) for name, field in fields.items()}
    output.one(rows)


@settings.command()
def docs() -> None:
    """Print what every setting means and its default, as Markdown."""
    from deploy.docs import settings as described

    click.echo(described())


@settings.command()
@as_json
def validate(as_json: bool) -> None:
    """Check the settings without starting anything. Ends with 1 if one is missing or wrong."""
    from deploy.commands.processes import settings as read
    from deploy.doctor import check_settings

    output = Output(as_json=as_json)
    check = check_settings(read())
    output.one(check.as_json())
    if not check.ok:
        raise click.ClickException(f"{check.found}. {check.fix}")


def _variable(name: str) -> str:
    return f"POSTROAD_{name.upper()}"


def _shown(value: Any, *, secret: bool) -> Any:
    return HIDDEN if secret and value else value
