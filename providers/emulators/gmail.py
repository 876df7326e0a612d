"""The Gmail API and Google's token endpoint on loopback, checked against Google's own discovery document.

One mailbox. Methods: drafts create, get, list, send, delete; messages send, get, list; history list; watch, stop;
sendAs list; getProfile; `/token`, `/revoke` and the consent page `/o/oauth2/v2/auth`, which consents at once. A call
with a parameter or a field that the discovery document does not know, or without a scope it asks for, is refused.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from typing import Any, ClassVar

from providers.emulators.gmail_requests import ApiError, read_call
from providers.emulators.google_oauth import GoogleOAuth
from providers.emulators.google_oidc import OidcIssuer
from providers.emulators.http import Call, Emulator, Hook, Reply

WATCH_SECONDS = 7 * 86400
_AFTER = re.compile(r"after:(\d+)")
REF_HEADER = "X-Postroad-Ref"
STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


@dataclass(slots=True, kw_only=True)
class Message:
    """A mail in the mailbox, as the API shows it."""

    id: str
    thread_id: str
    labels: list[str]
    mime: bytes = field(repr=False)
    history_id: int
    internal_date: int
    """Milliseconds since 1970."""

    def header(self, name: str) -> str | None:
        value = BytesHeaderParser().parsebytes(self.mime)[name]
        return None if value is None else str(value)

    def resource(self, form: str, names: list[str] | None = None) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": self.id,
            "threadId": self.thread_id,
            "labelIds": self.labels,
            "historyId": str(self.history_id),
            "internalDate": str(self.internal_date),
            "sizeEstimate": len(self.mime),
        }
        if form == "raw":
            shown["raw"] = base64.urlsafe_b64encode(self.mime).decode()
        elif form != "minimal":
            wanted = {name.lower() for name in names or []}
            headers = BytesHeaderParser().parsebytes(self.mime).items()
            kept = [{"name": n, "value": str(v)} for n, v in headers if not wanted or n.lower() in wanted]
            shown["payload"] = {"mimeType": "text/plain", "headers": kept}
        return shown


class GmailEmulator(Emulator):
    """Replaces the Message-ID of what it sends, as Gmail does, unless ``keep_message_id``."""

    KNOBS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **Emulator.KNOBS,
        "keep_message_id": bool,
        "oldest_history": int,
    }

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.address = "ann@demo.test"
        self.oauth = GoogleOAuth()
        self.keep_message_id = False
        self.oldest_history = 1
        """History ids before this one are too old to ask for."""
        self.aliases: list[dict[str, Any]] = [
            {"sendAsEmail": self.address, "displayName": "Ann", "isPrimary": True, "isDefault": True}
        ]
        self.messages: dict[str, Message] = {}
        self.topic: str | None = None
        """Where notices of new mail are published, once a watch was asked for."""
        self.oidc: OidcIssuer | None = None
        """Signs what the topic's push subscription posts."""
        self.drafts: dict[str, str] = {}
        """Draft id -> id of its message."""
        self._history = 1

    def revoke(self) -> None:
        self.oauth.revoke()

    def error(self, status: int) -> Reply:
        return _error(ApiError(status, f"emulated error {status}"))

    def answer(self, call: Call) -> Reply:
        if call.path == "/oauth2/v1/certs" and self.oidc is not None:
            return Reply(200, self.oidc.certs)
        reply = self.oauth.answer(call)
        if reply is not None:
            return reply
        try:
            request = read_call(call)
            self._authorize(call, request.scopes)
            if request.method not in self._METHODS:
                raise ApiError(404, f"{request.method} is not emulated")
            body = self._METHODS[request.method](self, call, request.path_values, request.body, request.mime)
        except ApiError as error:
            return _error(error)
        return Reply(204, None) if body is None else Reply(200, body)

    def receive(self, mime: bytes, thread_id: str | None = None) -> Message:
        """A mail arrives in the inbox."""
        with self.lock:
            message = self._store(mime, ["INBOX", "UNREAD"], thread_id)
            if self.topic is not None:
                self.hooks.append(self._notice())
            return message

    def _notice(self) -> Hook:
        """What the push subscription of the topic posts; signed where a service account is configured."""
        notice = {"emailAddress": self.address, "historyId": str(self._history)}
        data = base64.b64encode(json.dumps(notice).encode()).decode()
        message = {"data": data, "messageId": str(self._random.getrandbits(50)), "publishTime": "2026-11-21T10:00:00Z"}
        body = json.dumps({"message": message, "subscription": "projects/demo/subscriptions/postroad"}).encode()
        return Hook(body, {"Authorization": f"Bearer {self.oidc.token()}"} if self.oidc else {})

    def _authorize(self, call: Call, needed: list[str]) -> None:
        scopes = self.oauth.scopes_of(call.headers.get("authorization", "").removeprefix("Bearer "))
        if scopes is None:
            raise ApiError(401, "Request had invalid authentication credentials.")
        if scopes.isdisjoint(needed):
            raise ApiError(403, "Request had insufficient authentication scopes.", "insufficientPermissions")

    def _store(self, mime: bytes, labels: list[str], thread_id: str | None) -> Message:
        self._history += 1
        new = f"{self._random.getrandbits(64):016x}"
        message = Message(
            id=new,
            thread_id=thread_id or new,
            labels=labels,
            mime=mime,
            history_id=self._history,
            internal_date=int(time.time() * 1000),
        )
        self.messages[message.id] = message
        return message

    def _thread(self, resource: Mapping[str, Any]) -> str | None:
        wanted = resource.get("threadId")
        if wanted and all(message.thread_id != wanted for message in self.messages.values()):
            raise ApiError(404, "Requested entity was not found.")
        return wanted

    def _deliver(self, mime: bytes, thread_id: str | None) -> dict[str, Any]:
        headers = BytesHeaderParser().parsebytes(mime)
        if not any(box[1] for box in getaddresses([str(headers[n]) for n in ("To", "Cc", "Bcc") if headers[n]])):
            raise ApiError(400, "Recipient address required")
        if not self.keep_message_id:
            real = f"<CA+{self._random.getrandbits(96):024x}@mail.gmail.com>"
            mime = _with_header(mime, "Message-ID", real)
        message = self._store(_with_header(mime, "Bcc", None), ["SENT"], thread_id)
        self.ledger[message.header(REF_HEADER) or ""] += 1
        return {"id": message.id, "threadId": message.thread_id, "labelIds": message.labels}

    def _send(self, _: Call, __: list[str], body: dict[str, Any], mime: bytes) -> Any:
        return self._deliver(mime, self._thread(body))

    def _create_draft(self, _: Call, __: list[str], body: dict[str, Any], mime: bytes) -> Any:
        message = self._store(mime, ["DRAFT"], self._thread(body.get("message", {})))
        draft_id = f"r-{self._random.getrandbits(60)}"
        self.drafts[draft_id] = message.id
        return self._draft(draft_id, "minimal")

    def _draft(self, draft_id: str, form: str) -> dict[str, Any]:
        if draft_id not in self.drafts:
            raise ApiError(404, "Requested entity was not found.")
        return {"id": draft_id, "message": self.messages[self.drafts[draft_id]].resource(form)}

    def _get_draft(self, call: Call, values: list[str], *_: Any) -> Any:
        return self._draft(values[1], call.argument("format", "full"))

    def _list_drafts(self, call: Call, *_: Any) -> Any:
        found = [self._draft(draft_id, "minimal") for draft_id in reversed(self.drafts)]
        return _page(call, "drafts", [{"id": d["id"], "message": _short(d["message"])} for d in found])

    def _send_draft(self, _: Call, __: list[str], body: dict[str, Any], ___: bytes) -> Any:
        draft_id = body.get("id", "")
        self._draft(draft_id, "minimal")
        draft = self.messages[self.drafts[draft_id]]
        sent = self._deliver(draft.mime, draft.thread_id)
        del self.messages[self.drafts.pop(draft_id)]
        return sent

    def _delete_draft(self, _: Call, values: list[str], *__: Any) -> Any:
        self._draft(values[1], "minimal")
        del self.messages[self.drafts.pop(values[1])]

    def _get_message(self, call: Call, values: list[str], *_: Any) -> Any:
        if values[1] not in self.messages:
            raise ApiError(404, "Requested entity was not found.")
        return self.messages[values[1]].resource(call.argument("format", "full"), call.query.get("metadataHeaders"))

    def _list_messages(self, call: Call, *_: Any) -> Any:
        after = _AFTER.fullmatch(call.argument("q", "after:0"))
        if after is None:
            raise ApiError(403, "this emulator searches by after: alone; list by label")
        wanted, since = set(call.query.get("labelIds", [])), int(after[1]) * 1000
        mine = [m for m in reversed(self.messages.values()) if wanted <= set(m.labels) and m.internal_date >= since]
        found = [_short(m.resource("minimal")) for m in mine]
        return _page(call, "messages", found)

    def _list_history(self, call: Call, *_: Any) -> Any:
        start = int(call.argument("startHistoryId", "0"))
        if start < self.oldest_history:
            raise ApiError(404, "Requested entity was not found.")
        label = call.argument("labelId")
        fresh = [m for m in self.messages.values() if m.history_id > start and (not label or label in m.labels)]
        added = [
            {
                "id": str(m.history_id),
                "messagesAdded": [{"message": _short(m.resource("minimal")) | {"labelIds": m.labels}}],
            }
            for m in fresh
        ]
        page = _page(call, "history", added)
        del page["resultSizeEstimate"]
        return page | {"historyId": str(self._history)}

    def _watch(self, _: Call, __: list[str], body: dict[str, Any], ___: bytes) -> Any:
        if not body.get("topicName"):
            raise ApiError(400, "Invalid topicName")
        self.topic = body["topicName"]
        expires_at = time.time() + WATCH_SECONDS
        return {"historyId": str(self._history), "expiration": str(int(expires_at * 1000))}

    def _stop(self, *_: Any) -> Any:
        self.topic = None

    def _send_as(self, *_: Any) -> Any:
        return {"sendAs": self.aliases}

    def _profile(self, *_: Any) -> Any:
        count = len(self.messages)
        return {
            "emailAddress": self.address,
            "messagesTotal": count,
            "threadsTotal": count,
            "historyId": str(self._history),
        }

    _METHODS: dict[str, Callable[..., Any]] = {  # noqa: RUF012
        "gmail.users.messages.send": _send,
        "gmail.users.messages.get": _get_message,
        "gmail.users.messages.list": _list_messages,
        "gmail.users.drafts.create": _create_draft,
        "gmail.users.drafts.get": _get_draft,
        "gmail.users.drafts.list": _list_drafts,
        "gmail.users.drafts.send": _send_draft,
        "gmail.users.drafts.delete": _delete_draft,
        "gmail.users.history.list": _list_history,
        "gmail.users.watch": _watch,
        "gmail.users.stop": _stop,
        "gmail.users.settings.sendAs.list": _send_as,
        "gmail.users.getProfile": _profile,
    }


def _page(call: Call, name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    start, size = int(call.argument("pageToken", "0")), int(call.argument("maxResults", "100"))
    page: dict[str, Any] = {name: items[start : start + size], "resultSizeEstimate": len(items)}
    if start + size < len(items):
        page["nextPageToken"] = str(start + size)
    return page


def _short(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": resource["id"], "threadId": resource["threadId"]}


def _with_header(mime: bytes, name: str, value: str | None) -> bytes:
    """The mail with a header replaced, or without it."""
    head, blank, body = mime.partition(b"\r\n\r\n")
    field_ = re.compile(rb"^%s:.*\r\n(?:[ \t].*\r\n)*" % name.encode(), re.IGNORECASE | re.MULTILINE)
    line = f"{name}: {value}\r\n".encode() if value else b""
    return line + field_.sub(b"", head + b"\r\n") + blank[2:] + body


def _error(error: ApiError) -> Reply:
    message = str(error)
    return Reply(
        error.status,
        {
            "error": {
                "code": error.status,
                "message": message,
                "status": STATUS_WORDS.get(error.status, "UNKNOWN"),
                "errors": [{"domain": "global", "reason": error.reason, "message": message}],
            }
        },
    )
