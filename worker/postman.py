"""Posts to URLs that tenants chose: pooled connections, checked addresses, one deadline over everything.

A client of its own because the usual ones have the wrong edges here: they resolve names after any check, their
timeouts start again with every byte, and they read a body to its end. Parsing is httptools', TLS is `ssl`'s.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httptools

from providers.guard import Guard, HostNotFound, HostRefused
from worker.target import Target, UrlRefused, addresses_of, parse_url

BODY_CAP = 2048
"""Bytes of an answer's body that are kept; reading stops there."""
HEAD_CAP = 32 * 1024
"""Bytes that may come before the body starts."""
IDLE_SECONDS = 30.0
"""An unused connection is closed after this long; most servers close theirs after 60 s or more."""
IDLE_CAP = 128
"""Unused connections that one process keeps, all origins together."""
DNS_THREADS = 8


class NoAnswer(Exception):
    """The exchange broke off before an answer was read. The text is fit to be shown to the endpoint's owner."""


class DeadlinePassed(NoAnswer):
    """The exchange took longer than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one POST. ``status`` None: nothing came that could be called an answer, ``error`` says why."""

    status: int | None = None
    error: str | None = None
    timed_out: bool = False
    retry_after: float | None = None
    """Seconds, from the Retry-After header."""
    body: bytes = field(default=b"", repr=False)
    """At most BODY_CAP bytes, for the record."""
    milliseconds: int

    @property
    def accepted(self) -> bool:
        """2xx, nothing else: a redirect is not an acceptance and is never followed."""
        return self.status is not None and 200 <= self.status < 300


