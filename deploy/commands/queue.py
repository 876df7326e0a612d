"""`postroad queue`."""

import time
from contextlib import suppress
from typing import Any

import click

from deploy.commands.output import Output
from deploy.commands.remote import Remote, verb

COLUMNS = (
    "queue", "ready", "scheduled", "in_flight", "uncertain", "failed", "oldest_age_seconds", "in_per_second",
    "out_per_second", "workers",
)  # fmt: skip


@click.command()
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C: one JSON line each time where stdout is no terminal.")
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds between two.")
@verb
def queue(remote: Remote, output: Output, watch: bool, interval: float) -> None:
    """Show what waits in each queue, how old it is and who works on it."""
    with suppress(KeyboardInterrupt):  # Ctrl-C ends a watch wherever it is
        _show(remote, output, again=watch)
        while watch:
            time.sleep(interval)
            _show(remote, output, again=True)


def _show(remote: Remote, output: Output, *, again: bool) -> None:
    found: dict[str, Any] = remote.get("/v1/ops/queues")
    if output.human:
        if again:
            click.clear()
        output.table(({"queue": name, **numbers} for name, numbers in found["queues"].items()), COLUMNS)
    elif again:
        output.line(found)
    else:
        output.one(found)
