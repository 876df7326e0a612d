"""Postmark (https://postmarkapp.com/developer) through postmarker, in batches of up to 500 mails a call.

Credentials: ``server_token``; optional ``message_stream`` (default ``outbound``) and ``hook_secret``, the password of
the HTTP Basic user info in the webhook URL (Postmark signs nothing; the token in our hook URL is a secret of its own).
Our reference travels as ``Metadata.ref``. Opens and clicks are tracked by postroad, so Postmark's own are off. The
envelope sender is always Postmark's: bounces come back as webhooks.
"""

import base64
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import idna
import requests
from postmarker.core import PostmarkClient
from postmarker.exceptions import PostmarkerException

from providers.base import (
    Account,
    File,
    Form,
    HookRequest,
    Lookup,
    LookupAnswer,
    Mailbox,
    OutboundEmail,
    Outcome,
    Provider,
    ProviderEvent,
    Result,
)
from providers.credentials import Credential, Credentials, Kind
from providers.http import Api, NoAnswer, NotSent, outcome_of, retry_after
from providers.postmark_hooks import hook_events

ROOT = "https://api.postmarkapp.com"
MAX_CALL_BYTES = 45 * 1024 * 1024
"""Postmark takes 50 MB a call; JSON escapes and headers need the rest."""
LAST_CALL_SECONDS = 60.0
"""No call starts later than this after ``send`` began, so that the last one ends within ``Postmark.call_seconds``."""

_CODES: dict[int, Result] = {
    10: Result.CREDENTIALS,
    100: Result.TRANSIENT,  # maintenance
    405: Result.CREDENTIALS,  # out of credits, or the stream may not send this
    412: Result.CREDENTIALS,  # account awaits approval
    413: Result.CREDENTIALS,  # account may not send
    429: Result.THROTTLED,
}
"""``ErrorCode`` -> result. Every other code speaks of this mail alone, an unconfirmed From (400, 401) included."""

_STATUSES: dict[int, Result] = {
    301: Result.CREDENTIALS,  # not Postmark's API
    302: Result.CREDENTIALS,
    307: Result.CREDENTIALS,
    308: Result.CREDENTIALS,
    400: Result.PERMANENT,
    401: Result.CREDENTIALS,
    403: Result.CREDENTIALS,  # blocked before the API: an HTML page
    404: Result.CREDENTIALS,
    405: Result.CREDENTIALS,
    413: Result.PERMANENT,
    415: Result.PERMANENT,
    422: Result.PERMANENT,
    429: Result.THROTTLED,
}
"""HTTP status -> result, where no ``ErrorCode`` says more. What is not here tells nothing about the mail."""

_LIBRARY_FAULTS = (PostmarkerException, requests.RequestException, KeyError, TypeError, ValueError, RecursionError)
"""KeyError and TypeError are how postmarker 1.0 meets an error without ``ErrorCode``, ValueError a 200 without JSON."""
_INACTIVE = re.compile(r"inactive addresses:\s*([^\n]+)", re.IGNORECASE)


class Unsupported(Exception):
    """Postmark cannot express this; says what."""


class _Client(PostmarkClient):  # type: ignore[misc]
    """postmarker over our session: its own has no timeout, and its repr shows the token."""

    def __init__(self, api: Api, token: str) -> None:
        super().__init__(server_token=token, root_api_url=f"{api.root}/", timeout=api.timeout.total)
        self._api = api

    @property
    def session(self) -> requests.Session:
        return self._api.session

    def check_response(self, response: requests.Response) -> None:
        """A redirect is an answer that we do not follow; postmarker would read it as a success."""
        if response.is_redirect:
            raise requests.HTTPError("redirected", response=response)
        super().check_response(response)

    def __repr__(self) -> str:
        return "<PostmarkClient>"


