"""The HTTP protocol of the API's server, with an end to how much a caller may send before a request begins, and to how
long they may take.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BYTES = 64 * 1024
"""Of a request line and headers. One read from the socket may go beyond it, never two."""

HEAD_SECONDS = 15.0
"""From the first byte of a request, or from the connection, to the end of its headers."""
BODY_SECONDS = 300.0
"""From there to the end of the body; 36 MB take that long at 1 Mbit/s."""
LOOK_SECONDS = 5.0
"""A connection is looked at this often, so that a request that is in time costs no timer of its own."""

_REASON = f"The headers are larger than {MAX_BYTES} bytes."
_TOO_LARGE = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(_REASON)}\r\nConnection: close\r\n\r\n{_REASON}"
).encode()


_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedHead(HttpToolsProtocol):
    """uvicorn's protocol, which by itself keeps headers of any size in memory until they end, and waits for ever."""

    _unfinished = 0
    """Bytes since a head or a piece of a body last came to its end; those of trailers count as well."""

    _deadline: float | None = None
    """When what is being read must have come to its end, by the loop's clock; None while nothing is."""
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.time() + HEAD_SECONDS
        self._look = self.loop.call_later(LOOK_SECONDS, self._end_if_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _end_if_slow(self) -> None:
        if self._deadline is not None and self._deadline <= self.loop.time():
            answering = self.cycle is not None and not self.cycle.response_complete
            if not answering:
                self.transport.write(_TOO_SLOW)
            self.transport.close()
            return
        self._look = self.loop.call_later(LOOK_SECONDS, self._end_if_slow)

    def on_message_begin(self) -> None:
        self._deadline = self.loop.time() + HEAD_SECONDS
        super().on_message_begin()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._unfinished = 0
        self._deadline = self.loop.time() + BODY_SECONDS
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished = 0
        self._deadline = None
        super().on_message_complete()
