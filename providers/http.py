"""Every HTTP request to a provider is made here: once, only to addresses the guard allows, bounded in time and size.

    raised                                   what is known                            outcome
    NotSent(result=TRANSIENT)                not one byte of the request was written  again later
    NotSent(result=CREDENTIALS)              the root cannot or must not be called    the mailer needs correcting
    NotSent(result=PERMANENT)                the request cannot be written at all     never again
    NoAnswer                                 written, no whole answer came back       uncertain

Nothing is repeated, no redirect is followed, no proxy, cookie or netrc of the environment is used. `Session` is a
`requests.Session`, so client libraries that take one inherit all of it.
"""

import contextlib
import datetime
import email.utils
import http.client
import http.cookiejar
import io
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from providers.base import Account, Failed, Outcome, Result
from providers.guard import Guard, HostNotFound, HostRefused
from providers.http_connection import Exchange, GuardedAdapter, current

MAX_ANSWER_BYTES = 2 * 1024 * 1024
MAX_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds. ``read`` is between two reads, ``total`` from the start of the call to the last byte of the answer."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 50.0


class NotSent(Failed):
    """Not one byte of the request was written: it is safe to repeat, if repeating can help."""

    def __init__(self, detail: str, result: Result = Result.TRANSIENT) -> None:
        super().__init__(Outcome(result=result, detail=detail[:500]))


class NoAnswer(Failed):
    """The request was written, at least in part, and no whole answer came. What became of it is not known."""

    def __init__(self, detail: str) -> None:
        super().__init__(Outcome(result=Result.UNCERTAIN, detail=detail[:500]))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. ``headers`` ignores case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any | None:
        """The body's JSON value, or None if it is not JSON: a proxy's page, a cut answer."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def retry_after(self) -> float | None:
        return retry_after(self.headers)


def meaning(status: int, statuses: Mapping[int, Result], *, own: bool) -> Result:
    """What a status other than success says of the mail that was sent.

    own: the answer has the form of the provider's errors. UNCERTAIN: it leaves open whether the mail was taken.
    """
    if 300 <= status < 400:  # not the provider's API
        return Result.CREDENTIALS
    if status == 503 and not own:  # some proxy's page: the API behind it may have worked
        return Result.UNCERTAIN
    return statuses.get(status, Result.UNCERTAIN)


def fields_of(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON array; none of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds named by ``Retry-After`` (RFC 9110 10.2.3: seconds or a date), at most one hour; None without one."""
    value = {name.lower(): text for name, text in headers.items()}.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a year that no calendar has
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    seconds = (moment - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


_UNSENDABLE: tuple[tuple[tuple[type[Exception], ...], Result], ...] = (
    ((HostRefused,), Result.CREDENTIALS),
    ((requests.exceptions.InvalidHeader, requests.exceptions.InvalidJSONError), Result.PERMANENT),
    (
        (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
            urllib3.exceptions.LocationParseError,
        ),
        Result.CREDENTIALS,
    ),
)
"""What an error before the first byte means, first match; everything else is worth another attempt."""

_FAULTS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    HostRefused,
    HostNotFound,
)


def _translated(error: Exception, exchange: Exchange) -> NotSent | NoAnswer:
    if exchange.expired:
        text = f"no whole answer within {exchange.total:g} s"
    elif isinstance(error, HostRefused | HostNotFound):
        text = str(error)
    else:
        text = _cause(error)
    if exchange.written:
        return NoAnswer(text)
    result = next((result for kinds, result in _UNSENDABLE if isinstance(error, kinds)), Result.TRANSIENT)
    return NotSent(text, result)


def _cause(error: BaseException) -> str:
    """The innermost cause's own words. The outer ones quote the URL, which may hold an address or a token."""
    root, depth = error, 0
    while depth < 10 and (inner := _inner(root)) is not None:
        root, depth = inner, depth + 1
    words = root.strerror if isinstance(root, OSError) and root.strerror else type(root).__name__
    return f"{type(error).__name__}: {words}"


