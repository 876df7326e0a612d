"""A small HTTP/1.1 client for load: keep-alive connections, POST only, as little work as can be per request."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

ANSWER_SECONDS = 30.0


@dataclass(kw_only=True)
class Load:
    """What came of many requests."""

    began_at: float = 0.0
    """By the clock on the wall, seconds since the epoch."""
    seconds: float = 0.0
    """From the first request to the last answer."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each request that was answered 2xx, from when it was to start."""
    refused: int = 0
    """Other answers."""

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to post, and the head of every request."""

    url: str
    key: str = ""

    def request(self, body: bytes, extra: str = "") -> bytes:
        """A whole request as it goes over the wire. ``extra``: more header lines, each with its CRLF."""
        parts = urlsplit(self.url)
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        status = self._complete()
        if status is not None and self._answer is not None:
            self._buffer = b""
            self._answer.set_result(status)

    def _complete(self) -> int | None:
        """The status once the whole answer is here."""
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        _, _, after = head.lower().partition(b"content-length:")
        return int(head[9:12]) if len(body) >= int(after.split(b"\r\n", 1)[0] or 0) else None

    async def post(self, request: bytes) -> int:
        """The status of the answer. Raises OSError or TimeoutError."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answer, ANSWER_SECONDS)

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def connections(url: str, count: int) -> AsyncIterator[list[Connection]]:
    parts = urlsplit(url)
    opened = []
    try:
        for _ in range(count):
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 80)
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def run(load: Coroutine[Any, Any, Load]) -> Load:
    """Runs a load on the event loop that disturbs least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)


async def saturate(url: str, requests: Iterator[bytes], *, count: int, seconds: float) -> Load:
    """As many requests as ``count`` connections get through in ``seconds``."""
    load = Load()
    began = time.monotonic()

    async def work(connection: Connection) -> None:
        while time.monotonic() - began < seconds:
            start = time.monotonic()
            _note(load, await connection.post(next(requests)), start)

    async with connections(url, count) as opened:
        await asyncio.gather(*(work(connection) for connection in opened))
    load.seconds = time.monotonic() - began
    return load


async def pace(url: str, requests: Sequence[bytes], *, count: int, rate: float) -> Load:
    """Sends them ``rate`` a second. A request that finds no connection free has its waiting counted in."""
    async with connections(url, count) as opened:
        load, began = Load(began_at=time.time()), time.monotonic()
        due = iter([(began + number / rate, request) for number, request in enumerate(requests)])

        async def work(connection: Connection) -> None:
            for at, request in due:
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                _note(load, await connection.post(request), at)

        await asyncio.gather(*(work(connection) for connection in opened))
        load.seconds = time.monotonic() - began
    return load


def _note(load: Load, status: int, start: float) -> None:
    if 200 <= status < 300:
        load.latencies.append(time.monotonic() - start)
    else:
        load.refused += 1
