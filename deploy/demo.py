"""The demo: real mail through the whole path, over HTTP like any caller's, and then an account of every single one."""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from deploy.receiver import Receiver

BULK = 1000
BOUNCING = 10
URGENT = 20
PATIENCE_SECONDS = 120.0
REFUSED = ("failed", "bounced")
QUEUES = ("send.high", "send.normal", "followup", "webhooks")

BULK_HTML = (
    "<h1>Hello {{name}}</h1><p>Your plan {{plan}} renews on 1 December. Nothing to do: "
    '<a href="https://example.com/account">see your account</a>.</p>'
)
BULK_TEXT = "Hello {{name}},\n\nyour plan {{plan}} renews on 1 December. Nothing to do.\n"


@dataclass(kw_only=True)
class Tally:
    """What became of the demo's mail."""

    messages: list[dict[str, Any]]
    """As the API tells."""
    copies: Counter[str]
    """Mails in the inbox by Message-ID."""
    webhooks: int
    activities: int
    seconds: float

    @property
    def states(self) -> Counter[str]:
        return Counter(message["state"] for message in self.messages)

    @property
    def sent(self) -> int:
        return sum(self.states[state] for state in ("sent", "delivered"))

    @property
    def refused(self) -> int:
        return sum(self.states[state] for state in REFUSED)

    @property
    def lost(self) -> int:
        """Mails whose fate does not fit the inbox: unfinished, sent and not there, or refused and yet there."""
        return sum((message["state"] in REFUSED) == self._is_there(message) for message in self.messages)

    def _is_there(self, message: dict[str, Any]) -> bool:
        return self.copies[message["message_id"]] > 0

    @property
    def doubled(self) -> int:
        return sum(self.copies[message["message_id"]] > 1 for message in self.messages)


