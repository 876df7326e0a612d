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
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions

from providers.base import Account, Outcome, Result
from providers.guard import Guard, HostNotFound, HostRefused, is_public

MAX_ANSWER_BYTES = 2 * 1024 * 1024
MAX_RETRY_AFTER = 3600.0
IDLE_SECONDS = 15.0
"""A kept connection idle for longer is not reused: the peer may be closing it just as the request is written."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds. ``read`` is between two reads, ``total`` from the start of the call to the last byte of the answer."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 50.0


class NotSent(Exception):
    """Not one byte of the request was written: it is safe to repeat, if repeating can help (``result``)."""

    def __init__(self, detail: str, result: Result = Result.TRANSIENT) -> None:
        super().__init__(detail)
        self.result = result


class NoAnswer(Exception):
    """The request was written, at least in part, and no whole answer came. What became of it is not known."""

    result = Result.UNCERTAIN


def outcome_of(error: NotSent | NoAnswer) -> Outcome:
    """What a failed call means for the mail it carried."""
    return Outcome(result=error.result, detail=str(error)[:500])


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
        except ValueError:
            return None

    @property
    def retry_after(self) -> float | None:
        return retry_after(self.headers)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds named by ``Retry-After`` (RFC 9110 10.2.3: seconds or a date), at most one hour; None without one."""
    value = {name.lower(): text for name, text in headers.items()}.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    seconds = (moment - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


class _Exchange:
    """One request under way: whether it touched the wire, and a valve that is shut at its deadline."""

    def __init__(self, guard: Guard, total: float) -> None:
        self.guard = guard
        self.total = total
        self.written = False
        self.expired = False
        self._valve: socket.socket | None = None
        self._timer = threading.Timer(total, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> "_Exchange":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._close_valve()

    def watch(self, sock: socket.socket) -> None:
        """Remembers the connection. A duplicate descriptor, since TLS detaches the one it wraps."""
        self._close_valve()
        self._valve = socket.socket(fileno=os.dup(sock.fileno()))
        if self.expired:
            self._expire()

    def _expire(self) -> None:
        self.expired = True
        if self._valve is not None:
            with contextlib.suppress(OSError):
                self._valve.shutdown(socket.SHUT_RDWR)

    def _close_valve(self) -> None:
        if self._valve is not None:
            self._valve.close()


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


def _connect(connection: urllib3.connection.HTTPConnection, scheme: str) -> socket.socket:
    """Connects to an address the guard has checked; name and Host header stay those of the URL."""
    exchange = _exchange.get()
    host, port = connection.host.strip("[]"), connection.port
    addresses = exchange.guard.addresses(host, port)
    if scheme == "http" and host.lower() not in exchange.guard.allowed_hosts:
        _refuse_plain_text(host, addresses)
    failure: OSError | None = None
    for address in addresses:
        try:
            sock = socket.create_connection((address, port), timeout=connection.timeout)
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange.watch(sock)
        return sock
    raise urllib3.exceptions.NewConnectionError(connection, f"cannot connect: {failure}") from failure


def _refuse_plain_text(host: str, addresses: list[str]) -> None:
    if any(is_public(ipaddress.ip_address(address.partition("%")[0])) for address in addresses):
        raise HostRefused(f"{host} must be reached by https")


class _Guarded(urllib3.connection.HTTPConnection):
    """Says when the first byte is written and never writes on a connection that idled too long."""

    scheme = "http"
    _used = 0.0

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.scheme)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        if self.sock is not None:
            _exchange.get().watch(self.sock)
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _exchange.get().written = True
        self._used = time.monotonic()
        super().send(data)


class _GuardedTls(_Guarded, urllib3.connection.HTTPSConnection):
    scheme = "https"


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


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


def _translated(error: Exception, exchange: _Exchange) -> NotSent | NoAnswer:
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

    Every call raises NotSent or NoAnswer and returns a response whose body is already read, at most `MAX_ANSWER_BYTES`.
    Timeouts, redirects and streaming asked for by the caller are overruled.
    """

    def __init__(self, guard: Guard, timeout: Timeout) -> None:
        super().__init__()
        self.guard = guard
        self.timeout = timeout
        self.trust_env = False
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect is followed, nor is the body of one read without a bound."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs |= {
            "allow_redirects": False,
            "stream": True,
            "timeout": (self.timeout.connect, self.timeout.read),
        }
        with _Exchange(self.guard, self.timeout.total) as exchange:
            token = _exchange.set(exchange)
            try:
                response = super().request(*args, **kwargs)
                response.raw = io.BytesIO(_read(response))
                if exchange.expired:
                    raise TimeoutError  # a body that ends with the connection looks whole when the valve is shut
            except _FAULTS as error:
                raise _translated(error, exchange) from None
            finally:
                _exchange.reset(token)
        return response


def _read(response: requests.Response) -> bytes:
    """The whole body, decoded. Raises NoAnswer beyond the bound, a urllib3 error if it is cut."""
    with contextlib.closing(response.raw) as raw:
        body = bytearray()
        for chunk in _chunks(raw):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise NoAnswer(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
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
