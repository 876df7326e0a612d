"""The Google API client over our own HTTP: one request per call, and each answer's meaning.

google-api-python-client brings httplib2, which repeats a POST when the peer closes without an answer, even with
``num_retries=0``, and is not thread safe. Given an ``http`` object of ours it does neither.
"""

import base64
import contextlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import httplib2
from google.auth.exceptions import GoogleAuthError
from googleapiclient import discovery
from googleapiclient.errors import Error, HttpError
from googleapiclient.http import HttpRequest

from providers.base import Account, Failed, Outcome, Result
from providers.http import (
    MAX_ANSWER_BYTES,
    Api,
    NoAnswer,
    NotSent,
    Timeout,
    fields_of,
    meaning,
    objects_in,
    retry_after,
)
from providers.oauth import AccessTokens
from providers.tokens import TokenError

ROOT = "https://gmail.googleapis.com"
TIMEOUT = Timeout(connect=5.0, read=20.0, total=25.0)
INLINE_BYTES = 4 * 1024 * 1024
"""Larger mails use the upload path, which takes 36 700 160 bytes; a JSON body takes about 5 MB."""
DAY_SECONDS = 86400.0

_REASONS: dict[str, Result] = {
    "rateLimitExceeded": Result.THROTTLED,
    "userRateLimitExceeded": Result.THROTTLED,
    "quotaExceeded": Result.THROTTLED,
    "dailyLimitExceeded": Result.THROTTLED,
    "RATE_LIMIT_EXCEEDED": Result.THROTTLED,
    "authError": Result.CREDENTIALS,
    "insufficientPermissions": Result.CREDENTIALS,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": Result.CREDENTIALS,
    "failedPrecondition": Result.CREDENTIALS,  # mail is not enabled for this account
    "domainPolicy": Result.CREDENTIALS,
    "accessNotConfigured": Result.CREDENTIALS,
    "invalidArgument": Result.PERMANENT,
    "badRequest": Result.PERMANENT,
    "notFound": Result.PERMANENT,
}
"""``reason`` of an error -> result, with a status below 500."""
_STATUSES: dict[int, Result] = {
    400: Result.PERMANENT,
    401: Result.CREDENTIALS,
    403: Result.CREDENTIALS,
    404: Result.PERMANENT,
    405: Result.CREDENTIALS,
    413: Result.PERMANENT,
    429: Result.THROTTLED,
}
"""HTTP status -> result, where no reason says more. What is not here tells nothing about the mail."""
_SCOPE_REASONS = {"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
_RETRY_AFTER = re.compile(r"Retry after (\d{4}-\d\d-\d\dT[\d:.]+Z)", re.IGNORECASE)
_LIBRARY_FAULTS = (
    Error,
    GoogleAuthError,
    httplib2.HttpLib2Error,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""The last five are how the library meets an answer that is no JSON, or JSON of another shape."""


class CallFailed(Failed):
    """No result. ``status`` is that of the answer, 0 without one; ``scope``: the scopes do not allow it."""

    def __init__(self, outcome: Outcome, *, status: int = 0, scope: bool = False) -> None:
        super().__init__(outcome)
        self.status = status
        self.scope = scope


class _SingleShot:
    """What the library takes for httplib2: one request of our session per call."""

    def __init__(self, api: Api, token: str, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._api = api
        self._token = token
        self._max_bytes = max_bytes

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> tuple[httplib2.Response, bytes]:
        self._api.check_root()
        given = {**(headers or {}), "authorization": f"Bearer {self._token}"}
        answer = self._api.session.request(method, uri, data=body, headers=given, max_bytes=self._max_bytes)
        info = {name.lower(): value for name, value in answer.headers.items()} | {"status": str(answer.status_code)}
        response = httplib2.Response(info)
        response.reason = answer.reason
        return response, answer.content


class GmailService:
    """Gmail's methods for one account (``me``)."""

    def __init__(self, account: Account) -> None:
        self.api = Api(account, account.base_url or ROOT, timeout=TIMEOUT)
        self.tokens = AccessTokens(account, "google")
        self._service = discovery.build(
            "gmail",
            "v1",
            http=_SingleShot(self.api, ""),
            static_discovery=True,
            cache_discovery=False,
            client_options={"api_endpoint": f"{self.api.root}/"},
        )

    # The library makes the methods of a resource anew whenever it is asked for it, which takes longer than to use one.

    @cached_property
    def users(self) -> Any:
        return self._service.users()

    @cached_property
    def drafts(self) -> Any:
        return self.users.drafts()

    @cached_property
    def messages(self) -> Any:
        return self.users.messages()

    def call(self, request: HttpRequest, *, max_bytes: int = MAX_ANSWER_BYTES) -> dict[str, Any]:
        """Runs a request of the library, whose answer is of up to ``max_bytes``. Raises CallFailed.

        A 401 is an answer to the token, not to the mail: the token is renewed once and the request made again.
        """
        try:
            token = self.tokens.get().access_token
            try:
                return self._run(request, token, max_bytes)
            except CallFailed as error:
                if error.status != 401:
                    raise
            return self._run(request, self.tokens.get(stale=token).access_token, max_bytes)
        except TokenError as error:
            raise CallFailed(error.outcome) from error

    def _run(self, request: HttpRequest, token: str, max_bytes: int) -> dict[str, Any]:
        try:
            result = request.execute(http=_SingleShot(self.api, token, max_bytes))
        except (NotSent, NoAnswer) as error:
            raise CallFailed(error.outcome) from error
        except HttpError as error:
            raise _failure(error) from error
        except _LIBRARY_FAULTS as error:
            raise CallFailed(_strange(f"the answer is not Gmail's: {type(error).__name__}")) from error
        # DELETE answers with an empty body, which the library returns as a string.
        if isinstance(result, dict) or result == "":
            return result or {}
        raise CallFailed(_strange("the answer is no JSON object"))

    def with_mail(
        self,
        method: Callable[..., HttpRequest],
        mime: bytes,
        thread_id: str | None,
        wrap: Callable[[dict[str, str]], Any],
    ) -> HttpRequest:
        """A request that carries a mail: in its JSON, or by the upload path where it is too large for that.

        wrap: puts a Message resource where the method wants it.
        """
        message = {"threadId": thread_id} if thread_id else {}
        if len(mime) <= INLINE_BYTES:
            return method(userId="me", body=wrap({"raw": base64.urlsafe_b64encode(mime).decode(), **message}))
        # The library's own multipart goes through email.generator, which rewrites mails.
        request = method(userId="me", body=wrap(message))
        boundary = secrets.token_hex(16)
        request.body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps(wrap(message)).encode(),
                f"\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n".encode(),
                mime,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        request.uri = request.uri.replace("/gmail/v1/", "/upload/gmail/v1/", 1) + "&uploadType=multipart"
        request.headers["content-type"] = f'multipart/related; boundary="{boundary}"'
        request.headers["content-length"] = str(len(request.body))
        return request

    def close(self) -> None:
        self.api.close()
        self.tokens.close()


def id_of(resource: Mapping[str, Any]) -> str:
    """The id of what was just made. Raises CallFailed for an answer that names none."""
    if not resource.get("id"):
        raise CallFailed(_strange("the answer names no id"))
    return str(resource["id"])


def _strange(detail: str) -> Outcome:
    return Outcome(result=Result.UNCERTAIN, detail=detail)


def _failure(error: HttpError) -> CallFailed:
    status = int(getattr(error.resp, "status", 0))  # a BatchError may have no answer behind it
    body = _error_object(error.content or b"")
    reasons = _reasons(body)
    result = meaning(status, _STATUSES, own=bool(body))
    if status < 500:
        result = next((_REASONS[reason] for reason in reasons if reason in _REASONS), result)
    text = str(body.get("message") or f"HTTP {status} without an error object")
    outcome = Outcome(
        result=result,
        detail=text[:500],
        code="/".join([str(status), *reasons[:1]]),
        retry_after=_wait(text, error.resp, reasons) if result is Result.THROTTLED else None,
    )
    return CallFailed(outcome, status=status, scope=not _SCOPE_REASONS.isdisjoint(reasons))


def _error_object(content: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return fields_of(fields_of(body).get("error"))


def _reasons(error: Mapping[str, Any]) -> list[str]:
    """The machine-readable reasons, of the older ``errors`` and the newer ``details``."""
    items = [*objects_in(error.get("errors")), *objects_in(error.get("details"))]
    return [str(item["reason"]) for item in items if item.get("reason")]


def _wait(text: str, headers: Mapping[str, str], reasons: list[str]) -> float | None:
    """Seconds until Gmail takes mail again: of the header, or of the text, which names a moment up to a day ahead."""
    match = _RETRY_AFTER.search(text)
    if match:
        with contextlib.suppress(ValueError):  # a date that no calendar has
            seconds = (datetime.fromisoformat(match.group(1)) - datetime.now(UTC)).total_seconds()
            return min(max(seconds, 0.0), DAY_SECONDS)
    told = retry_after(headers)
    return 3600.0 if told is None and "dailyLimitExceeded" in reasons else told
