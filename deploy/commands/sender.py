"""Through which mailer and from which address to send, where a verb was not told both."""

from typing import Any

import click

from deploy.commands.remote import Remote, path_of


def choose(remote: Remote, mailer_id: str | None, sender: str | None) -> tuple[str, str]:
    """Id of the mailer and the address to send from. Raises click.UsageError where that leaves a choice."""
    if mailer_id and sender:
        return mailer_id, sender
    mailer = remote.get(path_of("mailers", mailer_id)) if mailer_id else _mailer(remote, sender)
    if sender is None and not mailer["from"]:
        raise click.UsageError(f"Mailer {mailer['id']} may use any address of {mailer['domains']}: give --from.")
    return mailer["id"], sender or mailer["from"][0]


def _mailer(remote: Remote, sender: str | None) -> dict[str, Any]:
    mailers = [mailer for mailer in remote.rows("/v1/mailers") if sender is None or _may_use(mailer, sender)]
    if not mailers:
        raise click.UsageError("No mailer may send that: make one with `postroad mailer add`, or give --mailer.")
    chosen = [mailer for mailer in mailers if mailer["default"]] or mailers
    if len(chosen) > 1:
        known = ", ".join(f"{mailer['id']} ({mailer['name']})" for mailer in chosen[:10])
        raise click.UsageError(f"Which mailer? Give --mailer: {known}.")
    return chosen[0]


def _may_use(mailer: dict[str, Any], sender: str) -> bool:
    address = sender.lower()
    return address in (known.lower() for known in mailer["from"]) or address.partition("@")[2] in mailer["domains"]
