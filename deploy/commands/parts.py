"""Parts of `postroad up` that run as processes of their own. Hidden: nobody starts them by hand."""

import asyncio
from pathlib import Path

import click

from deploy.services import LOOPBACK


@click.command(hidden=True)
@click.option("--directory", type=click.Path(path_type=Path), required=True)
@click.option("--port", type=int, required=True)
def inbox(directory: Path, port: int) -> None:
    """Take mail by SMTP and keep it."""
    import uvloop

    from deploy.inbox_smtp import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(directory, LOOPBACK, port))


@click.command(hidden=True)
@click.option("--port", type=int, required=True)
def fake_redis(port: int) -> None:
    """A Redis in memory, where no real one runs."""
    from fakeredis import TcpFakeServer

    TcpFakeServer((LOOPBACK, port), server_type="redis").serve_forever()


@click.command(hidden=True)
@click.option("--stack", type=click.Path(path_type=Path), required=True, help="The stack.json to work with.")
@click.option("--receiver-port", type=int, required=True)
@click.option("--once", is_flag=True)
def demo(stack: Path, receiver_port: int, once: bool) -> None:
    """Send demo mail through the API and say what became of it."""
    from deploy.demo import run

    run(stack, receiver_port, once=once)
