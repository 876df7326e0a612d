"""`postroad erase`: forget a person."""

import time

import click

from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import Remote, path_of, verb

LONGEST_SECONDS = 60.0


@click.command()
@click.argument("address")
@click.option("--contacts", is_flag=True, help="Delete the contacts with this address too.")
@click.option("--suppressions", is_flag=True, help="Take it off the suppression list too; it may then get mail again.")
@yes
@verb
def erase(remote: Remote, output: Output, address: str, contacts: bool, suppressions: bool, yes: bool) -> None:
    """Overwrite an address, and what was written to it and by it, everywhere. Counts stay as they are.

    Waits up to a minute for it to be done; a request that takes longer goes on by itself.
    """
    confirm(f"Forget {address} for good?", yes=yes)
    asked = {"address": address, "contacts": contacts, "suppressions": suppressions}
    request = remote.post("/v1/erasures", asked)
    deadline = time.monotonic() + LONGEST_SECONDS
    while request["status"] == "pending" and time.monotonic() < deadline:
        time.sleep(0.2)
        request = remote.get(path_of("erasures", request["id"]))
    output.one(request)
