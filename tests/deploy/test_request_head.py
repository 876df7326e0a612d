"""A server that reads no more of a request's head than it can use."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from deploy import request_head
from deploy.request_head import MAX_BYTES, BoundedHead


async def _length(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how long the body was."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where it listens."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(_length, http=BoundedHead, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(60)
    listening.close()


def _answer(port: int, *pieces: bytes) -> bytes:
    """What comes back, and the end of the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
        while read := connection.recv(65536):
            received += read
    return received


def _post(size: int, *headers: str) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: a", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * size


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: "


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: a\r\nX-Big: ", b"GET /", CHUNKED])
def test_a_head_or_trailer_without_an_end_is_cut_off(port: int, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(start)
        with pytest.raises(ConnectionError):
            connection.sendall(b"a" * 1000 * MAX_BYTES)


def test_the_answer_to_a_head_too_large_says_so(port: int) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX-Big: " + b"a" * MAX_BYTES
    assert _answer(port, start).startswith(b"HTTP/1.1 431 ")


def test_a_second_request_on_a_connection_is_bounded_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(_post(5))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nX-Big: " + b"a" * 1000 * MAX_BYTES)


def test_bodies_and_many_requests_do_not_count_as_a_head(port: int) -> None:
    large = _answer(port, _post(40 * MAX_BYTES), _post(5, "X-Some: " + "a" * 10_000, "Connection: close"))
    assert large.count(b"HTTP/1.1 200 ") == 2
    many = _answer(port, *[_post(1000)] * 200, _post(5, "Connection: close"))
    assert many.count(b"HTTP/1.1 200 ") == 201


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_head, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(request_head, "BODY_SECONDS", 0.8)
    monkeypatch.setattr(request_head, "LOOK_SECONDS", 0.05)


def _drip(port: int, start: bytes, byte: bytes) -> tuple[bytes, float]:
    """Sends a byte now and then, for ever; what comes back, and after how many seconds the connection ended."""
    began, received = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as connection, suppress(ConnectionError):
        connection.sendall(start)
        while time.monotonic() - began < 20:
            try:
                read = connection.recv(65536)
            except TimeoutError:
                connection.sendall(byte)
                continue
            if not read:
                break
            received += read
    return received, time.monotonic() - began


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_head_that_comes_drop_by_drop_is_ended(port: int, hurried: None, start: bytes) -> None:
    received, seconds = _drip(port, start, b"a" if start else b"")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert seconds < 15


def test_a_second_head_has_its_own_time(port: int, hurried: None) -> None:
    _, seconds = _drip(port, _post(5) + b"GET / HTTP/1.1\r\nX-Slow: ", b"a")
    assert seconds < 15


def test_a_body_that_comes_drop_by_drop_is_ended(port: int, hurried: None) -> None:
    received, seconds = _drip(port, _post(5)[:-5].replace(b"5", b"5000"), b"a")
    assert (received, seconds < 15) == (b"", True)


def test_who_is_in_time_is_served_on_one_connection_for_longer_than_a_head_may_take(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_head, "HEAD_SECONDS", 1.5)
    monkeypatch.setattr(request_head, "LOOK_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for _ in range(6):
            connection.sendall(_post(5))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)
