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
    """Bytes since a head or a piece of a body last came to its end; those of trailers count as well."""

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
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished = 0
        super().on_message_complete()
