"""`postroad message`: single mails, and submissions by their ref_id."""

from typing import Any

import click

from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import PAGE, Remote, paged, path_of, verb
from models.message import State

COLUMNS = ("id", "ref_id", "state", "recipients", "due_at", "reason")
REF_ID_CHARACTERS = 26


@click.group()
def message() -> None:
    """Look at mails, cancel them, send them again.

    ID is that of a message, or the ref_id of a submission for all of its messages.
    """


def _place(id_: str) -> str:
    """The path of a message, or of a submission."""
    return path_of("submissions" if len(id_) == REF_ID_CHARACTERS else "messages", id_)


@message.command()
@click.argument("id_", metavar="ID")
@verb
def show(remote: Remote, output: Output, id_: str) -> None:
    """Show a message with every attempt, or a submission with its messages."""
    found = remote.get(_place(id_))
    if "counts" not in found:
        output.one(found)
        return
    show_submission(remote, output, found)


def show_submission(remote: Remote, output: Output, found: dict[str, Any]) -> None:
    """A submission with its messages, or the first of very many."""
    messages = remote.get("/v1/messages", ref_id=found["ref_id"], limit=PAGE)
    if output.human:
        output.one(found)
        output.page(messages, COLUMNS)
    else:
        output.one({**found, "messages": messages["data"], "next_cursor": messages["next_cursor"]})


@message.command("list")
@click.option("--ref-id", help="Those of one submission.")
@click.option("--state", "--status", type=click.Choice([state.value for state in State]))
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List messages, newest first."""
    output.page(remote.get("/v1/messages", **query), COLUMNS)


@message.command()
@click.argument("id_", metavar="ID")
@click.option("--force", is_flag=True, help="An uncertain one too, although it may have arrived.")
@yes
@verb
def retry(remote: Remote, output: Output, id_: str, force: bool, yes: bool) -> None:
    """Send again what failed."""
    if len(id_) == REF_ID_CHARACTERS:
        if force:
            raise click.UsageError("--force is for a single message, looked up at the provider before.")
        output.one(remote.post(f"{_place(id_)}/retry-failed"))
        return
    if force:
        confirm("It may have arrived already and would then arrive twice. Send it again?", yes=yes)
    output.one(remote.post(f"{_place(id_)}/retry", {"force": force}))


@message.command()
@click.argument("id_", metavar="ID")
@yes
@verb
def cancel(remote: Remote, output: Output, id_: str, yes: bool) -> None:
    """Cancel what has not been sent."""
    confirm(f"Cancel {id_} for good?", yes=yes)
    output.one(remote.post(f"{_place(id_)}/cancel"))


@message.command()
@click.argument("id_", metavar="ID")
@click.option("--provider-message-id", help="The provider's id of it, where you know it.")
@yes
@verb
def mark_sent(remote: Remote, output: Output, id_: str, provider_message_id: str | None, yes: bool) -> None:
    """Decide that an uncertain message has arrived."""
    confirm(f"Count {id_} as sent for good?", yes=yes)
    output.one(remote.post(path_of("messages", id_, "mark-sent"), {"provider_message_id": provider_message_id}))
