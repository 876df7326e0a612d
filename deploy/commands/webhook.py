"""`postroad webhook`."""

from typing import Any

import click

from deploy.commands.listen import listen
from deploy.commands.moment import Moment
from deploy.commands.output import Output, confirm, yes
from deploy.commands.remote import Remote, paged, path_of, verb


@click.group()
def webhook() -> None:
    """Look after the endpoints that events are delivered to."""


webhook.add_command(listen)


@webhook.command("list")
@paged
@verb
def list_(remote: Remote, output: Output, **query: Any) -> None:
    """List endpoints."""
    output.page(remote.get("/v1/webhook-endpoints", **query), ("id", "url", "events", "status", "failing_since"))


@webhook.command()
@click.argument("address", metavar="URL")
@click.option("--event", "events", multiple=True, help="MAIL_BOUNCED and so on. [default: all]")
@click.option("--campaign", "campaign_id", help="Events of this campaign only.")
@click.option("--max-batch", type=click.IntRange(1), default=1, show_default=True, help="Events in one request.")
@click.option("--max-per-second", type=click.IntRange(1), help="Requests in a second. [default: as fast as it answers]")
@verb
def add(remote: Remote, output: Output, address: str, events: tuple[str, ...], **more: Any) -> None:
    """Add an endpoint; its signing secret is shown this once."""
    body = {"url": address, "events": list(events) or ["*"], **more}
    output.one(remote.post("/v1/webhook-endpoints", body))


@webhook.command()
@click.argument("id_", metavar="ID")
@verb
def test(remote: Remote, output: Output, id_: str) -> None:
    """Send a test event; `postroad webhook deliveries` shows what became of it."""
    output.one(remote.post(path_of("webhook-endpoints", id_, "test")))


@webhook.command()
@click.argument("id_", metavar="ID")
@click.option("--overlap-hours", type=click.FloatRange(0), default=24.0, show_default=True,
              help="How long the old secret signs beside the new one.")  # fmt: skip
@yes
@verb
def rotate(remote: Remote, output: Output, id_: str, overlap_hours: float, yes: bool) -> None:
    """Make a new signing secret, shown this once."""
    confirm(f"Give {id_} a new secret? The old one ends after {overlap_hours:g} h.", yes=yes)
    output.one(remote.post(path_of("webhook-endpoints", id_, "rotate-secret"), {"overlap_hours": overlap_hours}))


@webhook.command()
@click.argument("id_", metavar="ID")
@yes
@verb
def delete(remote: Remote, output: Output, id_: str, yes: bool) -> None:
    """Remove an endpoint with its deliveries."""
    confirm(f"Delete {id_}? What is pending for it is dropped.", yes=yes)
    remote.delete(path_of("webhook-endpoints", id_))
    output.one({"id": id_, "deleted": True})


@webhook.command()
@click.argument("id_", metavar="ID")
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]))
@paged
@verb
def deliveries(remote: Remote, output: Output, id_: str, **query: Any) -> None:
    """List deliveries with every attempt, newest events first."""
    columns = ("id", "event", "state", "tries", "next_attempt_at", "delivered_at")
    output.page(remote.get(path_of("webhook-endpoints", id_, "deliveries"), **query), columns)


@webhook.command()
@click.argument("id_", metavar="ID")
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]))
@paged
@verb
def attempts(remote: Remote, output: Output, id_: str, **query: Any) -> None:
    """List every single try with its answer, newest events first; one JSON line for each off a terminal."""
    page = remote.get(path_of("webhook-endpoints", id_, "deliveries"), **query)
    tries = [
        {"delivery": delivery["id"], "event": delivery["event"], **one}
        for delivery in page["data"]
        for one in delivery["attempts"]
    ]
    if output.human:
        output.table(tries, ("at", "event", "status", "error", "milliseconds", "delivery"))
        return
    for one in tries:
        output.line(one)


@webhook.command()
@click.argument("id_", metavar="ID")
@click.option("--delivery", "delivery_id", help="This one.")
@click.option("--since", type=Moment(), help="All since then: a time, or 2h for two hours ago.")
@click.option("--from", "from_", type=Moment(), help="With --to: all of a range.")
@click.option("--to", type=Moment())
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only those in this state.")
@verb
def replay(remote: Remote, output: Output, id_: str, from_: str | None, **which: str | None) -> None:
    """Deliver again, under the same ids."""
    body = {name: value for name, value in {"from": from_, **which}.items() if value is not None}
    if not body:
        raise click.UsageError("Say what to replay: --delivery, --since, --from and --to, or --state.")
    output.one(remote.post(path_of("webhook-endpoints", id_, "replay"), body))