class _Deadline:
    """One point in time that the whole exchange has to keep."""

    __slots__ = ("_end", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, always positive. Raises DeadlinePassed."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def passed(self) -> DeadlinePassed:
        return DeadlinePassed(f"no complete answer within {self._seconds:g} s")


class _Reader:
    """Collects one response as httptools reports it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.status: int | None = None
        self.complete = False
        self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= 200:  # 1xx are only announcements
            self.status = status
            self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self.body += data[: BODY_CAP - len(self.body)]

    def on_message_complete(self) -> None:
        self.complete = self.status is not None


class _Connection:
    """A connection to a checked address, kept for the next POST to the same origin."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.used_at = time.monotonic()
        self.reusable = False
        self.touched = False
        """A byte of the current answer came in."""

    def usable(self) -> bool:
        """Nothing is to be read while nothing was asked: readable means closed or broken."""
        if time.monotonic() - self.used_at > IDLE_SECONDS:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def exchange(self, request: bytes, deadline: _Deadline) -> _Reader:
        """Raises OSError (TimeoutError among them), NoAnswer or httptools.HttpParserError."""
        self.reusable = self.touched = False
        self._write(request, deadline)
        reader = self._read(deadline)
        self.reusable = reader.complete and reader.keep_alive
        self.used_at = time.monotonic()
        return reader

    def _write(self, data: bytes, deadline: _Deadline) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(deadline.left())
            rest = rest[self._sock.send(rest) :]

    def _read(self, deadline: _Deadline) -> _Reader:
        reader, size = _Reader(), 0
        while not reader.complete and len(reader.body) < BODY_CAP:
            try:
                self._sock.settimeout(deadline.left())
                data = self._sock.recv(BODY_CAP)
            except (OSError, DeadlinePassed):
                if reader.status is None:
                    raise
                break  # the answer is known; its body is only for the record
            if not data:
                if reader.status is None:
                    raise NoAnswer("the connection was closed before an answer came")
                break
            self.touched = True
            size += len(data)
            if size > HEAD_CAP and reader.status is None:
                raise NoAnswer(f"the answer has more than {HEAD_CAP} bytes of headers")
            reader.parser.feed_data(data)
        return reader

    def close(self) -> None:
        self._sock.close()


class Postman:
    """Posts and reports. Safe to use from several threads; one connection carries one exchange at a time."""

    def __init__(self, guard: Guard, timeout_seconds: float) -> None:
        self._guard = guard
        self._timeout = timeout_seconds
        self._tls = ssl.create_default_context()
        self._idle: dict[tuple[bool, str, int], list[_Connection]] = {}
        self._lock = threading.Lock()
        # getaddrinfo knows no timeout, so it runs where it can be left behind.
        self._resolver = ThreadPoolExecutor(DNS_THREADS, "webhook-dns")

    def post(self, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """One POST, complete in ``timeout_seconds`` from the name lookup to the answer. Never raises for what the
        network or the other side does, and never follows a redirect.

        headers: beside Host and Content-Length, ASCII, checked by nobody: the caller makes them itself.
        A kept connection that turns out to be dead before a byte of the answer came is replaced once.
        """
        started = time.monotonic()
        deadline = _Deadline(self._timeout)
        try:
            target = parse_url(url)
            reader = self._post(target, _request(target, headers, body), deadline)
        except (UrlRefused, HostRefused, HostNotFound, NoAnswer) as error:
            return _unanswered(started, str(error), isinstance(error, DeadlinePassed))
        except TimeoutError:
            return _unanswered(started, str(deadline.passed()), True)
        except httptools.HttpParserError:
            return _unanswered(started, "the answer is not HTTP", False)
        except OSError as error:
            return _unanswered(started, _plain(error), False)
        return Answer(
            status=reader.status,
            retry_after=_retry_after(reader.headers.get(b"retry-after")),
            body=reader.body,
            milliseconds=_milliseconds(started),
        )

    def _post(self, target: Target, request: bytes, deadline: _Deadline) -> _Reader:
        kept = self._kept(target)
        if kept is not None:
            try:
                return self._exchange(kept, target, request, deadline)
            except TimeoutError:
                raise
            except (OSError, NoAnswer):
                if kept.touched:
                    raise
        return self._exchange(self._connect(target, deadline), target, request, deadline)

    def _exchange(self, connection: _Connection, target: Target, request: bytes, deadline: _Deadline) -> _Reader:
        try:
            return connection.exchange(request, deadline)
        finally:
            if connection.reusable:
                self._keep(target, connection)
            else:
                connection.close()

    def _connect(self, target: Target, deadline: _Deadline) -> _Connection:
        addresses = self._resolver.submit(addresses_of, self._guard, target).result(deadline.left())
        failure: OSError | None = None
        for tried, address in enumerate(addresses):
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.settimeout(deadline.left() / (len(addresses) - tried))
                sock.connect((address, target.port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if target.tls:
                    sock.settimeout(deadline.left())
                    sock = self._tls.wrap_socket(sock, server_hostname=target.host)
                return _Connection(sock)
            except (OSError, DeadlinePassed) as error:
                sock.close()
                if isinstance(error, DeadlinePassed):
                    raise
                failure = error
        raise failure or NoAnswer(f"{target.host} has no address")

    def _kept(self, target: Target) -> _Connection | None:
        key = (target.tls, target.host, target.port)
        while True:
            with self._lock:
                stack = self._idle.get(key)
                if not stack:
                    return None
                connection = stack.pop()
                if not stack:
                    del self._idle[key]
            if connection.usable():
                return connection
            connection.close()

    def _keep(self, target: Target, connection: _Connection) -> None:
        with self._lock:
            self._idle.setdefault((target.tls, target.host, target.port), []).append(connection)
            stale = self._surplus()
        for each in stale:
            each.close()

    def _surplus(self) -> list[_Connection]:
        """Takes out the longest unused connections beyond IDLE_CAP."""
        if sum(map(len, self._idle.values())) <= IDLE_CAP:
            return []
        key = min(self._idle, key=lambda each: self._idle[each][0].used_at)
        oldest = self._idle[key].pop(0)
        if not self._idle[key]:
            del self._idle[key]
        return [oldest]

    def close(self) -> None:
        """Closes every kept connection. Exchanges under way finish by themselves."""
        with self._lock:
            kept = [connection for stack in self._idle.values() for connection in stack]
            self._idle.clear()
        for connection in kept:
            connection.close()
        self._resolver.shutdown(wait=False, cancel_futures=True)


def _request(target: Target, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"POST {target.path} HTTP/1.1\r\nhost: {target.authority}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


def _retry_after(value: bytes | None) -> float | None:
    """Seconds from either form of the header (RFC 9110 section 10.2.3); None for nonsense."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _unanswered(started: float, error: str, timed_out: bool) -> Answer:
    return Answer(error=error[:500], timed_out=timed_out, milliseconds=_milliseconds(started))


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _plain(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the TLS certificate is not valid: {error.verify_message}"
    return f"{type(error).__name__}: {error.strerror or error}"
