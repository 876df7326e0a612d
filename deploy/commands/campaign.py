"""`postroad campaign`."""

import csv
import sys
from typing import Any

import click

from deploy.commands.output import Output, confirm, shown, yes
from deploy.commands.remote import Remote, paged, path_of, verb
from models.message import OPEN, State

EXPORTED = (
    "recipient_email", "status", "error", "subject", "message_id", "ref_id", "provider_message_id", "created_at",
)  # fmt: skip
FINISHED = [state.value for state in State if state not in OPEN]


@click.group()
def campaign() -> None:
    """Follow, hold, resume, cancel and export campaigns."""


@campaign.command("list")
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List campaigns."""
    output.page(remote.get("/v1/campaigns", **query), ("id", "status", "created_at"))


@campaign.command()
@click.argument("id_", metavar="ID")
@verb
def show(remote: Remote, output: Output, id_: str) -> None:
    """Show how far a campaign is."""
    output.one(remote.get(path_of("campaigns", id_)))


@campaign.command()
@click.argument("id_", metavar="ID")
@verb
def pause(remote: Remote, output: Output, id_: str) -> None:
    """Hold its mail back; returns when no more can leave."""
    output.one(remote.post(path_of("campaigns", id_, "pause")))


@campaign.command()
@click.argument("id_", metavar="ID")
@verb
def resume(remote: Remote, output: Output, id_: str) -> None:
    """Let a paused campaign go on."""
    output.one(remote.post(path_of("campaigns", id_, "resume")))


@campaign.command()
@click.argument("id_", metavar="ID")
@yes
@verb
def cancel(remote: Remote, output: Output, id_: str, yes: bool) -> None:
    """Cancel for good what has not been sent."""
    confirm(f"Cancel campaign {id_} for good?", yes=yes)
    output.one(remote.post(path_of("campaigns", id_, "cancel")))


@campaign.command()
@click.argument("id_", metavar="ID")
@verb
def retry_failed(remote: Remote, output: Output, id_: str) -> None:
    """Send what failed again."""
    output.one(remote.post(path_of("campaigns", id_, "retry-failed")))


@campaign.command()
@click.argument("id_", metavar="ID")
@click.option("--state", "--status", type=click.Choice(FINISHED), help="Only those that ended so.")
@click.option("--format", "format_", type=click.Choice(["ndjson", "csv"]), default="ndjson", show_default=True)
@verb
def export(remote: Remote, output: Output, id_: str, state: str | None, format_: str) -> None:
    """Print a line for every mail of it that is finished."""
    remote.get(path_of("campaigns", id_))  # an id that is not there is an error, not an empty list
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if format_ == "csv":
        writer.writerow(EXPORTED)
    for row in remote.rows("/v1/email/logs", campaign_id=id_, status=state):
        if format_ == "csv":
            writer.writerow(shown(row.get(column)) for column in EXPORTED)
        else:
            output.line(row)
