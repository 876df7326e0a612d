"""`postroad queue`."""

import time
from contextlib import suppress
from typing import Any

import click

from deploy.commands.output import Output
from deploy.commands.remote import LATER, Failure, Remote, path_of, verb
from worker.bell import PRIORITIES, QUEUES

COLUMNS = (
    "queue", "ready", "scheduled", "retry_waiting", "in_flight", "uncertain", "failed", "oldest_age_seconds",
    "in_per_second", "out_per_second", "workers", "paused",
)  # fmt: skip
POLL_SECONDS = 0.5

lane = click.argument("lane", type=click.Choice(QUEUES))


class ShowsByDefault(click.Group):
    """`postroad queue` alone is `postroad queue show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names_one = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if names_one else ["show", *args])


@click.group(cls=ShowsByDefault)
def queue() -> None:
    """Show what waits in each queue, how old it is and who works on it; pause and resume whole queues."""


@queue.command()
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C: one JSON line each time where stdout is no terminal.")
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds between two.")
@verb
def show(remote: Remote, output: Output, watch: bool, interval: float) -> None:
    """Show every queue; what `postroad queue` does without a verb."""
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


@queue.command()
@lane
@click.option("--reason", help="Shown wherever mail waits for it.")
@verb
def pause(remote: Remote, output: Output, lane: str, reason: str | None) -> None:
    """Take nothing of a queue in hand until it is resumed, for all workspaces; what is in hand goes on."""
    output.one(remote.post(path_of("ops", "queues", lane, "pause"), {"reason": reason}))


@queue.command()
@lane
@verb
def resume(remote: Remote, output: Output, lane: str) -> None:
    """Let a paused queue run again."""
    output.one(remote.post(path_of("ops", "queues", lane, "resume")))


@queue.command()
@lane
@click.option("--reason", help="Shown wherever mail waits for it.")
@click.option("--timeout", type=click.FloatRange(0), default=120.0, show_default=True, help="Seconds to wait.")
@verb
def drain(remote: Remote, output: Output, lane: str, reason: str | None, timeout: float) -> None:
    """Pause a queue and wait until nothing of it is in hand any more; ends with 75 if that takes too long."""
    found = remote.post(path_of("ops", "queues", lane, "pause"), {"reason": reason})
    deadline = time.monotonic() + timeout
    while found["in_flight"]:
        if time.monotonic() > deadline:
            left = f"{found['in_flight']} message(s) of {lane} are still in hand after {timeout:g} s."
            raise Failure(f"{left} The queue stays paused: repeat the command to wait on.", LATER)
        time.sleep(POLL_SECONDS)
        found = {"queue": lane, **remote.get("/v1/ops/queues")["queues"][lane]}
    output.one(found)


@queue.command()
@click.argument("lane", type=click.Choice(list(PRIORITIES)))
@verb
def reconcile(remote: Remote, output: Output, lane: str) -> None:
    """Count a queue row by row, and say whether its figures add up to that."""
    output.one(remote.get(path_of("ops", "queues", lane, "reconcile")))


@queue.command()
@click.argument("lane", type=click.Choice(list(PRIORITIES)))
@verb
def requeue(remote: Remote, output: Output, lane: str) -> None:
    """Take back at once what dead workers hold and what nothing leads to."""
    output.one(remote.post(path_of("ops", "queues", lane, "requeue")))


@queue.command()
@verb
def workers(remote: Remote, output: Output) -> None:
    """List the workers, and the batch in the hand of each."""
    columns = ("host", "pid", "queues", "age_seconds", "lane", "in_hand", "held_seconds")
    output.page(remote.get("/v1/ops/workers"), columns)