@dataclass(kw_only=True)
class Caller:
    """Talks to the API of a stack as any client would."""

    stack: dict[str, Any]
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.headers["Authorization"] = f"Bearer {self.stack['api_key']}"

    def send(self, body: dict[str, Any]) -> str:
        """Sends one request of any shape; returns its ref_id."""
        ref_id: str = self._ask("POST", "/v1/email/send", json=body)["ref_id"]
        return ref_id

    def get(self, path: str, **query: str | int) -> Any:
        return self._ask("GET", path, params=query)

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        answer = self.session.request(method, f"{self.stack['api']}{path}", timeout=60, **request)
        if not answer.ok:
            raise SystemExit(f"The demo stops: {method} {path} was answered {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def pages(self, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """Every entry of a list."""
        page = self.get(path, **query)
        yield from page["data"]
        while page["next_cursor"]:
            page = self.get(path, **query, cursor=page["next_cursor"])
            yield from page["data"]


def run(stack_json: Path, receiver_port: int, *, once: bool) -> None:
    """Sends, waits, prints. With ``once`` ends the process: 0 if nothing was lost or doubled, otherwise 1."""
    stack = json.loads(stack_json.read_text())
    receiver = Receiver(receiver_port, stack["webhook_secret"])
    console = Console(highlight=False)
    caller = Caller(stack=stack)
    tally = _measure(caller, receiver, console)
    console.print(_table(tally))
    if once:
        sys.exit(0 if tally.lost == 0 and tally.doubled == 0 else 1)
    _print_places(console, stack)
    signal.pause()


def _measure(caller: Caller, receiver: Receiver, console: Console) -> Tally:
    console.print(
        f"Sending {BULK} personalised mails, {URGENT} urgent ones and one of each request shape ...", soft_wrap=True
    )
    begun, since = time.monotonic(), caller.get("/inbox/messages", limit=1)["total"]
    ref_ids = {caller.send(body) for body in _bodies(caller.stack)}
    unfinished = sorted(ref_ids)
    _wait(lambda: _drop_finished(caller, unfinished))
    seconds = time.monotonic() - begun
    _wait(lambda: _idle(caller))
    messages = [message for ref_id in ref_ids for message in caller.pages("/v1/messages", ref_id=ref_id, limit=500)]
    ours = {message["id"] for message in messages}
    contact = f"/v1/contacts/{caller.stack['contact_id']}/activities"
    return Tally(
        messages=messages,
        copies=_copies(caller, since),
        webhooks=receiver.count(ref_ids),
        activities=sum(entry.get("message_id") in ours for entry in caller.pages(contact, limit=500)),
        seconds=seconds,
    )


def _bodies(stack: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The requests of the demo: each shape once, the bulk, and urgent mail that must overtake it."""
    yield {
        "to_email": "grace@example.com",
        "to_name": "Grace",
        "subject": "Your setup report",
        "html_body": "<h1>Hello!</h1><p>Sent in the CRM shape, linked to a contact and a deal.</p>",
        "contact_id": stack["contact_id"],
        "deal_id": stack["deal_id"],
    }
    yield {
        "to": ["Grace <grace@example.com>"],
        "subject": "Notes from our call",
        "body_text": "Sent in the mailbox shape, as plain text.",
        "contact_id": stack["contact_id"],
    }
    people = [f"reader{number:04d}@example.com" for number in range(BULK - BOUNCING)]
    people += [f"bounce{number:02d}@example.com" for number in range(BOUNCING)]
    yield _mailer_body(stack, people, campaign_id="renewal")
    for number in range(URGENT):
        yield _mailer_body(stack, [f"urgent{number:02d}@example.com"], priority="high")


def _mailer_body(stack: dict[str, Any], people: list[str], **more: Any) -> dict[str, Any]:
    names = {address: address.partition("@")[0].capitalize() for address in people}
    return {
        "from": {"email": stack["from"], "name": "Demo"},
        "mailer_id": stack["mailer_id"],
        "to": [{"email": address, "name": name} for address, name in names.items()],
        "subject": "{{name}}, your plan renews soon",
        "content": [{"type": "text/plain", "value": BULK_TEXT}, {"type": "text/html", "value": BULK_HTML}],
        "substitutions": {address: {"name": name, "plan": "Team"} for address, name in names.items()},
        "settings": {},
        "contact_id": stack["contact_id"],
        **more,
    }


def _wait(condition: Callable[[], bool]) -> None:
    """Waits, within reason; what is not finished then is counted as lost."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


def _drop_finished(caller: Caller, unfinished: list[str]) -> bool:
    """Strikes off the submissions that are finished; True when none is left."""
    while unfinished and caller.get(f"/v1/submissions/{unfinished[-1]}")["finished_at"]:
        unfinished.pop()
    return not unfinished


def _idle(caller: Caller) -> bool:
    """Whether no queue has anything left to do, for now or for later."""
    queues = caller.get("/v1/ops/queues")["queues"]
    return not any(queues[name][key] for name in QUEUES for key in ("ready", "in_flight", "scheduled"))


def _copies(caller: Caller, since: int) -> Counter[str]:
    """Mails that came after the ``since``-th, by Message-ID."""
    copies: Counter[str] = Counter()
    for mail in caller.pages("/inbox/messages", limit=1000):
        if int(mail["id"]) <= since:
            break
        copies[mail["message_id"]] += 1
    return copies


def _table(tally: Tally) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right")
    rows = {
        "mails sent": tally.sent,
        "refused by the recipient's server": tally.refused,
        "activities on the contact": tally.activities,
        "webhook events, signature verified": tally.webhooks,
        "mails per second": round(len(tally.messages) / tally.seconds),
        "lost": tally.lost,
        "sent twice": tally.doubled,
    }
    for name, number in rows.items():
        wrong = number and name in ("lost", "sent twice")
        table.add_row(name, f"{number:,}", style="bold red" if wrong else "")
    return table


def _print_places(console: Console, stack: dict[str, Any]) -> None:
    places = {
        "API and its pages": f"{stack['api']}/docs",
        "Dashboard": stack["ops_url"],
        "Inbox": stack["inbox"]["http"],
        "API key": stack["api_key"],
    }
    console.print()
    for name, place in places.items():
        console.print(f"  {name:<18} {place}", soft_wrap=True)
    console.print("\nCtrl-C stops everything; the next start resumes.", soft_wrap=True)
