"""`postroad mailer`."""

import json
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import FAILED, Remote, paged, path_of, verb

NUMBERS = ("port",)
"""Credentials that are numbers."""


@click.group()
def mailer() -> None:
    """Look after the sending identities."""


@mailer.command("list")
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List mailers."""
    columns = ("id", "name", "provider", "status", "from", "domains", "default", "status_reason")
    output.page(remote.get("/v1/mailers", **query), columns)


@mailer.command()
@click.argument("provider")
@click.option("--name", help="[default: the provider's]")
@click.option("--from", "addresses", multiple=True, help="Address it may use.")
@click.option("--domain", "domains", multiple=True, help="Domain of which it may use every address.")
@click.option("--credential", "pairs", multiple=True, metavar="NAME=VALUE", help="Such as host=smtp.example.com.")
@click.option("--credentials-file", type=click.File(encoding="utf-8"),
              help="JSON object; - is stdin. Unlike --credential it shows in no list of processes.")  # fmt: skip
@click.option("--base-url", help="Root of the provider's API, where it is not its usual one.")
@click.option("--connections", type=click.IntRange(1, 100), help="At the same time.")
@click.option("--per-second", type=click.IntRange(1), help="Mails.")
@click.option("--per-day", type=click.IntRange(1), help="Mails.")
@click.option("--default", is_flag=True, help="Use it where no mailer is named.")
@verb
def add(
    remote: Remote,
    output: Output,
    provider: str,
    addresses: tuple[str, ...],
    domains: tuple[str, ...],
    pairs: tuple[str, ...],
    credentials_file: TextIO | None,
    default: bool,
    **more: Any,
) -> None:
    """Make a mailer for PROVIDER: smtp, postmark, gmail and so on."""
    caps = {name: more.pop(name) for name in ("connections", "per_second", "per_day")}
    body = {
        "provider": provider,
        "from": list(addresses),
        "domains": list(domains),
        "default": default,
        "credentials": _credentials(credentials_file, pairs),
        "caps": {name: cap for name, cap in caps.items() if cap is not None},
    }
    output.one(remote.post("/v1/mailers", body | {name: value for name, value in more.items() if value is not None}))


def _credentials(file: TextIO | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Those of the file, and over them those of the command line."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.load(file)
        except ValueError:
            raise click.UsageError(f"{file.name} is not JSON.") from None
        if not isinstance(found, dict):
            raise click.UsageError(f"{file.name} holds no JSON object.")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError("A --credential is written NAME=VALUE.")
        found[name] = int(value) if name in NUMBERS and value.isdecimal() else value
    return found


@mailer.command()
@click.argument("id_", metavar="ID")
@verb
def test(remote: Remote, output: Output, id_: str) -> None:
    """Connect and log in without sending. Ends with 1 if the provider refuses."""
    answer = remote.post(path_of("mailers", id_, "test"))
    output.one(answer)
    sys.exit(0 if answer["ok"] else FAILED)


@mailer.command()
@click.argument("id_", metavar="ID")
@verb
def connect(remote: Remote, output: Output, id_: str) -> None:
    """Print the address at which the mailbox's owner consents; good for ten minutes. On a terminal it is opened."""
    answer = remote.post(path_of("mailers", id_, "connect"))
    output.one(answer)
    if output.human:
        click.launch(answer["authorization_url"])


@mailer.command()
@click.argument("id_", metavar="ID")
@verb
def budget(remote: Remote, output: Output, id_: str) -> None:
    """Show what a mailer may still send, and how fast."""
    output.one(remote.get(path_of("mailers", id_, "budget")))


@mailer.command()
@click.argument("id_", metavar="ID")
@verb
def pause(remote: Remote, output: Output, id_: str) -> None:
    """Let its mail wait."""
    output.one(remote.post(path_of("mailers", id_, "pause")))


@mailer.command()
@click.argument("id_", metavar="ID")
@verb
def resume(remote: Remote, output: Output, id_: str) -> None:
    """Send again."""
    output.one(remote.post(path_of("mailers", id_, "resume")))


@mailer.command()
@click.argument("id_", metavar="ID")
@yes
@verb
def delete(remote: Remote, output: Output, id_: str, yes: bool) -> None:
    """Delete a mailer and its credentials; it may have no mail left to send."""
    confirm(f"Delete mailer {id_} and its credentials for good?", yes=yes)
    remote.delete(path_of("mailers", id_))
    output.one({"id": id_, "deleted": True})
