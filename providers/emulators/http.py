"""The base of every emulated HTTP provider: a server on loopback, scripted faults, a ledger of what was delivered."""

import enum
import json
import random
import socket
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit


class Fault(enum.Enum):
    """What goes wrong with one call. ``ACCEPT_*`` do what was asked before they break; the others do nothing."""

    ACCEPT_THEN_504 = "accept-then-504"
    ACCEPT_THEN_CLOSE = "accept-then-close"
    ACCEPT_THEN_CUT = "accept-then-cut"
    """Half of the answer, then the end of the connection."""
    ACCEPT_THEN_DRIP = "accept-then-drip"
    """The whole answer, a byte at a time."""
    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"
    """No answer until the emulator stops."""
    ERROR_500 = "500"
    ERROR_503 = "503"
    """The provider's own error object."""
    PROXY_503 = "proxy-503"
    """A page of HTML from something in between."""
    THROTTLED = "429"
    UNAUTHORIZED = "401"


_ACCEPTING = {Fault.ACCEPT_THEN_504, Fault.ACCEPT_THEN_CLOSE, Fault.ACCEPT_THEN_CUT, Fault.ACCEPT_THEN_DRIP}
_STATUS = {Fault.ERROR_500: 500, Fault.ERROR_503: 503, Fault.THROTTLED: 429, Fault.UNAUTHORIZED: 401}
_PAGE = b"<html><body>upstream does not answer</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it came. Header names in lower case; ``query`` and ``form`` keep every value of a name."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is empty or no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode(), keep_blank_values=True)

    def argument(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON answer, or bytes as they are with a Content-Type among ``headers``."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook call that the provider owes its customer."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Emulator(ABC):
    """Serves in threads between ``start`` and ``stop``, or as a context manager. Faults drawn from ``seed`` repeat."""

    KNOBS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"retry_after": str}
    """Attributes that may be set from outside (`control`) -> what makes a value of what came as JSON."""

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        self.calls: list[Call] = []
        self.ledger: Counter[str] = Counter()
        """Own reference of a mail -> how often it was delivered. More than once is a mail sent twice."""
        self.hooks: list[Hook] = []
        self.retry_after: str | None = None
        """``Retry-After`` of a 429 or 503."""
        self.met: Counter[Fault] = Counter()
        """How often each fault has been met, scripted or by chance."""
        self.lock = threading.RLock()
        self.stopped = threading.Event()
        self._random = random.Random(seed)  # noqa: S311
        self._script: list[tuple[str, str, Fault]] = []
        self._chances: tuple[str | tuple[str, ...], Mapping[Fault, float]] = ("", {})
        self._server = _Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @abstractmethod
    def answer(self, call: Call) -> Reply:
        """Does what the call asks. Called under `lock`, one call at a time."""

    @abstractmethod
    def error(self, status: int) -> Reply:
        """The provider's own error object for 401, 429, 500, 503."""

    def revoke(self) -> None:  # noqa: B027 -- some ask for none
        """The credentials given out so far are good no longer; the emulator's attributes name new ones."""

    def start(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def fail(self, *faults: Fault, path: str = "", method: str = "") -> None:
        """The next calls of ``method`` whose path ends in ``path`` meet these faults, one each, in order."""
        with self.lock:
            self._script += [(method, path, fault) for fault in faults]

    def fail_at_random(
        self, chances: Mapping[Fault, float], path: str | tuple[str, ...] = "", *, seed: int | None = None
    ) -> None:
        """From now on each call whose path ends in ``path`` (or one of them) meets a fault with its probability.

        seed: of these dice; without one they go on as they were thrown so far.
        """
        with self.lock:
            self._chances = (path, chances)
            if seed is not None:
                self._random = random.Random(seed)  # noqa: S311

    def delivered_once(self, refs: Iterable[str]) -> bool:
        """Whether these mails were delivered exactly once each, and no others were."""
        with self.lock:
            return dict(self.ledger) == dict.fromkeys(refs, 1)

    def calls_to(self, path: str, method: str = "POST") -> list[Call]:
        """The calls so far whose path ends in ``path``."""
        with self.lock:
            return [call for call in self.calls if call.path.endswith(path) and call.method == method]

    def post_hooks(self, url: str, *, twice: bool = False, shuffled: bool = False) -> list[int]:
        """Posts the webhook calls owed so far and returns the statuses. Late by nature: nothing is posted before."""
        with self.lock:
            hooks: Sequence[Hook] = self.hooks * (2 if twice else 1)
            self.hooks = []
            if shuffled:
                hooks = self._random.sample(hooks, len(hooks))
        return [_post(url, hook) for hook in hooks]

    def handle(self, call: Call) -> tuple[Reply, Fault | None]:
        """Answers a call as the script or the dice say. `Reply` is what would be answered without the fault."""
        with self.lock:
            self.calls.append(call)
            fault = self._next_fault(call)
            if fault is not None:
                self.met[fault] += 1
            if fault is None or fault in _ACCEPTING:
                return self.answer(call), fault
            if fault in _STATUS:
                return self._refusal(_STATUS[fault]), None
            return Reply(), fault

    def _refusal(self, status: int) -> Reply:
        reply = self.error(status)
        if status not in (429, 503) or self.retry_after is None:
            return reply
        return Reply(reply.status, reply.body, {**reply.headers, "Retry-After": self.retry_after})

    def _next_fault(self, call: Call) -> Fault | None:
        for index, (method, path, fault) in enumerate(self._script):
            if call.path.endswith(path) and method in ("", call.method):
                del self._script[index]
                return fault
        paths, chances = self._chances
        dice = self._random.random() if chances and call.path.endswith(paths) else 1.0
        for fault, chance in chances.items():
            if dice < chance:
                return fault
            dice -= chance
        return None


def _post(url: str, hook: Hook) -> int:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=10)
    try:
        path = f"{parts.path or '/'}?{parts.query}".rstrip("?")
        connection.request("POST", path, hook.body, {"Content-Type": "application/json", **hook.headers})
        return connection.getresponse().status
    finally:
        connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], emulator: Emulator) -> None:
        self.emulator = emulator
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our errors; anything else is told as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 60

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        call = Call(
            method=self.command,
            path=parts.path,
            query=parse_qs(parts.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        reply, fault = self.server.emulator.handle(call)
        _ENDINGS.get(fault, _Handler._whole)(self, reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _whole(self, reply: Reply) -> None:
        self.connection.sendall(self._bytes(reply))

    def _late_504(self, _: Reply) -> None:
        self._whole(Reply(504, _PAGE, {"Content-Type": "text/html"}))

    def _page_503(self, _: Reply) -> None:
        self._whole(Reply(503, _PAGE, {"Content-Type": "text/html"}))

    def _close(self, _: Reply) -> None:
        self.close_connection = True

    def _reset(self, _: Reply) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # http.server would say goodbye first (shutdown), which turns the reset into a close.
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def _hang(self, _: Reply) -> None:
        self.server.emulator.stopped.wait(60)
        self.close_connection = True

    def _cut(self, reply: Reply) -> None:
        data = self._bytes(reply)
        self.connection.sendall(data[: -max(1, len(data) // 10)])
        self.close_connection = True

    def _drip(self, reply: Reply) -> None:
        for byte in self._bytes(reply):
            self.connection.sendall(bytes([byte]))
            if self.server.emulator.stopped.wait(0.02):
                break

    def _bytes(self, reply: Reply) -> bytes:
        """Head and body in one piece: two writes would wait for each other (Nagle and delayed ACK)."""
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        if reply.body is None:
            body = b""
        head = {
            "Date": self.date_time_string(time.time()),
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(body)),
            **reply.headers,
        }
        lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('Unknown',))[0]}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet: `Emulator.calls` has it all."""


_ENDINGS: dict[Fault | None, Callable[[_Handler, Reply], None]] = {
    Fault.ACCEPT_THEN_504: _Handler._late_504,
    Fault.ACCEPT_THEN_CLOSE: _Handler._close,
    Fault.ACCEPT_THEN_CUT: _Handler._cut,
    Fault.ACCEPT_THEN_DRIP: _Handler._drip,
    Fault.CLOSE: _Handler._close,
    Fault.RESET: _Handler._reset,
    Fault.HANG: _Handler._hang,
    Fault.PROXY_503: _Handler._page_503,
}
