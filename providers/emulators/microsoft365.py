"""Microsoft 365 on loopback: the token endpoint of Entra, Graph's drafts, sends, upload sessions and filters.

with Microsoft365Emulator() as microsoft:
    ...  # a mailer with base_url=microsoft.url, auth_url=microsoft.url and microsoft.credentials()
    microsoft.revoke()  # the user took the grant back
    microsoft.receive(b"From: ...")  # subscribers are owed a notification
    microsoft.post_hooks("http://127.0.0.1:8025/v1/hooks/microsoft365/...")
"""

import base64
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from providers.emulators.authorization_codes import AuthorizationCodes
from providers.emulators.graph_inbox import GraphInbox, change_notice
from providers.emulators.http import Call, Emulator, Reply

TENANT = "demo.onmicrosoft.com"
MAX_JSON_BYTES = 4 * 1024 * 1024
MIN_SESSION_BYTES = 3 * 1024 * 1024

_ERRORS = {
    401: ("InvalidAuthenticationToken", "Access token has expired or is not yet valid."),
    429: ("ApplicationThrottled", "Application is over its MailboxConcurrency limit."),
    500: ("ErrorInternalServerError", "An internal server error occurred."),
    503: ("ErrorServerBusy", "The server cannot service this request right now."),
}
_ANY_PROPERTY = re.compile(r"ep/id eq '([^']+)' and ep/value eq '([^']+)'")


@dataclass(slots=True, kw_only=True)
class Mail:
    """A message of the mailbox."""

    id: str
    resource: dict[str, Any]
    """What it was created with."""
    is_draft: bool = True
    sent_at: float = 0.0
    files: list[dict[str, Any]] = field(default_factory=list)
    """``name``, ``isInline``, ``contentId``, ``data`` (bytes) of each attachment."""

    def prop(self, name: str) -> str | None:
        """The value of an extended property, by its id."""
        properties = self.resource.get("singleValueExtendedProperties", ())
        return next((item["value"] for item in properties if item["id"] == name), None)

    @property
    def ref(self) -> str:
        properties = self.resource.get("singleValueExtendedProperties", ())
        return next((str(item["value"]) for item in properties if item["id"].endswith("Ref")), self.id)


