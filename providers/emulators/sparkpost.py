"""SparkPost on loopback: transmissions of ``email_rfc822``, the message events index with its lag, webhook batches.

with SparkPostEmulator(index_lag_seconds=2) as sparkpost:
    ...  # a mailer with base_url=sparkpost.url, api_key=sparkpost.api_key, hook_secret=sparkpost.hook_secret
    sparkpost.report("bounce", sparkpost.mails[0], bounce_class="10")
    sparkpost.post_hooks("http://127.0.0.1:8025/v1/hooks/sparkpost/...", twice=True, shuffled=True)
"""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from providers.emulators.http import Call, Emulator, Hook, Reply

_WRAPPERS = {
    **dict.fromkeys(("open", "initial_open", "click", "amp_open", "amp_initial_open", "amp_click"), "track_event"),
    **dict.fromkeys(("generation_failure", "generation_rejection"), "gen_event"),
    **dict.fromkeys(("list_unsubscribe", "link_unsubscribe"), "unsubscribe_event"),
}
"""Event type -> the key it stands under; every other is a ``message_event``."""

_ERRORS = {
    401: ("Unauthorized.", ""),
    429: ("Too many requests", ""),
    500: ("Internal Server Error", ""),
    503: ("Service unavailable", "1900"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A transmission that SparkPost took."""

    ref: str | None
    transmission_id: str
    recipients: Sequence[str]
    options: Mapping[str, Any]
    mime: str = field(repr=False)
    """As submitted. SparkPost puts its own Message-ID on the way out."""


class SparkPostEmulator(Emulator):
    """Delivers at once. Every recipient owes the webhooks ``injection`` and ``delivery``."""

    KNOBS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **Emulator.KNOBS,
        "index_lag_seconds": float,
        "suppressed": set,
        "domains": set,
        "page_size": int,
    }

    def __init__(self, *, index_lag_seconds: float = 0.0, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.api_key = secrets.token_hex(20)
        self.hook_secret = secrets.token_hex(16)
        self.index_lag_seconds = index_lag_seconds
        self.domains: set[str] | None = None
        """Sending domains that are set up; None: all are."""
        self.suppressed: set[str] = set()
        self.page_size = 10_000
        """Events a page at most, whatever is asked for."""
        self.mails: list[Mail] = []
        self.events: list[dict[str, Any]] = []

    def answer(self, call: Call) -> Reply:
        if not hmac.compare_digest(call.headers.get("authorization", "").encode(), self.api_key.encode()):
            return self.error(401)
        routes = {
            ("POST", "/api/v1/transmissions"): self._take,
            ("GET", "/api/v1/events/message"): self._search,
            ("GET", "/api/v1/account"): self._account,
        }
        route = routes.get((call.method, call.path))
        return route(call) if route else _refusal(404, "Resource could not be found", "1600")

    def error(self, status: int) -> Reply:
        return _refusal(status, *_ERRORS[status])

    def revoke(self) -> None:
        self.api_key = secrets.token_hex(20)

    def report(self, kind: str, mail: Mail, recipient: str | None = None, **particulars: Any) -> dict[str, Any]:
        """Something happened to a mail: indexed, and a webhook is owed. Returns the event."""
        address = recipient or mail.recipients[0]
        event = {
            "type": kind,
            "event_id": str(secrets.randbits(63)),
            "timestamp": str(int(time.time())),
            "transmission_id": mail.transmission_id,
            "message_id": secrets.token_hex(10),
            "rcpt_to": address.lower(),
            "raw_rcpt_to": address,
            "rcpt_meta": {"ref": mail.ref} if mail.ref else {},
            **particulars,
        }
        with self.lock:
            self.events.append({**event, "_seen": time.time()})
            self.hooks.append(self.batch(event))
        return event

    def batch(self, *events: Mapping[str, Any]) -> Hook:
        """A webhook call with these events, as Basic authentication wants it; without any it is a ping."""
        entries: list[dict[str, Any]] = [
            {"msys": {_WRAPPERS.get(event["type"], "message_event"): event}} for event in events
        ]
        password = base64.b64encode(f"sparkpost:{self.hook_secret}".encode()).decode()
        headers = {"Authorization": f"Basic {password}", "X-MessageSystems-Batch-ID": secrets.token_hex(16)}
        return Hook(json.dumps(entries or [{"msys": {}}]).encode(), headers)

    def _take(self, call: Call) -> Reply:
        body = call.json
        mime = body["content"]["email_rfc822"] if isinstance(body, dict) else None
        if not mime or not body.get("recipients"):
            return _refusal(422, "required field is missing", "1400")
        if self.domains is not None and not any(f"@{domain}" in mime for domain in self.domains):
            return _refusal(400, "Invalid domain", "7001")
        entries = [entry for entry in body["recipients"] if entry["address"]["email"] not in self.suppressed]
        refused = [entry["address"]["email"] for entry in body["recipients"] if entry not in entries]
        if not entries:
            return _refusal(422, "Recipient address suppressed due to customer policy", "1902")
        mail = Mail(
            ref=entries[0].get("metadata", {}).get("ref"),
            transmission_id=str(secrets.randbits(56)),
            recipients=[entry["address"]["email"] for entry in entries],
            options=body.get("options", {}),
            mime=mime,
        )
        self._deliver(mail)
        return Reply(200, _taken(mail, refused))

    def _deliver(self, mail: Mail) -> None:
        self.mails.append(mail)
        self.ledger[mail.ref or mail.transmission_id] += 1
        for recipient in mail.recipients:
            self.report("injection", mail, recipient)
            self.report("delivery", mail, recipient)

    def _account(self, _: Call) -> Reply:
        return Reply(200, {"results": {"status": "active"}})

    def _search(self, call: Call) -> Reply:
        visible_until = time.time() - self.index_lag_seconds
        wanted = {address.lower() for address in call.argument("recipients").split(",")}
        found = [event for event in self.events if event["rcpt_to"] in wanted and event["_seen"] <= visible_until]
        start, size = int(call.argument("cursor", "0")), min(int(call.argument("per_page", "1000")), self.page_size)
        query = f"recipients={','.join(sorted(wanted))}&per_page={size}&cursor={start + size}"
        links = {"next": f"/api/v1/events/message?{query}"} if start + size < len(found) else {}
        page = [{name: value for name, value in event.items() if name != "_seen"} for event in found]
        return Reply(200, {"results": page[start : start + size], "total_count": len(found), "links": links})


def _refusal(status: int, message: str, code: str) -> Reply:
    return Reply(status, {"errors": [{"message": message, **({"code": code} if code else {})}]})


def _taken(mail: Mail, refused: Sequence[str]) -> dict[str, Any]:
    errors = [
        {"message": "Recipient address suppressed", "description": f"{address} is suppressed", "code": "1902"}
        for address in refused
    ]
    results = {
        "id": mail.transmission_id,
        "total_accepted_recipients": len(mail.recipients),
        "total_rejected_recipients": len(refused),
        **({"rcpt_to_errors": errors} if errors else {}),
    }
    partial = [{"message": "transmission created, but with validation errors", "code": "2000"}]
    return {"results": results, **({"errors": partial} if errors else {})}
