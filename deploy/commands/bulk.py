"""`postroad bulk`."""

import hashlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from deploy.commands.outcome import exit_code
from deploy.commands.output import Output
from deploy.commands.remote import PARTLY, Remote, verb
from deploy.commands.sender import choose

INTERRUPTED = 130
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bulk() -> None:
    """Send to a file of recipients."""


@bulk.command()
@click.argument("file", type=FILE)
@click.option("--template", type=FILE, help="HTML; {{name}} is filled from the column of that name.")
@click.option("--text-file", type=FILE, help="The same as plain text.")
@click.option("--subject", required=True, help="May hold {{columns}} too.")
@click.option("--mailer", help="Id of the mailer. [default: the workspace's default, or its only one]")
@click.option("--from", "sender", help="[default: the mailer's first address]")
@click.option("--campaign", help="campaign_id. [default: made from the file and the content]")
@click.option("--dry-run", type=click.IntRange(1, 1000), metavar="N", help="Show the first N mails, send nothing.")
@click.option("--resume", is_flag=True, help="Let the campaign go on if it is paused.")
@verb
def run(remote: Remote, output: Output, file: Path, dry_run: int | None, resume: bool, **options: Any) -> None:
    """Send a mail to each row of FILE, a CSV file with a column email, and wait until all are finished.

    Repeating the command sends to nobody twice. Ctrl-C pauses the campaign. Ends with 5 if some mails failed.
    """
    from deploy.bulk.journal import Journal
    from deploy.bulk.recipients import BulkError
    from deploy.bulk.run import Run, new_progress

    try:
        plan = _plan(remote, file, options)
        if dry_run:
            output.one(remote.post("/v1/email/send", {**plan.body(plan.recipients[:dry_run]), "dry_run": True}))
            return
        with new_progress() as progress:
            running = Run(remote, plan, Journal(plan, remote.url), progress)
            running.begin(resume=resume)
            summary = running.go()
    except BulkError as error:
        raise click.ClickException(str(error)) from None
    output.one(summary)
    if summary["paused"]:
        click.echo(f"Paused. Go on with:\n  {_resume_line(file, options, plan.campaign_id)}", err=True)
        sys.exit(INTERRUPTED)
    if summary["held"]:
        told = f"{summary['held']} mail(s) may or may not have arrived and wait for your decision: look them up with"
        click.echo(f"{told} `postroad message list --state uncertain`, then mark-sent or retry --force.", err=True)
    sys.exit(exit_code(summary["counts"]) or (PARTLY if summary["held"] else 0))


def _plan(remote: Remote, file: Path, options: Mapping[str, Any]) -> Any:
    """What is to be sent, checked as a whole."""
    from deploy.bulk.plan import Content, Plan
    from deploy.bulk.recipients import read_recipients

    if not options["template"] and not options["text_file"]:
        raise click.UsageError("Give the content: --template FILE.html, --text-file FILE, or both.")
    recipients = read_recipients(file)
    mailer_id, sender = choose(remote, options["mailer"], options["sender"])
    html, text = _read(options["template"]), _read(options["text_file"])
    content = Content(mailer_id=mailer_id, sender=sender, subject=options["subject"], html=html, text=text)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = hashlib.sha256((digest + content.digest).encode()).hexdigest()[:12]
    plan = Plan(
        file_digest=digest,
        recipients=recipients,
        content=content,
        campaign_id=options["campaign"] or f"{file.stem[:100]}-{name}",
    )
    plan.check()
    return plan


def _read(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8.") from None


def _resume_line(file: Path, options: Mapping[str, Any], campaign_id: str) -> str:
    given = {**options, "campaign": campaign_id, "from": options["sender"]}
    names = ("template", "text_file", "subject", "mailer", "from", "campaign")
    words = [word for name in names if given[name] for word in (f"--{name.replace('_', '-')}", str(given[name]))]
    return shlex.join(["postroad", "bulk", "run", str(file), *words, "--resume"])
