"""Postmark (https://postmarkapp.com/developer) through postmarker, in batches of up to 500 mails a call.

Our reference travels as ``Metadata.ref``. Opens and clicks are tracked by postroad, so Postmark's own are off. The
envelope sender is always Postmark's: bounces come back as webhooks. Postmark signs nothing; the webhook URL may carry
``hook_secret`` as password of its HTTP Basic user info, beside the token in our hook URL, which is secret too.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import requests
from postmarker.core import PostmarkClient
from postmarker.exceptions import PostmarkerException

from providers.base import (
    Account,
    Failed,
    Form,
    HookRequest,
    Lookup,
    LookupAnswer,
    OutboundEmail,
    Outcome,
    Provider,
    ProviderEvent,
    Result,
)
from providers.credentials import Credential, Credentials, Kind
from providers.http import Answer, Api, fields_of, objects_in
from providers.postmark_hooks import hook_events
from providers.postmark_message import MAX_BYTES, Unsupported, bytes_of, payload
from providers.postmark_outcomes import call_outcome, mail_outcome

ROOT = "https://api.postmarkapp.com"
MAX_CALL_BYTES = 45 * 1024 * 1024
"""Postmark takes 50 MB a call; JSON escapes and headers need the rest."""
LAST_CALL_SECONDS = 60.0
"""No call starts later than this after ``send`` began, so that the last one ends within ``Postmark.call_seconds``."""

_LIBRARY_FAULTS = (PostmarkerException, requests.RequestException, KeyError, TypeError, ValueError, RecursionError)
"""KeyError and TypeError are how postmarker 1.0 meets an error without ``ErrorCode``, ValueError a 200 without JSON."""


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


class Postmark(Provider):
    name: ClassVar[str] = "postmark"
    credentials: ClassVar[Credentials] = {
        "server_token": Credential(Kind.TOKEN, required=True),
        "message_stream": Credential(Kind.TOKEN),  # without it "outbound"
        "hook_secret": Credential(Kind.SECRET),
    }
    form: ClassVar[Form] = Form.FIELDS
    batch: ClassVar[int] = 500
    group: ClassVar[int] = 500
    confirms_delivery: ClassVar[bool] = True
    max_bytes: ClassVar[int] = MAX_BYTES
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
                outcomes[index] = error.outcome
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
        except Failed as error:
            return [error.outcome] * len(emails)
        if not isinstance(results, list) or len(results) != len(emails):
            return [Outcome(result=Result.UNCERTAIN, detail="the answer does not list every mail")] * len(emails)
        return [mail_outcome(result, email) for result, email in zip(results, emails, strict=True)]

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        """postmarker's call. Raises nothing but Failed."""
        try:
            self._api.check_root()
            return self._client.call(method, path, **arguments)
        except _LIBRARY_FAULTS as error:
            raise Failed(call_outcome(_answer_behind(error))) from error

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        query = {"count": 1, "offset": 0, "metadata_ref": email.ref, "messagestream": self._stream}
        try:
            found = self._call("GET", "messages/outbound", **query)
        except Failed as error:
            return LookupAnswer(answer=Lookup.UNANSWERED, detail=str(error))
        messages = fields_of(found).get("Messages")
        if not isinstance(messages, list):
            return LookupAnswer(answer=Lookup.UNANSWERED, detail="the answer is no list of messages")
        for message in objects_in(messages):
            if fields_of(message.get("Metadata")).get("ref") == email.ref:
                return LookupAnswer(
                    answer=Lookup.ACCEPTED,
                    detail=str(message.get("Status", "")),
                    provider_message_id=message.get("MessageID"),
                )
        return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="no message with this reference")

    def check(self) -> Outcome:
        try:
            self._call("GET", "server")
        except Failed as error:
            return error.outcome
        return Outcome(result=Result.ACCEPTED, detail="Postmark knows the server token")

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        return hook_events(request, self.account.credentials.get("hook_secret"))

    def close(self) -> None:
        self._api.close()


def _calls(payloads: Mapping[int, Mapping[str, Any]]) -> Iterator[list[int]]:
    """Indexes of the mails of each call, within Postmark's limits of number and size."""
    indexes: list[int] = []
    size = 0
    for index, body in payloads.items():
        if indexes and (len(indexes) == Postmark.batch or size + bytes_of(body) > MAX_CALL_BYTES):
            yield indexes
            indexes, size = [], 0
        indexes.append(index)
        size += bytes_of(body)
    if indexes:
        yield indexes


def _answer_behind(error: BaseException) -> Answer | None:
    """The HTTP answer that postmarker turned into this exception."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if response is not None:
            return Answer(status=response.status_code, headers=response.headers, body=response.content)
        cause = cause.__cause__ or cause.__context__
    return None
