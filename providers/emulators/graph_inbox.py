"""The readable side of an emulated Microsoft 365 mailbox: its inbox, and subscriptions to it."""

import http.client
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from providers.emulators.http import Call, Hook, Reply

LONGEST_LIFE = timedelta(minutes=4230)
_SINCE = re.compile(r"receivedDateTime ge (\S+)")
_MAIL = re.compile(r"/v1\.0/me/messages/([^/]+)(/\$value)?")


class GraphInbox:
    """Answers None to a call that is for somebody else. A subscription is made only if its URL echoes the token."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.mails: dict[str, tuple[datetime, bytes]] = {}

    def receive(self, mime: bytes) -> str:
        id_ = f"AAkI{secrets.token_hex(12)}="
        self.mails[id_] = (datetime.now(UTC), mime)
        return id_

    def subscribers(self) -> list[tuple[str, str]]:
        """Id and clientState of each subscription that lives."""
        now = datetime.now(UTC)
        alive = [s for s in self.subscriptions.values() if datetime.fromisoformat(s["expirationDateTime"]) > now]
        return [(s["id"], s["clientState"]) for s in alive]

    def answer(self, call: Call) -> Reply | None:
        if call.path == "/v1.0/subscriptions":
            return self._subscribe(call)
        if call.path.startswith("/v1.0/subscriptions/"):
            return self._change(call)
        if unquote(call.path) == "/v1.0/me/mailFolders('inbox')/messages":
            return self._list(call)
        found = _MAIL.fullmatch(call.path)
        known = self.mails.get(unquote(found[1])) if found else None
        if found is None or known is None:
            return None
        if found[2]:
            return Reply(200, known[1], {"Content-Type": "text/plain"})
        return Reply(200, {"id": unquote(found[1]), "isDraft": False, "conversationId": "c-1"})

    def _subscribe(self, call: Call) -> Reply:
        wanted = call.json
        if _life(wanted) > LONGEST_LIFE or 'IdType="ImmutableId"' not in call.headers.get("prefer", ""):
            return _refusal("The subscription lives too long, or its ids are not immutable.")
        if not all(_echoes(wanted[name]) for name in ("notificationUrl", "lifecycleNotificationUrl")):
            return _refusal("Subscription validation request failed. Must respond with 200 OK to this request.")
        made = {**wanted, "id": secrets.token_hex(8)}
        self.subscriptions[made["id"]] = made
        return Reply(201, {name: value for name, value in made.items() if name != "clientState"})

    def _change(self, call: Call) -> Reply:
        found = self.subscriptions.get(call.path.rpartition("/")[2])
        if found is None:
            return Reply(404, {"error": {"code": "ResourceNotFound", "message": "The object was not found."}})
        if call.method == "DELETE":
            del self.subscriptions[found["id"]]
            return Reply(204)
        found |= call.json
        return Reply(200, found)

    def _list(self, call: Call) -> Reply:
        since = _SINCE.fullmatch(call.argument("$filter"))
        if since is None:
            return _refusal("The filter is not understood.")
        start, size = int(call.argument("$skip", "0")), int(call.argument("$top", "10"))
        mails = [(at, id_) for id_, (at, _) in self.mails.items() if at >= datetime.fromisoformat(since[1])]
        page = sorted(mails)[start : start + size]
        return Reply(200, {"value": [{"id": id_, "receivedDateTime": at.isoformat()} for at, id_ in page]})


def change_notice(client_state: str, message_id: str, subscription: str = "s-1") -> Hook:
    """The call that tells of a mail."""
    notice = {
        "subscriptionId": subscription,
        "clientState": client_state,
        "changeType": "created",
        "resource": f"Users/u-1/Messages/{message_id}",
        "resourceData": {"@odata.type": "#Microsoft.Graph.Message", "id": message_id},
    }
    return Hook(json.dumps({"value": [notice]}).encode())


def lifecycle_notice(client_state: str, event: str, subscription: str = "s-1") -> Hook:
    """The call that tells of the subscription itself: ``missed``, ``subscriptionRemoved``, ..."""
    notice = {"subscriptionId": subscription, "clientState": client_state, "lifecycleEvent": event}
    return Hook(json.dumps({"value": [notice]}).encode())


def _life(wanted: dict[str, Any]) -> timedelta:
    return datetime.fromisoformat(wanted["expirationDateTime"]) - datetime.now(UTC)


def _echoes(url: str) -> bool:
    """Whether the URL answers the validation token as plain text, unescaped."""
    parts, token = urlsplit(url), f"Validation: {secrets.token_hex(8)} <&>"
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("POST", f"{parts.path}?validationToken={quote(token)}")
        answer = connection.getresponse()
        plain = answer.headers.get_content_type() == "text/plain"
        return answer.status == 200 and plain and answer.read().decode() == token
    except OSError:
        return False
    finally:
        connection.close()


def _refusal(message: str) -> Reply:
    return Reply(400, {"error": {"code": "InvalidRequest", "message": message}})