class _Refused(Exception):
    """Postmark, or something before it, answered with an error. Carries what that means for the mails of the call."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Postmark(Provider):
    name: ClassVar[str] = "postmark"
    credentials: ClassVar[Credentials] = {
        "server_token": Credential(Kind.TOKEN, required=True),
        "message_stream": Credential(Kind.TOKEN),
        "hook_secret": Credential(Kind.SECRET),
    }
    form: ClassVar[Form] = Form.FIELDS
    batch: ClassVar[int] = 500
    group: ClassVar[int] = 500
    confirms_delivery: ClassVar[bool] = True
    max_bytes: ClassVar[int] = 10 * 1024 * 1024
    settle_seconds: ClassVar[float] = 60.0
    call_seconds: ClassVar[float] = 120.0

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._api = Api(account, account.base_url or ROOT)
        self._client = _Client(self._api, str(account.credentials.get("server_token") or "missing"))
        self._stream = str(account.credentials.get("message_stream") or "outbound")

    def send(self, emails: Sequence[OutboundEmail]) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        payloads: dict[int, dict[str, Any]] = {}
        for index, email in enumerate(emails):
            try:
                payloads[index] = payload(email, self._stream)
            except Unsupported as error:
                outcomes[index] = Outcome(result=Result.PERMANENT, detail=str(error))
        started = time.monotonic()
        for indexes in _calls(payloads):
            if time.monotonic() - started > LAST_CALL_SECONDS:
                late = Outcome(result=Result.TRANSIENT, detail="not attempted: the calls before it took too long")
                outcomes |= dict.fromkeys(indexes, late)
                continue
            answers = self._send([payloads[index] for index in indexes], [emails[index] for index in indexes])
            outcomes |= zip(indexes, answers, strict=True)
        return [outcomes[index] for index in range(len(emails))]

    def _send(self, payloads: list[dict[str, Any]], emails: list[OutboundEmail]) -> list[Outcome]:
        try:
            results = self._call("POST", "email/batch", data=payloads)
        except _Refused as error:
            return [error.outcome] * len(emails)
        if not isinstance(results, list) or len(results) != len(emails):
            return [Outcome(result=Result.UNCERTAIN, detail="the answer does not list every mail")] * len(emails)
        return [_item_outcome(result, email) for result, email in zip(results, emails, strict=True)]

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        """postmarker's call. Raises nothing but _Refused."""
        try:
            self._api.check_root()
            return self._client.call(method, path, **arguments)
        except (NotSent, NoAnswer) as error:
            raise _Refused(outcome_of(error)) from error
        except _LIBRARY_FAULTS as error:
            raise _Refused(_error_outcome(_response_behind(error))) from error

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        query = {"count": 1, "offset": 0, "metadata_ref": email.ref, "messagestream": self._stream}
        try:
            found = self._call("GET", "messages/outbound", **query)
        except _Refused as error:
            return LookupAnswer(answer=Lookup.UNANSWERED, detail=str(error))
        messages = found.get("Messages") if isinstance(found, dict) else None
        if not isinstance(messages, list):
            return LookupAnswer(answer=Lookup.UNANSWERED, detail="the answer is no list of messages")
        for message in messages:
            if isinstance(message, dict) and _ref(message) == email.ref:
                return LookupAnswer(
                    answer=Lookup.ACCEPTED,
                    detail=str(message.get("Status", "")),
                    provider_message_id=message.get("MessageID"),
                )
        return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="no message with this reference")

    def check(self) -> Outcome:
        try:
            self._call("GET", "server")
        except _Refused as error:
            return error.outcome
        return Outcome(result=Result.ACCEPTED, detail="Postmark knows the server token")

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        return hook_events(request, self.account.credentials.get("hook_secret"))

    def close(self) -> None:
        self._api.close()


def payload(email: OutboundEmail, stream: str) -> dict[str, Any]:
    """The mail as Postmark's JSON. Raises Unsupported for what it cannot carry."""
    fields = email.fields
    if fields is None:
        raise Unsupported("postmark needs the mail as fields")
    if email.ip_pool:
        raise Unsupported("postmark has no IP pools; leave ip_pool out or use a message stream")
    to, cc, bcc = _still_to_be_served(email)
    body = {
        "From": _address(fields.sender),
        "To": _addresses(to),
        "Cc": _addresses(cc),
        "Bcc": _addresses(bcc),
        "ReplyTo": _addresses(fields.reply_to),
        "Subject": fields.subject,
        "HtmlBody": fields.html,
        "TextBody": fields.text,
        "Headers": [
            *({"Name": name, "Value": value} for name, value in fields.headers.items()),
            {"Name": "Message-ID", "Value": email.rfc_message_id},
            {"Name": "X-PM-KeepID", "Value": "true"},
        ],
        "Attachments": [_attachment(file) for file in fields.files],
        "Metadata": {"ref": email.ref},
        "MessageStream": stream,
        "TrackOpens": False,
        "TrackLinks": "None",
    }
    body = {name: value for name, value in body.items() if value is not None and value not in ("", [])}
    if _size(body) > Postmark.max_bytes:
        raise Unsupported(f"postmark takes mails of up to {Postmark.max_bytes} bytes, encoded attachments included")
    return body


