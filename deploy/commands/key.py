"""`postroad key`."""

from typing import Any

import click

from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import Remote, paged, path_of, verb


@click.group()
def key() -> None:
    """Look after API keys."""


@key.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="Such as email:send; may be repeated.")
@click.option("--expires-at", help="RFC 3339. [default: never]")
@verb
def create(remote: Remote, output: Output, name: str, scopes: tuple[str, ...], expires_at: str | None) -> None:
    """Make a key, shown this once."""
    output.one(remote.post("/v1/keys", {"name": name, "scopes": list(scopes), "expires_at": expires_at}))


@key.command("list")
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List keys, never their text."""
    columns = ("id", "name", "prefix", "scopes", "expires_at", "revoked_at", "last_used_at")
    output.page(remote.get("/v1/keys", **query), columns)


@key.command()
@click.argument("id_", metavar="ID")
@yes
@verb
def revoke(remote: Remote, output: Output, id_: str, yes: bool) -> None:
    """Revoke a key at once and for good."""
    confirm(f"Revoke key {id_} for good?", yes=yes)
    remote.delete(path_of("keys", id_))
    output.one({"id": id_, "revoked": True})
