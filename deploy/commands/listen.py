"""`postroad webhook listen`: events as they happen, in the shell and at a port of this machine. No tunnel is needed:
they are read from the event log by its cursor."""

import base64
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import click
import orjson
import requests

from deploy.commands.output import Output, shown
from deploy.commands.remote import Remote, verb
from worker.signature import new_secret, signature

POLL_SECONDS = 1.0
PAGE = 200
TIMEOUT_SECONDS = (5, 15)


class Forwarder:
    """Posts events to one URL as an endpoint gets them, signed with ``secret``."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self._session = requests.Session()
        self._session.trust_env = False

    def __call__(self, event: Mapping[str, Any]) -> str:
        """What became of it: the status, or why none came."""
        body, timestamp = orjson.dumps(event), int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "postroad-cli",
            "webhook-id": event["id"],
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature([self._secret], event["id"], timestamp, body),
        }
        try:
            answer = self._session.post(
                self._url, data=body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            return type(error).__name__
        return str(answer.status_code)


@click.command()
@click.argument("address", metavar="[URL]", required=False)
@click.option("--event", "names", multiple=True, help="MAIL_BOUNCED and so on. [default: all]")
@click.option("--secret", help="whsec_... to sign with. [default: a new one, which is shown]")
@click.option("--after", help="Begin behind this cursor instead of now; 0 is the beginning.")
@click.option("--count", type=click.IntRange(1), help="End after so many events. [default: go on until Ctrl-C]")
@verb
def listen(
    remote: Remote,
    output: Output,
    address: str | None,
    names: tuple[str, ...],
    secret: str | None,
    after: str | None,
    count: int | None,
) -> None:
    """Print events as they happen, one JSON line each where stdout is no terminal.

    With a URL, such as http://localhost:8000/hook, they are posted there too, signed as an endpoint's are. Each event
    is posted once; what that came to stands beside it as "forwarded".
    """
    forward = None
    if address is not None:
        secret = secret or new_secret()
        forward = _forwarder(address, secret)
        click.echo(f"Signing with {secret}", err=True)
    with suppress(KeyboardInterrupt):  # Ctrl-C ends listening wherever it is
        for number, event in enumerate(_events(remote, after or "latest", names), start=1):
            _show(output, event, None if forward is None else forward(event))
            if number == count:
                return


def _forwarder(url: str, secret: str) -> Forwarder:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"{url!r} is no URL; write http://localhost:8000/hook.")
    try:
        base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise click.UsageError("--secret is whsec_ and base64, as `postroad webhook add` shows it.") from None
    return Forwarder(url, secret)


def _events(remote: Remote, after: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Every event behind a cursor, for ever."""
    while True:
        page = remote.get("/v1/events", after=after, limit=PAGE)
        after = page["next_cursor"]
        yield from (event for event in page["data"] if not names or event["event"] in names)
        if not page["data"]:
            time.sleep(POLL_SECONDS)


def _show(output: Output, event: dict[str, Any], forwarded: str | None) -> None:
    if not output.human:
        output.line(event if forwarded is None else {**event, "forwarded": forwarded})
        return
    at = datetime.fromisoformat(event["timestamp"]).astimezone()
    details = event["details"]
    who = shown(details.get("email") or details.get("from") or "")
    tail = "" if forwarded is None else f"  -> {forwarded}"
    click.echo(f"{at:%H:%M:%S}  {event['event']:<18}  {who}{tail}")
