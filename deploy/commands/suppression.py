"""`postroad suppression`."""

from typing import Any, BinaryIO

import click

from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import Remote, paged, verb

REASON = click.Choice(["hard_bounce", "complaint", "unsubscribe", "manual"])


@click.group()
def suppression() -> None:
    """Look after the addresses that get no more mail."""


@suppression.command("list")
@click.option("--address", help="The whole address.")
@click.option("--reason", type=REASON)
@click.option("--list", "list_id", help="One list.")
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List suppressed addresses, newest first."""
    output.page(remote.get("/v1/suppressions", **query), ("id", "address", "reason", "list_id", "created_at"))


@suppression.command()
@click.argument("address")
@click.option("--reason", type=REASON, default="manual", show_default=True)
@click.option("--list", "list_id", default="", help="One list. [default: all mail]")
@verb
def add(remote: Remote, output: Output, **row: str) -> None:
    """Let an address get no more mail."""
    output.one(remote.post("/v1/suppressions", row))


@suppression.command()
@click.argument("address")
@click.option("--list", "list_id", help="From this list only. [default: from all]")
@yes
@verb
def remove(remote: Remote, output: Output, address: str, list_id: str | None, yes: bool) -> None:
    """Let an address get mail again."""
    confirm(f"Let {address} get mail again?", yes=yes)
    remote.delete("/v1/suppressions", address=address, list_id=list_id)
    output.one({"address": address, "removed": True})


@suppression.command("import")
@click.argument("file", type=click.File("rb"))
@verb
def import_(remote: Remote, output: Output, file: BinaryIO) -> None:
    """Add the addresses of a file: CSV (address, reason, list_id) or a JSON list. All of them, or none; - is stdin."""
    content = file.read()
    kind = "application/json" if content.lstrip().startswith(b"[") else "text/csv"
    output.one(remote.ask("POST", "/v1/suppressions/import", data=content, headers={"Content-Type": kind}))
