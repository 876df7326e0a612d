"""`postroad completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell: eval "$(postroad completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 -- click brings these three
    click.echo(kind(context.find_root().command, {}, "postroad", "_POSTROAD_COMPLETE").source())
