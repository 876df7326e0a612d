"""`postroad send`."""

import sys
from email.utils import parseaddr
from typing import Any, TextIO

import click

from deploy.commands.message import show_submission
from deploy.commands.outcome import exit_code, wait_for
from deploy.commands.output import Output
from deploy.commands.remote import Remote, verb
from deploy.commands.sender import choose

LONGEST_SERVER_WAIT = 30


@click.command()
@click.option("--to", multiple=True, required=True, help='"Name <address>" or an address. Each gets a mail of its own.')
@click.option("--cc", multiple=True, help="With --cc or --bcc all share one mail.")
@click.option("--bcc", multiple=True)
@click.option("--subject", required=True)
@click.option("--html-file", type=click.File(encoding="utf-8"), help="- is stdin.")
@click.option("--text-file", type=click.File(encoding="utf-8"), help="- is stdin.")
@click.option("--from", "sender", help="[default: the mailer's first address]")
@click.option("--mailer", help="Id of the mailer. [default: the workspace's default, or its only one]")
@click.option("--priority", type=click.Choice(["normal", "high"]), default="normal", show_default=True)
@click.option("--campaign", help="campaign_id to count it under.")
@click.option("--send-at", help="Not before this time (RFC 3339).")
@click.option("--wait", type=click.IntRange(0), default=0, help="Seconds to wait for the outcome.")
@click.option("--idempotency-key", help="Repeating with the same key sends once.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent.")
@verb
def send(
    remote: Remote, output: Output, html_file: TextIO | None, text_file: TextIO | None, wait: int, **options: Any
) -> None:
    """Send a mail. With --wait ends with 1 if it failed, with 5 if it failed for some."""
    if html_file is None and text_file is None:
        raise click.UsageError("Give the content: --html-file FILE, --text-file FILE, or either with - for stdin.")
    if html_file is not None and html_file is text_file:
        raise click.UsageError("Only one of --html-file and --text-file can be stdin.")
    parts = (("text/plain", text_file), ("text/html", html_file))
    content = [{"type": kind, "value": _read(file)} for kind, file in parts if file is not None]
    headers = {"Idempotency-Key": options["idempotency_key"]} if options["idempotency_key"] else {}
    if wait:
        headers["Prefer"] = f"wait={min(wait, LONGEST_SERVER_WAIT)}"
    answer = remote.post("/v1/email/send", _body(remote, content, options), **headers)
    if options["dry_run"] or not wait:
        output.one(answer)
        return
    found = wait_for(remote, answer["ref_id"], wait)
    show_submission(remote, output, found)
    sys.exit(exit_code(found["counts"]))


def _read(file: TextIO) -> str:
    try:
        return file.read()
    except UnicodeDecodeError:
        raise click.UsageError(f"{file.name} is not UTF-8.") from None


def _body(remote: Remote, content: list[dict[str, str]], options: dict[str, Any]) -> dict[str, Any]:
    """The request in the mailer shape."""
    sender = _mailbox(options["sender"]) if options["sender"] else None
    mailer_id, address = choose(remote, options["mailer"], sender["email"] if sender else None)
    shared = {name: [_mailbox(text) for text in options[name]] for name in ("cc", "bcc") if options[name]}
    body = {
        "mailer_id": mailer_id,
        "from": sender or {"email": address},
        "to": [_mailbox(text) for text in options["to"]],
        "subject": options["subject"],
        "content": content,
        "settings": {},
        "priority": options["priority"],
        **({"process_email_inbulk": True} | shared if shared else {}),
    }
    named = {"campaign_id": options["campaign"], "send_at": options["send_at"], "dry_run": options["dry_run"] or None}
    return body | {name: value for name, value in named.items() if value is not None}


def _mailbox(text: str) -> dict[str, str]:
    name, address = parseaddr(text)
    return {"email": address or text} | ({"name": name} if name else {})
