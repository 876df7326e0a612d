"""A receiver of webhooks that costs as little as can be: it answers at once and counts."""

import asyncio
import re
import socket
import threading
import time
from collections import Counter
from typing import Self, cast

import orjson
import uvloop

from deploy.services import LOOPBACK

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE)
STOP_SECONDS = 10.0

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class CountingReceiver:
    """Serves in a thread of its own. A context manager."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()
        """How often each delivery came, by its id."""
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.url = f"http://{LOOPBACK}:{self._listener.getsockname()[1]}/"
        self._open: set[asyncio.Transport] = set()
        self._loop = uvloop.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: _Conversation(self, self._open), sock=self._listener)
        await self._over.wait()
        server.close()
        for transport in list(self._open):
            transport.abort()
        await asyncio.sleep(0)  # what was aborted is closed now

    def take(self, head: bytes, body: bytes) -> None:
        """An event by itself goes by the header, one of an array by its own ``webhook_id``."""
        if body.startswith(b"["):
            self.came.update(event["webhook_id"] for event in orjson.loads(body))
        elif found := _ID.search(head):
            self.came[found[1].decode()] += 1

    def wait_for(self, events: int, seconds: float) -> float:
        """``time.monotonic()`` of when so many had come, or of when ``seconds`` were over."""
        deadline = time.monotonic() + seconds
        while len(self.came) < events and time.monotonic() < deadline:
            time.sleep(0.01)
        return time.monotonic()


class _Conversation(asyncio.Protocol):
    """One connection; a client sends its next request after the answer."""

    def __init__(self, receiver: CountingReceiver, opened: set[asyncio.Transport]) -> None:
        self._receiver = receiver
        self._opened = opened
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opened.add(self._transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._opened.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return
        self._buffer = b""
        self._receiver.take(head, body)
        self._transport.write(_ANSWER)
