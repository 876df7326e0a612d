"""`postroad emulate`."""

import contextlib
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
              help="The first provider listens here, each other one port further, what controls them last. "
                   "[default: free ports]")  # fmt: skip
def emulate(provider: str, port_base: int | None) -> None:
    """Run emulated providers on loopback until Ctrl-C.

    Prints for each the body of a POST /v1/mailers whose mailer sends through it, and where faults, webhooks and the
    books of all are to be had. Nothing leaves this machine.
    """
    from deploy.emulated import EMULATED, Emulated
    from providers.emulators.control import Control

    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    wanted = len(PROVIDERS) + 1
    ports = [0] * wanted if port_base is None else range(port_base, port_base + wanted)
    running: dict[str, Emulated] = {}
    with contextlib.ExitStack() as closing:
        try:
            for name, port in zip(PROVIDERS, ports[:-1], strict=True):
                if provider in (name, "all"):
                    running[name] = EMULATED[name](port)
                    closing.callback(running[name].emulator.stop)
            emulators = {name: one.emulator for name, one in running.items()}
            control = closing.enter_context(Control(emulators, port=ports[-1]))
        except OSError as error:
            reason = f"{error.strerror}; take another --port-base, or none for free ports."
            raise click.ClickException(reason) from error
        _print([one.mailer for one in running.values()], control.url)
        signal.sigwait(ENDS)


def _print(mailers: Sequence[dict[str, Any]], control: str) -> None:
    """One JSON object a line, so that a script can read them as they come; laid out for a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    for mailer in mailers:
        click.echo(json.dumps(mailer, indent=indent))
    click.echo(f"Faults, webhooks and books: {control}\nListening on 127.0.0.1; Ctrl-C ends.", err=True)
