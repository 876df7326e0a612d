"""One SMTP connection as bytes: connect, encrypt, write, read replies. Knows what was handed over when it breaks.

`Wire.handed` is the reason for not using smtplib: after a failed write it tells whether the final dot may have arrived.
"""

import socket
import ssl
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Self

MAX_REPLY_BYTES = 64 * 1024
"""A longer line, or more than as many bytes of a reply in several lines, is no SMTP."""
PIECE_BYTES = 64 * 1024
SLOWEST_BYTES_PER_SECOND = 16 * 1024
"""A peer that reads more slowly than this is given up, however regularly it reads a little."""


class ConnectionLost(Exception):
    """The connection is of no use any more: closed, reset, silent for too long, or not speaking SMTP."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Reply(NamedTuple):
    """A server's answer. ``text`` is without the code; lines are joined by newlines."""

    code: int
    text: bytes


@lru_cache(maxsize=2)
def tls_context(verified: bool) -> ssl.SSLContext:
    """Reading the system's certificates takes milliseconds; it is done once per process."""
    context = ssl.create_default_context()
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Wire:
    """Bytes out, replies in. Every failure is ConnectionLost."""

    def __init__(self, sock: socket.socket, peer: str, *, patience: float) -> None:
        """peer: the address at the other end. patience: seconds without progress of a write or a TLS handshake."""
        self.peer = peer
        self.handed = 0
        """How many bytes of the last write the peer can have seen. Exact in the clear, an upper bound over TLS."""
        self.encrypted = False
        self._sock = sock
        self._patience = patience
        self._timeout = -1.0
        self._buffer = b""
        self._at = 0

    @classmethod
    def connect(
        cls, addresses: Sequence[str], port: int, *, timeout: float, patience: float, source: str | None = None
    ) -> Self:
        """To the first address that answers; ``timeout`` seconds for all of them together.

        source: the address of this machine to connect from.
        """
        own = None if source is None else (source, 0)
        deadline = time.monotonic() + timeout
        reason = "no address to connect to"
        for address in addresses:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                sock = socket.create_connection((address, port), timeout=left, source_address=own)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                reason = _words(error)
                continue
            return cls(sock, address, patience=patience)
        raise ConnectionLost(f"cannot connect: {reason}")

    @property
    def local_address(self) -> str:
        return str(self._sock.getsockname()[0])

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Starts TLS; the certificate must be for ``host`` where the context verifies."""
        if self._at < len(self._buffer):
            raise ConnectionLost("the server sent something in the clear after its answer to STARTTLS")
        self._wait_at_most(self._patience)
        try:
            self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except OSError as error:
            raise ConnectionLost(f"TLS failed: {_words(error)}") from error
        self.encrypted = True

    def write(self, data: bytes) -> None:
        self.handed = 0
        self._wait_at_most(self._patience)
        try:
            if not self.encrypted:
                self.handed = self._sock.send(data)
            if self.handed < len(data):
                self._write_rest(memoryview(data))
        except OSError as error:
            raise _lost(error) from error

    def _write_rest(self, view: memoryview) -> None:
        deadline = time.monotonic() + self._patience + len(view) / SLOWEST_BYTES_PER_SECOND
        while self.handed < len(view):
            if time.monotonic() > deadline:
                raise ConnectionLost("the server reads too slowly", timed_out=True)
            start = self.handed
            piece = view[start : start + PIECE_BYTES]
            if self.encrypted:
                # OpenSSL may put whole records of the piece on the wire and then fail without saying how many.
                self.handed = start + len(piece)
            self.handed = start + self._sock.send(piece)

    def reply(self, timeout: float) -> Reply:
        """The next reply, whole, waiting at most ``timeout`` seconds for each of its lines."""
        line = self._line(timeout)
        code = _code(line)
        if line[3:4] != b"-":
            return Reply(code, line[4:].rstrip())
        lines = [line[4:].rstrip()]
        size = len(line)
        while line[3:4] == b"-":
            line = self._line(timeout)
            if _code(line) != code:
                raise ConnectionLost("the server's reply changes its code half-way")
            lines.append(line[4:].rstrip())
            size += len(line)
            if size > MAX_REPLY_BYTES:
                raise ConnectionLost("the server's reply does not end")
        return Reply(code, b"\n".join(lines))

    def _line(self, timeout: float) -> bytes:
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            end = self._fill(timeout)
        line = self._buffer[self._at : end]
        self._at = end + 1
        return line

    def _fill(self, timeout: float) -> int:
        """Reads until a line is complete; where it ends. The deadline holds however the bytes trickle in."""
        deadline = time.monotonic() + timeout
        self._buffer, self._at = self._buffer[self._at :], 0
        left = timeout
        while left > 0:
            data = self._receive(left)
            searched = len(self._buffer)
            self._buffer += data
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                return end
            if len(self._buffer) > MAX_REPLY_BYTES:
                raise ConnectionLost("the server's reply does not end")
            left = deadline - time.monotonic()
        raise ConnectionLost("no answer in time", timed_out=True)

    def _receive(self, timeout: float) -> bytes:
        self._wait_at_most(timeout)
        try:
            data = self._sock.recv(65536)
        except OSError as error:
            raise _lost(error) from error
        if not data:
            raise ConnectionLost("the server closed the connection")
        return data

    def _wait_at_most(self, seconds: float) -> None:
        if seconds != self._timeout:
            self._sock.settimeout(seconds)
            self._timeout = seconds

    def close(self) -> None:
        self._sock.close()


def _code(line: bytes) -> int:
    digits = line[:3]
    if len(digits) != 3 or not digits.isdigit() or line[3:4] not in (b" ", b"-", b"\r", b""):
        raise ConnectionLost("the server does not speak SMTP")
    return int(digits)


def _lost(error: OSError) -> ConnectionLost:
    return ConnectionLost(_words(error), timed_out=isinstance(error, TimeoutError))


def _words(error: OSError) -> str:
    """What went wrong, without addresses."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    return error.strerror or type(error).__name__
