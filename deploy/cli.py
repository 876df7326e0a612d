"""The `postroad` command.

Each subcommand is imported when it is used: `postroad version` need not wait for a database driver.
"""

from collections.abc import Sequence
from importlib import import_module

import click

COMMANDS = {
    "up": "deploy.commands.up:up",
    "api": "deploy.commands.processes:api",
    "worker": "deploy.commands.processes:worker",
    "beat": "deploy.commands.processes:beat",
    "inbound": "deploy.commands.inbound:inbound",
    "migrate": "deploy.commands.processes:migrate",
    "version": "deploy.commands.version:version",
    "workspace": "deploy.commands.workspace:workspace",
    "reseal": "deploy.commands.reseal:reseal",
    "doctor": "deploy.commands.doctor:doctor",
    "send": "deploy.commands.send:send",
    "bulk": "deploy.commands.bulk:bulk",
    "message": "deploy.commands.message:message",
    "queue": "deploy.commands.queue:queue",
    "campaign": "deploy.commands.campaign:campaign",
    "webhook": "deploy.commands.webhook:webhook",
    "mailer": "deploy.commands.mailer:mailer",
    "domain": "deploy.commands.domain:domain",
    "suppression": "deploy.commands.suppression:suppression",
    "settings": "deploy.commands.settings:settings",
    "openapi": "deploy.commands.openapi:openapi",
    "key": "deploy.commands.key:key",
    "erase": "deploy.commands.erase:erase",
    "mcp": "deploy.commands.mcp:mcp",
    "completion": "deploy.commands.completion:completion",
    "bench": "deploy.commands.bench:bench",
    "emulate": "deploy.commands.emulate:emulate",
    "inbox": "deploy.commands.parts:inbox",
    "fake-redis": "deploy.commands.parts:fake_redis",
    "demo": "deploy.commands.parts:demo",
}
"""Name of each subcommand and where it is."""


class LazyGroup(click.Group):
    """A group that knows the names of its commands and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def postroad() -> None:
    """Queue-backed email delivery: nothing lost, nothing sent twice."""


def main(arguments: Sequence[str] | None = None) -> None:
    postroad(arguments, prog_name="postroad")


if __name__ == "__main__":
    main()
