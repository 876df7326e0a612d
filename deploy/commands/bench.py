"""`postroad bench`."""

import signal
import sys
import time
from typing import Any

import click

PAGE_WIDTH = 140
"""Columns where there is no terminal."""


@click.group(invoke_without_command=True)
@click.option("--mails", type=click.IntRange(1, 10_000_000), default=30_000, show_default=True,
              help="Mails of the whole path.")  # fmt: skip
@click.option("--tracking/--no-tracking", default=True, show_default=True,
              help="With open and click tracking and unsubscribe links.")  # fmt: skip
@click.option(
    "--all", "everything", is_flag=True, help="Every part but endurance, up to a million mails: a quarter of an hour."
)
@click.option("--only", multiple=True, metavar="PART",
              help="throughput, latency, intake, waiting, webhooks, large, million, fairness, senders, peers, "
              "compose or endurance; may be repeated.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.05, 10_000), default=60.0, show_default=True,
              help="How long endurance keeps up its load.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1, 100_000), default=300.0, show_default=True,
              help="Mails per second of endurance.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def bench(
    context: click.Context,
    mails: int,
    tracking: bool,
    everything: bool,
    only: tuple[str, ...],
    minutes: float,
    rate: float,
    as_json: bool,
) -> None:
    """Measure how fast this machine sends, on a stack started for it alone. Ends with 1 if mail was lost or doubled."""
    if context.invoked_subcommand is not None:
        return
    from deploy.bench.run import HOURS, PARTS, QUICK, Size

    if unknown := sorted(set(only) - set(PARTS + HOURS)):
        raise click.UsageError(f"There is no part {', '.join(unknown)}. Parts: {', '.join(PARTS + HOURS)}.")
    parts = only or (PARTS if everything else QUICK)
    _run(
        parts,
        Size(
            mails=mails,
            backlog=max(1, min(mails, 30_000)),
            peer_mails=min(mails, 2_000),
            minutes=minutes,
            load=rate,
        ),
        as_json=as_json,
        tracking=tracking,
    )


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compose(as_json: bool) -> None:
    """Measure how long making one mail takes, without a stack."""
    from deploy.bench.run import Size

    _run(("compose",), Size(), as_json=as_json)


def _run(parts: tuple[str, ...], size: Any, *, as_json: bool, tracking: bool = True) -> None:
    import orjson
    from rich.console import Console

    from deploy.bench.run import run
    from deploy.bench.stack import BenchError

    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    try:
        report = run(parts, size, lambda text: _say(text, began), tracking=tracking)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))
    else:
        terminal = Console(highlight=False)
        report.print(terminal if terminal.is_terminal else Console(highlight=False, width=PAGE_WIDTH))
    sys.exit(report.exit_code)


def _say(text: str, began: float) -> None:
    click.echo(f"{time.monotonic() - began:6.1f} s  {text}", err=True)
