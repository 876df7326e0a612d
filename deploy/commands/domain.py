"""`postroad domain`."""

import sys
from typing import Any

import click

from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import FAILED, NOT_FOUND, Failure, Remote, paged, path_of, verb

COLUMNS = ("purpose", "type", "name", "value", "ok", "advice")
"""Of a record, for people."""

name = click.argument("domain", metavar="DOMAIN")


@click.group()
def domain() -> None:
    """Look after the domains that mail is sent from, their DKIM keys and DNS records."""


@domain.command("list")
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List domains."""
    output.page(remote.get("/v1/domains", **query), ("id", "domain", "status", "checked_at"))


@domain.command()
@name
@verb
def add(remote: Remote, output: Output, domain: str) -> None:
    """Add a domain with fresh keys; prints the DNS records to publish."""
    _print(output, remote.post("/v1/domains", {"domain": domain}))


@domain.command()
@name
@click.option("--zone", is_flag=True, help="As lines of a zone file.")
@verb
def dkim(remote: Remote, output: Output, domain: str, zone: bool) -> None:
    """Show a domain's keys and the records that they need."""
    found = _find(remote, domain)
    records = [record for record in found["records"] if record["purpose"] == "dkim"]
    if zone:
        for record in records:
            click.echo(record["zone_line"])
    elif output.human:
        output.table(found["keys"], ("selector", "algorithm", "status", "activated_at", "retires_at"))
        output.table(records, COLUMNS)
    else:
        output.one({"domain": found["domain"], "keys": found["keys"], "records": records})


@domain.command()
@name
@verb
def check(remote: Remote, output: Output, domain: str) -> None:
    """Look the records up and say what to do. Ends with 1 if one that is required is missing or wrong."""
    found = remote.post(path_of("domains", _find(remote, domain)["id"], "check"))
    _print(output, found)
    sys.exit(0 if all(record["ok"] for record in found["records"] if record["required"]) else FAILED)


@domain.command()
@name
@click.option("--force", is_flag=True, help="Sign with the new keys at once, published or not.")
@verb
def rotate(remote: Remote, output: Output, domain: str, force: bool) -> None:
    """Make new keys; they take over once a check has seen their records."""
    _print(output, remote.post(path_of("domains", _find(remote, domain)["id"], "rotate"), {"force": force}))


@domain.command()
@name
@yes
@verb
def remove(remote: Remote, output: Output, domain: str, yes: bool) -> None:
    """Remove a domain and its keys; its mail goes out unsigned."""
    found = _find(remote, domain)
    confirm(f"Remove {domain} and erase its keys for good?", yes=yes)
    remote.delete(path_of("domains", found["id"]))
    output.one({"id": found["id"], "domain": found["domain"], "removed": True})


def _find(remote: Remote, domain: str) -> dict[str, Any]:
    """The domain by its name. Raises Failure."""
    found: list[dict[str, Any]] = remote.get("/v1/domains", domain=domain)["data"]
    if not found:
        raise Failure(f"{domain} is not a domain of this workspace; add it with `postroad domain add`.", NOT_FOUND)
    return found[0]


def _print(output: Output, found: dict[str, Any]) -> None:
    if output.human:
        output.table(found["records"], COLUMNS)
    else:
        output.one(found)
