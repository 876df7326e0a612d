"""`postroad emulate`."""

import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

PROVIDERS = ("postmark", "gmail", "microsoft365", "mailgun", "sparkpost", "smtp")
ENDS = {signal.SIGINT, signal.SIGTERM}
"""Blocked before the first thread starts and waited for: one that comes early, or to another thread, is not lost."""


@click.command()
@click.argument("provider", type=click.Choice((*PROVIDERS, "all")), default="all")
@click.option("--port-base", type=click.IntRange(1, 65_000),
              help="The first provider listens here, each other one port further. [default: free ports]")  # fmt: skip
def emulate(provider: str, port_base: int | None) -> None:
    """Run emulated providers on loopback until Ctrl-C.

    Prints for each the body of a POST /v1/mailers whose mailer sends through it. Nothing leaves this machine.
    """
    from deploy.emulated import EMULATED, Emulated

    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    running: dict[str, Emulated] = {}
    try:
        for offset, name in enumerate(PROVIDERS):
            if provider in (name, "all"):
                running[name] = EMULATED[name](0 if port_base is None else port_base + offset)
        _print([one.mailer for one in running.values()])
        signal.sigwait(ENDS)
    except OSError as error:
        raise click.ClickException(f"{error.strerror}; take another --port-base, or none for free ports.") from error
    finally:
        for one in running.values():
            one.stop()


def _print(mailers: Sequence[dict[str, Any]]) -> None:
    """One JSON object a line, so that a script can read them as they come; laid out for a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    for mailer in mailers:
        click.echo(json.dumps(mailer, indent=indent))
    click.echo("Listening on 127.0.0.1; Ctrl-C ends.", err=True)