def _still_to_be_served(email: OutboundEmail) -> list[tuple[Mailbox, ...]]:
    """To, Cc and Bcc without those already served, for Postmark sends to whom these name; the rest of them is blind."""
    assert email.fields is not None  # noqa: S101
    wanted = {address.casefold(): address for address in email.recipients}
    groups = []
    for group in (email.fields.to, email.fields.cc, email.fields.bcc):
        groups.append(tuple(box for box in group if wanted.pop(box.email.casefold(), None) is not None))
    groups[2] += tuple(Mailbox(email=address) for address in wanted.values())
    return groups


def _address(box: Mailbox) -> str:
    local, _, domain = box.email.rpartition("@")
    if not local.isascii():
        raise Unsupported("postmark takes no address with characters beyond ASCII before the @")
    try:
        ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise Unsupported("the domain of an address has no ASCII form") from error
    address = f"{local}@{ascii_domain}"
    if not box.name:
        return address
    name = box.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{address}>'


def _addresses(boxes: Sequence[Mailbox]) -> str:
    return ", ".join(_address(box) for box in boxes)


def _attachment(file: File) -> dict[str, str]:
    if file.inline and not file.content_id:
        raise Unsupported(f"postmark shows {file.filename} inline only with a content id")
    encoded = {
        "Name": file.filename,
        "Content": base64.b64encode(file.data).decode(),
        "ContentType": file.content_type,
    }
    return encoded | ({"ContentID": f"cid:{file.content_id}"} if file.content_id else {})


def _size(body: Mapping[str, Any]) -> int:
    texts = sum(len(body.get(name) or "") for name in ("Subject", "HtmlBody", "TextBody"))
    return texts + sum(len(file["Content"]) for file in body.get("Attachments", ()))


def _calls(payloads: Mapping[int, Mapping[str, Any]]) -> Iterator[list[int]]:
    """Indexes of the mails of each call, within Postmark's limits of number and size."""
    indexes: list[int] = []
    size = 0
    for index, body in payloads.items():
        if indexes and (len(indexes) == Postmark.batch or size + _size(body) > MAX_CALL_BYTES):
            yield indexes
            indexes, size = [], 0
        indexes.append(index)
        size += _size(body)
    if indexes:
        yield indexes


def _item_outcome(result: Any, email: OutboundEmail) -> Outcome:
    """One item of a batch answer. "Accepted, but may be delayed" comes without an ``ErrorCode``."""
    if not isinstance(result, dict) or not ("ErrorCode" in result or "MessageID" in result):
        return Outcome(result=Result.UNCERTAIN, detail="the answer for this mail is no result")
    code, text = _code(result), str(result.get("Message", ""))[:500]
    if code:
        return Outcome(result=_CODES.get(code, Result.PERMANENT), detail=text, code=f"422/{code}")
    refusal = Outcome(result=Result.PERMANENT, detail="inactive: bounced or complained before", code="406")
    return Outcome(
        result=Result.ACCEPTED,
        detail=text,
        provider_message_id=result.get("MessageID"),
        recipients=dict.fromkeys(_inactive(text, email.recipients), refusal),
    )


def _ref(message: Mapping[str, Any]) -> Any:
    """Our reference of a message that the search found."""
    metadata = message.get("Metadata")
    return metadata.get("ref") if isinstance(metadata, dict) else None


def _code(body: Mapping[str, Any]) -> int:
    """Postmark's ``ErrorCode``; 0 where there is none."""
    code = body.get("ErrorCode")
    return code if isinstance(code, int) else 0


def _inactive(text: str, recipients: Sequence[str]) -> list[str]:
    """Recipients that an acceptance nevertheless names as suppressed."""
    match = _INACTIVE.search(text)
    named = {part.strip(" .").casefold() for part in match.group(1).split(",")} if match else set()
    return [address for address in recipients if address.casefold() in named]


def _response_behind(error: BaseException) -> requests.Response | None:
    """The HTTP answer that postmarker turned into this exception."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if response is not None:
            return response  # type: ignore[no-any-return]
        cause = cause.__cause__ or cause.__context__
    return None


def _error_outcome(response: requests.Response | None) -> Outcome:
    if response is None:
        return Outcome(result=Result.UNCERTAIN, detail="the answer is not what Postmark's API answers")
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    known = body if isinstance(body, dict) else {}
    code = _code(known)
    status = response.status_code
    result = _STATUSES.get(status, Result.UNCERTAIN)
    if status == 503 and known:
        result = Result.TRANSIENT
    elif status in {401, 422}:
        result = _CODES.get(code, result)
    return Outcome(
        result=result,
        detail=str(known.get("Message") or f"HTTP {status} without an error object")[:500],
        code=f"{status}/{code}" if code else str(status),
        retry_after=retry_after(response.headers),
    )
