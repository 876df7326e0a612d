"""A webhook receiver on the loopback interface that keeps every request and answers as told."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import orjson


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it came in. Header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Answerer(Protocol):
    def __call__(self, handler: BaseHTTPRequestHandler) -> None: ...


def status(code: int, body: bytes = b"ok", **headers: str) -> Answerer:
    """An ordinary answer; underscores in header names stand for dashes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw(chunks: Callable[[], Iterator[bytes]], pause: float = 0.0) -> Answerer:
    """Writes bytes as they are, with a pause after each chunk, until they end or the other side hangs up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        for chunk in chunks():
            handler.wfile.write(chunk)
            handler.wfile.flush()
            time.sleep(pause)

    return answer


@dataclass
class Receiver:
    """``answers`` are used up in order; after them, ``default`` answers."""

    default: Answerer = field(default_factory=lambda: status(200))
    answers: list[Answerer] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [call.id for call in self.calls]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        with self.server.receiver.lock:
            self.server.receiver.connections += 1

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with receiver.lock:
            receiver.calls.append(Call(path=self.path, headers=headers, body=body, at=time.monotonic()))
            answer = receiver.answers.pop(0) if receiver.answers else receiver.default
        answer(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's name
        """Tests print nothing."""


@contextmanager
def receiving(default: Answerer | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A running receiver; with ``tls`` it speaks https."""
    receiver = Receiver() if default is None else Receiver(default=default)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.receiver = receiver
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
