"""The processes of a deployment: `postroad api`, `worker`, `beat`, `migrate`. Configured by POSTROAD_* variables."""

import signal
import threading
from pathlib import Path

import click
from pydantic import ValidationError

from worker.settings import Settings


def settings() -> Settings:
    """The settings; a missing or wrong variable ends the command with its name."""
    try:
        return Settings.from_env()
    except ValidationError as error:
        faults = [
            f"POSTROAD_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors(include_input=False)
        ]
        raise click.ClickException("\n".join(faults)) from None


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, default=8025, show_default=True)
@click.option(
    "--inbox", type=click.Path(path_type=Path), hidden=True, help="Serve the local inbox kept there at /inbox."
)
def api(host: str, port: int, inbox: Path | None) -> None:
    """Serve the HTTP API."""
    import uvicorn

    from api_shim.app import create_app
    from deploy.request_head import BoundedHead

    app = create_app(settings())
    if inbox is not None:
        from deploy.inbox import routes

        app.router.routes[:0] = routes(inbox)
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedHead,
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=3,
    )


@click.command()
@click.option("--queues", required=True, help="Comma-separated: send.high, send.normal, followup, webhooks; or all.")
@click.option("-c", "--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--check", is_flag=True, help="Start nothing: end with 1 if the worker on this host does not work.")
def worker(queues: str, concurrency: int, check: bool) -> None:
    """Work on queues until SIGTERM; what is in hand is finished first."""
    from worker.bell import QUEUES

    names = list(QUEUES) if queues == "all" else queues.split(",")
    if unknown := sorted(set(names) - set(QUEUES)):
        raise click.UsageError(f"There is no queue {', '.join(unknown)}. Queues: {', '.join(QUEUES)}, all.")
    if check:
        from deploy.probe import probe_worker

        _tell(probe_worker(settings(), names))
        return
    from worker.run import Worker

    Worker(settings(), names, concurrency).run()


def _tell(fault: str | None) -> None:
    """Ends the command with what a probe found. Raises ClickException."""
    if fault is not None:
        raise click.ClickException(fault)


@click.command()
@click.option("--check", is_flag=True, help="Start nothing: end with 1 if no beat has measured lately.")
def beat(check: bool) -> None:
    """Ring for due work and end dead workers' leases, every second."""
    if check:
        from deploy.probe import probe_beat

        _tell(probe_beat(settings()))
        return
    from worker import beat as ticker
    from worker import logs
    from worker.runtime import Runtime

    configuration = settings()
    logs.configure(configuration.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    runtime = Runtime(configuration, application="postroad beat")
    ticker.run(runtime, stop)
    runtime.close()


@click.command()
def migrate() -> None:
    """Bring the database's tables up to date. Those of a newer version stay as they are."""
    from models.migrations import migrate as run
    from models.migrations import of_a_newer_version

    url = settings().sqlalchemy_url
    run(url)
    if of_a_newer_version(url):
        click.echo("The tables are those of a newer version, and stay as they are.", err=True)
