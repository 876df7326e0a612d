"""Mailgun on loopback: ``messages.mime``, the events index with its lag, signed webhooks.

with MailgunEmulator(domain="mg.demo.test", index_lag_seconds=2) as mailgun:
    ...  # a mailer with base_url=mailgun.url, api_key=mailgun.api_key, signing_key=mailgun.signing_key
    mailgun.report("bounced", mailgun.mails[0])
    mailgun.post_hooks("http://127.0.0.1:8025/v1/hooks/mailgun/...", twice=True, shuffled=True)
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from operator import itemgetter
from typing import Any, ClassVar

from providers.emulators.http import Call, Emulator, Hook, Reply

_DETAILS: dict[str, dict[str, Any]] = {
    "accepted": {"event": "accepted"},
    "delivered": {"event": "delivered", "delivery-status": {"code": 250, "message": "OK", "attempt-no": 1}},
    "bounced": {
        "event": "failed",
        "severity": "permanent",
        "reason": "bounce",
        "delivery-status": {"code": 550, "message": "5.1.1 no such user", "attempt-no": 1},
    },
    "suppressed": {
        "event": "failed",
        "severity": "permanent",
        "reason": "suppress-bounce",
        "delivery-status": {"code": 605, "message": "", "description": "Not delivering to previously bounced address"},
    },
    "deferred": {
        "event": "failed",
        "severity": "temporary",
        "reason": "generic",
        "delivery-status": {"code": 451, "message": "4.7.1 greylisted", "attempt-no": 1, "retry-seconds": 600},
    },
    "rejected": {"event": "rejected", "reject": {"reason": "Sandbox subdomains are for test purposes only"}},
    "complained": {"event": "complained"},
    "unsubscribed": {"event": "unsubscribed", "ip": "192.0.2.7"},
    "opened": {"event": "opened", "ip": "192.0.2.7", "client-info": {"user-agent": "Mail/1.0"}},
    "clicked": {"event": "clicked", "url": "https://demo.test/a", "client-info": {"user-agent": "Mail/1.0"}},
}
"""What `MailgunEmulator.report` can tell, in Mailgun's form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail that Mailgun took."""

    ref: str | None
    message_id: str
    """As sent, without brackets."""
    recipients: Sequence[str]
    options: Mapping[str, str]
    """Its ``o:`` fields."""
    mime: bytes = field(repr=False)


