"""Postmark on loopback: /email, /email/batch, /messages/outbound, /server and the webhooks it owes."""

import base64
import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import getaddresses
from typing import Any, ClassVar

from providers.emulators.http import Call, Emulator, Hook, Reply

MAX_MAIL_BYTES = 10 * 1024 * 1024
MAX_CALL_BYTES = 50 * 1024 * 1024
REFUSED_ENDINGS = (".exe", ".bat", ".com", ".scr", ".vbs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail Postmark took."""

    id: str
    ref: str
    fields: dict[str, Any] = field(repr=False)
    recipients: tuple[str, ...]
    """Those it will be delivered to: not the inactive ones."""
    at: datetime
    indexed: float
    """`time.monotonic` from when on the search finds it."""

    @property
    def stream(self) -> str:
        return self.fields.get("MessageStream") or "outbound"


class PostmarkEmulator(Emulator):
    """Addresses in ``inactive`` are refused as suppressed; mail to ``hardbounce@...`` is taken and bounces."""

    KNOBS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **Emulator.KNOBS,
        "index_lag_seconds": float,
        "inactive": set,
        "unconfirmed": set,
        "break_after": int,
        "break_chance": float,
    }

    def __init__(self, *, port: int = 0, seed: int = 0, index_lag_seconds: float = 0.0) -> None:
        super().__init__(port=port, seed=seed)
        self.server_token = "server-token"  # noqa: S105
        self.hook_password = ""
        """Sent with every webhook as HTTP Basic user info, if not empty."""
        self.index_lag_seconds = index_lag_seconds
        """Seconds until the search knows of a mail."""
        self.inactive: set[str] = set()
        self.unconfirmed: set[str] = set()
        """Senders without a confirmed signature."""
        self.break_after: int | None = None
        """The next batch is taken up to this mail, then answered with 504."""
        self.break_chance = 0.0
        """Probability with which a batch is taken up to somewhere in it, then answered with 504."""
        self.mails: list[Mail] = []

    def error(self, status: int) -> Reply:
        codes = {401: 10, 503: 100}
        return Reply(status, {"ErrorCode": codes.get(status, status), "Message": f"emulated error {status}"})

    def answer(self, call: Call) -> Reply:
        if call.headers.get("x-postmark-server-token") != self.server_token:
            return Reply(401, _error(10, "No Account or Server API tokens were supplied, or they are invalid."))
        match call.method, call.path:
            case "POST", "/email":
                return self._one(call)
            case "POST", "/email/batch":
                return self._batch(call)
            case "GET", "/messages/outbound":
                return self._search(call)
            case "GET", "/server":
                return Reply(200, {"ID": 1, "Name": "emulated", "DeliveryType": "Live"})
        return Reply(404, _error(404, "no such resource"))

    def revoke(self) -> None:
        self.server_token = secrets.token_hex(16)

    def report(self, record: str, mail: Mail, recipient: str = "", **more: Any) -> dict[str, Any]:
        """Owes a webhook about a mail; returns its body."""
        fields = ("Email", "BouncedAt") if record in {"Bounce", "SpamComplaint"} else ("Recipient", _TIMES[record])
        body = {
            "RecordType": record,
            "MessageID": mail.id,
            fields[0]: recipient or mail.recipients[0],
            fields[1]: _now(),
            "Tag": "",
            "Metadata": {"ref": mail.ref},
            "ServerID": 1,
            "MessageStream": mail.stream,
            **more,
        }
        self.owe(body)
        return body

    def bounce(self, mail: Mail, recipient: str = "", kind: str = "HardBounce", **more: Any) -> dict[str, Any]:
        """Owes a webhook about a bounce. Each bounce has an id of its own."""
        details = {"ID": self._random.getrandbits(40), "Type": kind, "Details": "smtp;550 5.1.1 no such user"}
        return self.report("Bounce", mail, recipient, **{**details, "Inactive": kind == "HardBounce", **more})

    def receive(self, inbound: dict[str, Any]) -> None:
        """Owes the webhook of an inbound mail: a body in the shape of Postmark's inbound hook."""
        self.owe({"MessageID": str(uuid.uuid4()), **inbound})

    def owe(self, body: dict[str, Any]) -> None:
        basic = base64.b64encode(f"postmark:{self.hook_password}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}"} if self.hook_password else {}
        with self.lock:
            self.hooks.append(Hook(json.dumps(body).encode(), headers))

    def _one(self, call: Call) -> Reply:
        if not isinstance(call.json, dict):
            return Reply(422, _error(402, "Received invalid JSON input."))
        result = self._take(call.json)
        return Reply(422 if result["ErrorCode"] else 200, result)

    def _batch(self, call: Call) -> Reply:
        if len(call.body) > MAX_CALL_BYTES:
            return Reply(413, None)
        mails = call.json
        if not isinstance(mails, list) or not all(isinstance(mail, dict) for mail in mails):
            return Reply(422, _error(402, "Received invalid JSON input."))
        if len(mails) > 500:
            return Reply(422, _error(410, "Too many batch messages."))
        if mails and self._random.random() < self.break_chance:
            self.break_after = self._random.randrange(len(mails))
        results = [self._take(mail) for mail in mails[: self.break_after]]
        if self.break_after is not None:
            self.break_after = None
            return Reply(504, b"<html>gateway timeout</html>", {"Content-Type": "text/html"})
        return Reply(200, results)

    def _take(self, fields: dict[str, Any]) -> dict[str, Any]:
        lists = [fields[name] for name in ("To", "Cc", "Bcc") if fields.get(name)]
        addresses = [address for _, address in getaddresses(lists)]
        refusal = self._refusal_of(fields, addresses)
        if refusal is not None:
            return refusal
        suppressed = [address for address in addresses if address in self.inactive]
        active = tuple(address for address in addresses if address not in self.inactive)
        if not active:
            return _error(406, _INACTIVE.format(", ".join(suppressed)))
        mail = Mail(
            id=str(uuid.uuid4()),
            ref=(fields.get("Metadata") or {}).get("ref", ""),
            fields=fields,
            recipients=active,
            at=datetime.now(UTC),
            indexed=time.monotonic() + self.index_lag_seconds,
        )
        self.mails.append(mail)
        self.ledger[mail.ref] += 1
        self._owe_first_news(mail)
        text = f"Message OK, but will not deliver to these inactive addresses: {', '.join(suppressed)}."
        taken = {"To": fields.get("To"), "SubmittedAt": _now(), "MessageID": mail.id, "ErrorCode": 0}
        return taken | {"Message": text if suppressed else "OK"}

    def _refusal_of(self, fields: dict[str, Any], addresses: list[str]) -> dict[str, Any] | None:
        sender = getaddresses([fields.get("From") or ""])[0][1]
        if not sender or not sender.isascii():
            return _error(300, "Invalid 'From' address.")
        if sender in self.unconfirmed:
            return _error(400, "The 'From' address you supplied is not a Sender Signature on your account.")
        if not addresses or not all("@" in address and address.isascii() for address in addresses):
            return _error(300, "Invalid 'To' address.")
        if len(addresses) > 50:
            return _error(300, "Recipient limit of 50 exceeded.")
        if not fields.get("HtmlBody") and not fields.get("TextBody"):
            return _error(300, "Provide either email TextBody or HtmlBody or both.")
        files = fields.get("Attachments") or []
        if any(file["Name"].lower().endswith(REFUSED_ENDINGS) for file in files):
            return _error(701, "The attachment's file type is not allowed.")
        if sum(len(file["Content"]) for file in files) > MAX_MAIL_BYTES:
            return _error(300, "The message is larger than 10 MB.")
        return None

    def _owe_first_news(self, mail: Mail) -> None:
        for recipient in mail.recipients:
            if recipient.startswith("hardbounce@"):
                self.bounce(mail, recipient)
            else:
                self.report("Delivery", mail, recipient, Details="Test: 250 OK")

    def _search(self, call: Call) -> Reply:
        wanted = {
            name.removeprefix("metadata_"): values[0] for name, values in call.query.items() if "metadata_" in name
        }
        now = time.monotonic()
        stream = call.argument("messagestream", "outbound")
        found = [
            {
                "MessageID": mail.id,
                "Status": "Sent",
                "Recipients": list(mail.recipients),
                "ReceivedAt": mail.at.isoformat(),
                "Metadata": mail.fields.get("Metadata") or {},
                "MessageStream": stream,
            }
            for mail in self.mails
            if mail.indexed <= now
            and mail.stream == stream
            and wanted.items() <= (mail.fields.get("Metadata") or {}).items()
        ]
        start, count = int(call.argument("offset", "0")), int(call.argument("count", "50"))
        return Reply(200, {"TotalCount": len(found), "Messages": found[start : start + count]})


_TIMES = {
    "Delivery": "DeliveredAt",
    "Open": "ReceivedAt",
    "Click": "ReceivedAt",
    "SubscriptionChange": "ChangedAt",
}
_INACTIVE = (
    "You tried to send to recipient(s) that have been marked as inactive.\nFound inactive addresses: {}.\n"
    "Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."
)


def _error(code: int, text: str) -> dict[str, Any]:
    return {"ErrorCode": code, "Message": text}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
