"""`postroad inbound`: takes mail in, over SMTP, LMTP and from mailboxes (IMAP)."""

import asyncio
import signal
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from worker.mail_server import Place
    from worker.runtime import Runtime


@click.command()
@click.option("--smtp", metavar="HOST:PORT", help="Take mail over SMTP here; what an MX record leads to.")
@click.option("--lmtp", metavar="HOST:PORT|PATH", help="Take mail over LMTP, from a mail server of your own.")
@click.option("--imap", is_flag=True, help="Read the mailboxes of mailers that have one.")
@click.option(
    "--tls-certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Chain in PEM; with it STARTTLS is offered.",
)
@click.option(
    "--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its key, if not in the same file."
)
def inbound(smtp: str | None, lmtp: str | None, imap: bool, tls_certificate: Path | None, tls_key: Path | None) -> None:
    """Take in bounces, complaints and replies."""
    from deploy.commands.processes import settings
    from worker import logs
    from worker.runtime import Runtime

    places = [_place(spec, lmtp=kind) for spec, kind in ((smtp, False), (lmtp, True)) if spec is not None]
    if not places and not imap:
        raise click.UsageError("Say what to take in: --smtp HOST:PORT, --lmtp HOST:PORT or a path, --imap.")
    configuration = settings()
    logs.configure(configuration.log_level)
    runtime = Runtime(configuration, application="postroad inbound")
    try:
        asyncio.run(_run(runtime, places, imap=imap, tls=_tls(tls_certificate, tls_key)))
    except OSError as error:
        raise click.ClickException(f"Cannot listen there: {error.strerror or error}. Choose another place.") from error
    finally:
        runtime.close()


def _place(spec: str, *, lmtp: bool) -> "Place":
    from worker.mail_server import Place

    if lmtp and "/" in spec:
        return Place(lmtp=True, path=Path(spec))
    host, colon, port = spec.rpartition(":")
    if not (colon and port.isdecimal()) or int(port) > 65535:
        raise click.UsageError(f"{spec!r} is not HOST:PORT, such as 0.0.0.0:25.")
    return Place(lmtp=lmtp, host=host.strip("[]"), port=int(port))


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise click.UsageError(f"{certificate} and its key do not go together: {error.reason}") from error
    return context


async def _run(runtime: "Runtime", places: Sequence["Place"], *, imap: bool, tls: ssl.SSLContext | None) -> None:
    from worker.gate import Gate
    from worker.imap_mailbox import Mailboxes
    from worker.mail_server import serve

    stop, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    reading = asyncio.create_task(asyncio.to_thread(Mailboxes(runtime).run, stop)) if imap else None
    name = runtime.settings.mail_host_name or "postroad"
    longest = runtime.settings.max_body_bytes
    try:
        await serve(Gate(runtime), places, longest=longest, name=name, tls=tls, until=stopped.wait, ready=_say)
    finally:
        stop.set()
        if reading is not None:
            await reading


def _say(sockets: Sequence[Any]) -> None:
    for each in sockets:
        where = each.getsockname()
        click.echo(f"taking mail at {where if isinstance(where, str) else ':'.join(map(str, where[:2]))}", err=True)