class MailgunEmulator(Emulator):
    """Delivers at once. Every mail owes the webhooks ``accepted`` and ``delivered`` for each recipient."""

    KNOBS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **Emulator.KNOBS,
        "index_lag_seconds": float,
        "rewrite_message_id": bool,
    }

    def __init__(
        self, *, domain: str = "mg.demo.test", index_lag_seconds: float = 0.0, port: int = 0, seed: int = 0
    ) -> None:
        super().__init__(port=port, seed=seed)
        self.domain = domain
        self.api_key = secrets.token_hex(16)
        self.signing_key = secrets.token_hex(16)
        self.index_lag_seconds = index_lag_seconds
        self.rewrite_message_id = False
        """Puts Mailgun's own Message-ID, as it does with one it does not like."""
        self.stored: dict[str, bytes] = {}
        """Mail that came in, by the path at which it lies."""
        self.mails: list[Mail] = []
        self.events: list[dict[str, Any]] = []

    def answer(self, call: Call) -> Reply:
        expected = b"Basic " + base64.b64encode(f"api:{self.api_key}".encode())
        if not call.path.startswith("/v3/"):
            return Reply(200, b"Mailgun Magnificent API", {"Content-Type": "text/plain"})
        if not hmac.compare_digest(call.headers.get("authorization", "").encode(), expected):
            return self.error(401)
        routes = {
            ("POST", f"/v3/{self.domain}/messages.mime"): self._take,
            ("GET", f"/v3/{self.domain}/events"): self._search,
            ("GET", f"/v3/domains/{self.domain}"): self._domain,
        }
        if call.path in self.stored:
            return Reply(200, {"body-mime": self.stored[call.path].decode(errors="surrogateescape")})
        route = routes.get((call.method, call.path))
        return route(call) if route else Reply(404, {"message": "Domain not found"})

    def revoke(self) -> None:
        self.api_key = secrets.token_hex(16)

    def store(self, mime: bytes) -> str:
        """A route keeps a mail that came in. Returns the URL at which it lies."""
        path = f"/v3/domains/{self.domain}/messages/{secrets.token_hex(16)}"
        self.stored[path] = mime
        return self.url + path

    def routed(self, **fields: str) -> dict[str, str]:
        """The fields of a route's call, signed as of now."""
        return {**fields, **self._signature(time.time())}

    def error(self, status: int) -> Reply:
        if status == 401:
            return Reply(401, b"Forbidden", {"Content-Type": "text/plain"})
        text = {
            429: f"Sending limit reached, try again after {self.retry_after or 30} seconds",
            500: "Internal Server Error",
            503: "Service is unavailable",
        }
        return Reply(status, {"message": text[status]})

    def report(self, name: str, mail: Mail, recipient: str | None = None) -> dict[str, Any]:
        """Something happened to a mail: indexed, and a webhook is owed. Returns the event."""
        event = {
            "id": secrets.token_urlsafe(16),
            "timestamp": time.time(),
            "recipient": recipient or mail.recipients[0],
            "user-variables": {"ref": mail.ref} if mail.ref else {},
            "message": {"headers": {"message-id": mail.message_id}, "attachments": [], "size": len(mail.mime)},
            **_DETAILS[name],
        }
        with self.lock:
            self.events.append(event)
            self.hooks.append(self.signed(event))
        return event

    def signed(self, event: Mapping[str, Any], *, timestamp: float | None = None) -> Hook:
        """The webhook call for an event, signed as of now or of ``timestamp`` (seconds)."""
        return Hook(json.dumps({"signature": self._signature(timestamp or time.time()), "event-data": event}).encode())

    def _signature(self, timestamp: float) -> dict[str, str]:
        moment, token = str(int(timestamp)), secrets.token_hex(25)
        digest = hmac.new(self.signing_key.encode(), f"{moment}{token}".encode(), hashlib.sha256).hexdigest()
        return {"timestamp": moment, "token": token, "signature": digest}

    def _take(self, call: Call) -> Reply:
        form = multipart(call)
        if "to" not in form or "message" not in form:
            missing = "to" if "to" not in form else "message"
            return Reply(400, {"message": f"{missing} parameter is missing"})
        mail = self._mail(
            {name: [value.decode() for value in values] for name, values in form.items() if name != "message"},
            form["message"][0],
        )
        self.mails.append(mail)
        self.ledger[mail.ref or mail.message_id] += 1
        for recipient in mail.recipients:
            self.report("accepted", mail, recipient)
            self.report("delivered", mail, recipient)
        return Reply(200, {"id": f"<{mail.message_id}>", "message": "Queued. Thank you."})

    def _mail(self, form: Mapping[str, Sequence[str]], mime: bytes) -> Mail:
        given = BytesHeaderParser().parsebytes(mime)["Message-ID"]
        own = f"{secrets.token_hex(8)}@{self.domain}"
        return Mail(
            ref=form.get("v:ref", [None])[0],
            message_id=own if self.rewrite_message_id or not given else str(given).strip().strip("<>"),
            recipients=[address.strip() for value in form["to"] for address in value.split(",")],
            options={name: values[0] for name, values in form.items() if name.startswith("o:")},
            mime=mime,
        )

    def _search(self, call: Call) -> Reply:
        visible_until = time.time() - self.index_lag_seconds
        found = [event for event in self.events if event["timestamp"] <= visible_until]
        for name in _SOUGHT.keys() & call.query.keys():
            value_of, value = _SOUGHT[name], call.argument(name)
            found = [event for event in found if value_of(event) == value]
        return Reply(200, {"items": found[: int(call.argument("limit", "100"))], "paging": {}})

    def _domain(self, _: Call) -> Reply:
        return Reply(200, {"domain": {"name": self.domain, "state": "active"}})


_SOUGHT: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "message-id": lambda event: event["message"]["headers"]["message-id"],
    "recipient": itemgetter("recipient"),
    "event": itemgetter("event"),
}
"""What events are found by."""


def multipart(call: Call) -> dict[str, list[bytes]]:
    """The fields of a multipart/form-data body (RFC 7578), in order; a file's bytes are its value."""
    boundary = b"--" + call.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    fields: dict[str, list[bytes]] = {}
    for part in call.body.split(boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        fields.setdefault(name, []).append(value.removesuffix(b"\r\n"))
    return fields