def _inner(error: BaseException) -> BaseException | None:
    """What requests and urllib3 wrapped: as cause, as ``reason``, or as an argument."""
    wrapped = (error.__cause__, getattr(error, "reason", None), *error.args)
    return next((item for item in wrapped if isinstance(item, BaseException)), None)


class Session(requests.Session):
    """A `requests.Session` that keeps the promises of this module. For one thread at a time.

    Every call raises NotSent or NoAnswer and returns a response whose body is already read, at most `MAX_ANSWER_BYTES`
    unless more is asked for.
    Timeouts, redirects and streaming asked for by the caller are overruled.
    """

    def __init__(self, guard: Guard, timeout: Timeout) -> None:
        super().__init__()
        self.guard = guard
        self.timeout = timeout
        self.trust_env = False
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self.mount(scheme, GuardedAdapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect is followed, nor is the body of one read without a bound."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """As `requests.Session.request`; ``max_bytes`` bounds the answer's body instead of MAX_ANSWER_BYTES."""
        max_bytes = kwargs.pop("max_bytes", MAX_ANSWER_BYTES)
        kwargs |= {
            "allow_redirects": False,
            "stream": True,
            "timeout": (self.timeout.connect, self.timeout.read),
        }
        with Exchange(self.guard, self.timeout.total) as exchange:
            token = current.set(exchange)
            try:
                response = super().request(*args, **kwargs)
                response.raw = io.BytesIO(_read(response, max_bytes))
                if exchange.expired:
                    raise TimeoutError  # a body that ends with the connection looks whole when the valve is shut
            except _FAULTS as error:
                raise _translated(error, exchange) from None
            finally:
                current.reset(token)
        return response


def _read(response: requests.Response, max_bytes: int) -> bytes:
    """The whole body, decoded. Raises NoAnswer beyond the bound, a urllib3 error if it is cut."""
    with contextlib.closing(response.raw) as raw:
        body = bytearray()
        for chunk in _chunks(raw):
            body += chunk
            if len(body) > max_bytes:
                raise NoAnswer(f"the answer is larger than {max_bytes} bytes")
        return bytes(body)


def _chunks(raw: Any) -> Iterator[bytes]:
    while chunk := raw.read(64 * 1024, decode_content=True):
        yield chunk


class Api:
    """One HTTP API of one account: a root, a session per thread.

    root: as to be called, overrides already applied (``account.base_url or ROOT``). Plain http is refused for public
    addresses unless the guard names the host.
    """

    def __init__(self, account: Account, root: str, *, timeout: Timeout | None = None) -> None:
        self.root = root.rstrip("/")
        self.timeout = timeout or Timeout()
        self._guard = account.guard
        self._local = threading.local()
        self._sessions: list[Session] = []

    @property
    def session(self) -> Session:
        """This thread's session."""
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = Session(self._guard, self.timeout)
            self._sessions.append(session)
        return session

    def call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: Any = None,
        files: Any = None,
        params: Any = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """One request; ``json``, ``data``, ``files``, ``params`` are those of `requests`. Raises NotSent, NoAnswer."""
        self.check_root()
        response = self.session.request(
            method,
            f"{self.root}/{path.lstrip('/')}",
            headers=dict(headers or {}),
            json=json,
            data=data,
            files=files,
            params=params,
            max_bytes=max_bytes,
        )
        return Answer(status=response.status_code, headers=response.headers, body=response.content)

    def check_root(self) -> None:
        """Raises NotSent for a root that is no plain ``https://host[:port][/path]``."""
        parts = urlsplit(self.root)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NotSent("the root must be a URL that starts with https://", Result.CREDENTIALS)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise NotSent("the root must hold neither user, query nor fragment", Result.CREDENTIALS)

    def close(self) -> None:
        """Closes every thread's connections. Not while calls are under way."""
        while self._sessions:
            self._sessions.pop().close()
        self._local = threading.local()
