"""`postroad message`: single mails, submissions by their ref_id, and all mails that a filter finds."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import click

from deploy.commands.moment import Moment
from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import PAGE, Remote, paged, path_of, verb
from models.message import State
from worker.bell import PRIORITIES

COLUMNS = ("id", "ref_id", "state", "recipients", "due_at", "reason")
REF_ID_CHARACTERS = 26


def filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which mails are meant; the function gets them as ``asked``, those alone that were given."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        asked = {name: value for name in FILTERS if (value := options.pop(name)) is not None}
        function(*arguments, asked=asked, **options)

    for option in FILTERS.values():
        run = option(run)
    return run


FILTERS: Mapping[str, Callable[..., Any]] = {
    "until": click.option("--until", type=Moment(), help="Accepted before then."),
    "since": click.option("--since", type=Moment(), help="Accepted since then: a time, or 1h for an hour ago."),
    "request_id": click.option("--request-id", help="Of the request with this X-Request-ID."),
    "deal_id": click.option("--deal", "deal_id", metavar="ID", help="Linked to this deal."),
    "contact_id": click.option("--contact", "contact_id", metavar="ID", help="Linked to this contact."),
    "recipient": click.option("--to", "recipient", metavar="ADDRESS", help="To this address."),
    "campaign_id": click.option("--campaign", "campaign_id", metavar="ID", help="Of this campaign."),
    "mailer_id": click.option("--mailer", "mailer_id", metavar="ID", help="Through this mailer."),
    "queue": click.option("--queue", type=click.Choice(list(PRIORITIES)), help="Of this queue."),
    "ref_id": click.option("--ref-id", help="Of this submission."),
    "state": click.option("--status", "--state", "state", type=click.Choice([state.value for state in State])),
}
"""Field of the API's filter -> its option."""


@click.group()
def message() -> None:
    """Look at mails, find out what they wait for, cancel them, send them again.

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
@filtered
@paged
@verb
def list_(remote: Remote, output: Output, asked: dict[str, str], **page: Any) -> None:
    """List messages, newest first."""
    output.page(remote.get("/v1/messages", **asked, **page), COLUMNS)


@message.command()
@click.argument("id_", metavar="ID")
@verb
def explain(remote: Remote, output: Output, id_: str) -> None:
    """Say why a message is where it is, when it will be sent, and what to do."""
    found = remote.get(path_of("messages", id_, "explain"))
    if not output.human:
        output.one(found)
        return
    for cause in found["causes"]:
        click.echo(f"{click.style(cause['code'], bold=True)}: {cause['what']}")
        if cause["do"]:
            click.echo(f"    {cause['do']}")
    if found["eta"]:
        click.echo(f"Sent by about {found['eta']['at']} (in {found['eta']['seconds']:g} s, {found['eta']['basis']}).")


@message.command()
@click.argument("id_", metavar="ID")
@verb
def raw(remote: Remote, output: Output, id_: str) -> None:  # noqa: ARG001 -- a mail is bytes, whatever the output
    """Print the mail as it is sent, without tracking: postroad message raw ID > mail.eml"""
    sys.stdout.buffer.write(remote.content(path_of("messages", id_, "raw")))


@message.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--filter", "by_filter", is_flag=True, help="All that the other options find, after a look at the number."
)
@click.option("--force", is_flag=True, help="An uncertain one too, although it may have arrived.")
@filtered
@yes
@verb
def retry(remote: Remote, output: Output, ids: Sequence[str], force: bool, yes: bool, **which: Any) -> None:
    """Send again what failed."""
    if _all_that_fit(remote, output, "retry", ids, yes=yes, **which):
        return
    for id_ in ids:
        output.one(_retried(remote, id_, force=force, yes=yes))


def _retried(remote: Remote, id_: str, *, force: bool, yes: bool) -> Any:
    if len(id_) == REF_ID_CHARACTERS:
        if force:
            raise click.UsageError("--force is for a single message, looked up at the provider before.")
        return remote.post(f"{_place(id_)}/retry-failed")
    if force:
        confirm("It may have arrived already and would then arrive twice. Send it again?", yes=yes)
    return remote.post(f"{_place(id_)}/retry", {"force": force})


@message.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--filter", "by_filter", is_flag=True, help="All that the other options find, after a look at the number."
)
@filtered
@yes
@verb
def cancel(remote: Remote, output: Output, ids: Sequence[str], yes: bool, **which: Any) -> None:
    """Cancel what has not been sent."""
    if _all_that_fit(remote, output, "cancel", ids, yes=yes, **which):
        return
    for id_ in ids:
        confirm(f"Cancel {id_} for good?", yes=yes)
        output.one(remote.post(f"{_place(id_)}/cancel"))


def _all_that_fit(
    remote: Remote, output: Output, action: str, ids: Sequence[str], *, by_filter: bool, asked: Any, yes: bool
) -> bool:
    """Does it to all that the filter finds, after a count; False where single ids are meant."""
    if bool(ids) == by_filter:
        raise click.UsageError("Give the ids, or --filter with options that say which: not both, and not neither.")
    if asked and not by_filter:
        raise click.UsageError("Options that say which go with --filter.")
    if not by_filter:
        return False
    found = remote.post(f"/v1/messages/{action}", {**asked, "dry_run": True})
    if found["matched"]:
        confirm(f"{action.capitalize()} {found['matched']} message(s)?", yes=yes)
        found = remote.post(f"/v1/messages/{action}", asked)
    output.one(found)
    return True


@message.command()
@click.argument("id_", metavar="ID")
@yes
@verb
def redeliver(remote: Remote, output: Output, id_: str, yes: bool) -> None:
    """Send the same mail as a new message, whatever became of the first."""
    confirm("Send the same mail to the same recipients once more?", yes=yes)
    output.one(remote.post(path_of("messages", id_, "redeliver")))


@message.command()
@click.argument("id_", metavar="ID")
@click.option("--provider-message-id", help="The provider's id of it, where you know it.")
@yes
@verb
def mark_sent(remote: Remote, output: Output, id_: str, provider_message_id: str | None, yes: bool) -> None:
    """Decide that an uncertain message has arrived."""
    confirm(f"Count {id_} as sent for good?", yes=yes)
    output.one(remote.post(path_of("messages", id_, "mark-sent"), {"provider_message_id": provider_message_id}))
