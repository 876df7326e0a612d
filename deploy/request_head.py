"""The HTTP protocol of the API's server, with an end to how much a caller may send before a request begins."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BYTES = 64 * 1024
"""Of a request line and headers. One read from the socket may go beyond it, never two."""

_REASON = f"The headers are larger than {MAX_BYTES} bytes."
_TOO_LARGE = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(_REASON)}\r\nConnection: close\r\n\r\n{_REASON}"
).encode()


class BoundedHead(HttpToolsProtocol):
    """uvicorn's protocol, which by itself keeps headers of any size in memory until they end."""

    _unfinished = 0
    """Bytes since the head of a request began that has not ended yet."""

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unfinished += len(data)
        super().data_received(data)
        if self._in_body():
            self._unfinished = 0
        elif self._unfinished > MAX_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _in_body(self) -> bool:
        return self.cycle is not None and self.cycle.scope is self.scope
