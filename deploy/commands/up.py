"""`postroad up`."""

import sys
from pathlib import Path

import click


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path(".postroad"), show_default=True,
              help="Folder that keeps everything; given again, the stack resumes.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API. [default: 8025, or a free one]")
@click.option(
    "--inbox-port", type=click.IntRange(1, 65535), help="SMTP port of the inbox. [default: 2525, or a free one]"
)
@click.option("--inbound-port", type=click.IntRange(1, 65535), help="Take in bounces and replies over SMTP here.")
@click.option(
    "--senders",
    type=click.IntRange(1, 256),
    help="Processes that send normal mail. [default: half the cores, 2 at least]",
)
@click.option("--no-demo", is_flag=True, help="Send no demo mail.")
@click.option("--once", is_flag=True, help="End after the demo; exit 0 if no mail was lost or sent twice.")
def up(
    data: Path,
    port: int | None,
    inbox_port: int | None,
    inbound_port: int | None,
    senders: int | None,
    no_demo: bool,
    once: bool,
) -> None:
    """Run everything here: PostgreSQL, Redis, API, workers, beat, a local inbox, and a demo."""
    from deploy import up as stack
    from deploy.directory import StackError
    from deploy.services import ServiceMissingError
    from deploy.supervisor import StartError

    if once and no_demo:
        raise click.UsageError("--once runs the demo; it cannot be combined with --no-demo.")
    try:
        ports = {"api": port, "inbox": inbox_port, "inbound": inbound_port}
        sys.exit(stack.up(data, ports=ports, senders=senders, demo=not no_demo, once=once))
    except (StackError, StartError, ServiceMissingError) as error:
        raise click.ClickException(str(error)) from error