class Microsoft365Emulator(Emulator):
    """One mailbox. Sends at once; `sent_lag_seconds` is how long the sent copy stays invisible."""

    KNOBS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **Emulator.KNOBS,
        "sent_lag_seconds": float,
        "rewrite_message_id": bool,
    }

    def __init__(self, *, sent_lag_seconds: float = 0.0, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.client_id, self.client_secret = secrets.token_hex(8), secrets.token_hex(16)
        self.refresh_tokens = [secrets.token_hex(16)]
        """All that work; the last one is the latest."""
        self.access_tokens: set[str] = set()
        self.sent_lag_seconds = sent_lag_seconds
        self.rewrite_message_id = False
        """Exchange puts its own internetMessageId into drafts."""
        self.token_error: Reply | None = None
        """What the token endpoint answers instead of tokens."""
        self.codes = AuthorizationCodes()
        self.mails: dict[str, Mail] = {}
        self.inbox = GraphInbox()
        self._uploads: dict[str, tuple[Mail, dict[str, Any], bytearray]] = {}

    def credentials(self) -> dict[str, str]:
        """What a mailer of this mailbox is given."""
        return {
            "tenant": TENANT,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self.refresh_tokens[-1],
        }

    def expire_tokens(self) -> None:
        """No access token is good any more; refresh tokens are."""
        self.access_tokens.clear()

    def revoke(self) -> None:
        """The grant is taken back and another given: neither kind of token given out so far works."""
        self.access_tokens.clear()
        self.refresh_tokens = [secrets.token_hex(16)]

    def notify(self, client_state: str, message_id: str = "") -> None:
        """A mail came in: a change notification is owed."""
        self.hooks.append(change_notice(client_state, message_id or f"AAMk{secrets.token_hex(8)}"))

    def receive(self, mime: bytes) -> str:
        """A mail arrives in the inbox, and every subscriber is owed a notification. Returns its id."""
        with self.lock:
            mail = self.inbox.receive(mime)
            self.hooks += [change_notice(state, mail, id_) for id_, state in self.inbox.subscribers()]
            return mail

    def error(self, status: int) -> Reply:
        return _error(status, *_ERRORS[status])

    def answer(self, call: Call) -> Reply:
        if call.path == f"/{TENANT}/oauth2/v2.0/token":
            return self._token(call)
        if call.path == f"/{TENANT}/oauth2/v2.0/authorize":
            return self.codes.consent(call)
        if call.path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return self._configuration(call)
        if call.path.startswith("/upload/"):
            return self._put_range(call)
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.access_tokens:
            return self.error(401)
        if len(call.body) > MAX_JSON_BYTES:
            return _error(413, "RequestEntityTooLarge", "The request is larger than 4 MB.")
        if reply := self.inbox.answer(call):
            return reply
        if call.path == "/v1.0/me/mailFolders/drafts":
            return Reply(200, {"id": "drafts"})
        if call.path == "/v1.0/me/messages":
            return self._create(call) if call.method == "POST" else self._filter(call)
        return self._one(call)

    def _token(self, call: Call) -> Reply:
        if self.token_error is not None:
            return self.token_error
        form = {name: values[0] for name, values in call.form.items()}
        basic = base64.b64decode(call.headers.get("authorization", "").partition(" ")[2]).decode()
        given = basic or f"{form.get('client_id')}:{form.get('client_secret')}"
        if given != f"{self.client_id}:{self.client_secret}":
            return oauth_error("invalid_client", 7000215, "Invalid client secret provided.", status=401)
        if not self._granted(form):
            return oauth_error("invalid_grant", 50173, "The provided grant has expired due to it being revoked.")
        access, refresh = secrets.token_hex(16), secrets.token_hex(16)
        self.access_tokens.add(access)
        self.refresh_tokens.append(refresh)
        scope = form.get("scope", "")
        tokens = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3599}
        return Reply(200, {**tokens, "scope": scope})

    def _granted(self, form: dict[str, str]) -> bool:
        if form.get("grant_type") == "authorization_code":
            return self.codes.redeem(form)
        return bool(form.get("refresh_token")) and form["refresh_token"] in self.refresh_tokens

    def _configuration(self, call: Call) -> Reply:
        root = f"https://{call.headers.get('host')}/{TENANT}"
        endpoints = {f"{name}_endpoint": f"{root}/oauth2/v2.0/{name}" for name in ("token", "authorize")}
        return Reply(200, {"issuer": f"{root}/v2.0", "authorization_endpoint": f"{root}/authorize", **endpoints})

    def _create(self, call: Call) -> Reply:
        resource = call.json
        headers = resource.get("internetMessageHeaders", ())
        if len(headers) > 5:
            return _error(400, "InvalidInternetMessageHeaderCollection", "Maximum number of headers is 5.")
        if any(not header["name"].lower().startswith("x-") for header in headers):
            return _error(400, "InvalidInternetMessageHeader", "The header name should start with 'x-' or 'X-'.")
        mail = Mail(id=f"AAkA{secrets.token_hex(12)}", resource=resource)
        own = f"<{secrets.token_hex(8)}@PROD.OUTLOOK.COM>"
        mail.resource["internetMessageId"] = own if self.rewrite_message_id else resource.get("internetMessageId", own)
        mail.files = [_file(item) for item in resource.get("attachments", ())]
        self.mails[mail.id] = mail
        return Reply(201, self._shown(mail))

    def _one(self, call: Call) -> Reply:
        parts = call.path.removeprefix("/v1.0/me/messages/").split("/", 1)
        mail, action = self.mails.get(parts[0]), parts[1] if len(parts) > 1 else ""
        if mail is None or not self._visible(mail):
            return _error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
        match (call.method, action):
            case ("GET", ""):
                return Reply(200, self._shown(mail))
            case ("DELETE", ""):
                del self.mails[mail.id]
                return Reply(204)
            case ("POST", "send"):
                return self._send(mail)
            case ("GET", "attachments"):
                return Reply(200, {"value": [{"id": str(number)} for number in range(len(mail.files))]})
            case ("POST", "attachments"):
                mail.files.append(_file(call.json))
                return Reply(201, {"id": str(len(mail.files) - 1)})
            case ("POST", "attachments/createUploadSession"):
                return self._open_session(mail, call.json["AttachmentItem"])
        return _error(405, "ErrorInvalidRequest", "There is no such operation.")

    def _send(self, mail: Mail) -> Reply:
        if not mail.is_draft:
            return _error(400, "ErrorInvalidRequest", "The message is no draft.")
        boxes = [mail.resource.get(f"{kind}Recipients", ()) for kind in ("to", "cc", "bcc")]
        if not any(boxes):
            return _error(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
        mail.is_draft, mail.sent_at = False, time.time()
        self.ledger[mail.ref] += 1
        return Reply(202, None, {"Retry-After": self.retry_after} if self.retry_after else {})

    def _open_session(self, mail: Mail, item: dict[str, Any]) -> Reply:
        if item["size"] < MIN_SESSION_BYTES:
            return _error(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "The attachment is too small.")
        key = secrets.token_urlsafe(16)
        self._uploads[key] = (mail, item, bytearray())
        return Reply(201, {"uploadUrl": f"{self.url}/upload/session?authtoken={key}", "nextExpectedRanges": ["0-"]})

    def _put_range(self, call: Call) -> Reply:
        upload = self._uploads.get(call.argument("authtoken"))
        if upload is None or "authorization" in call.headers:
            return _error(401, *_ERRORS[401])
        mail, item, data = upload
        start = int(call.headers["content-range"].removeprefix("bytes ").partition("-")[0])
        if start != len(data):
            return _error(416, "InvalidRange", "The range is not the next one.")
        data += call.body
        if len(data) < item["size"]:
            return Reply(200, {"nextExpectedRanges": [f"{len(data)}-"]})
        mail.files.append({**item, "data": bytes(data)})
        return Reply(201)

    def _filter(self, call: Call) -> Reply:
        wanted = _ANY_PROPERTY.search(call.argument("$filter"))
        if wanted is None:
            return _error(400, "ErrorInvalidUrlQueryFilter", "The filter is not understood.")
        found = [mail for mail in self.mails.values() if mail.prop(wanted[1]) == wanted[2] and self._visible(mail)]
        return Reply(200, {"value": [self._shown(mail) for mail in found]})

    def _visible(self, mail: Mail) -> bool:
        return mail.is_draft or time.time() - mail.sent_at >= self.sent_lag_seconds

    def _shown(self, mail: Mail) -> dict[str, Any]:
        message_id = mail.resource["internetMessageId"]
        return {"id": mail.id, "isDraft": mail.is_draft, "internetMessageId": message_id, "conversationId": "c-1"}


def _file(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "data": base64.b64decode(item["contentBytes"])}


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"error": {"code": code, "message": message, "innerError": {"date": "2026-11-21T10:00:00"}}})


def oauth_error(error: str, code: int, description: str, *, status: int = 400) -> Reply:
    """A refusal of the token endpoint."""
    text = f"AADSTS{code}: {description}"
    return Reply(status, {"error": error, "error_description": text, "error_codes": [code], "suberror": ""})
