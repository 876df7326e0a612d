"""A wire on loopback that can be cut, or left hanging with both ends open."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes on to ``upstream``, which is asked for its port with every connection.

    cut()    what is open is reset, and nobody gets through
    hang()   connections are taken and nothing on any of them is passed on
    mend()   as new; what hung is reset, as a router does that has forgotten it

    ``upstream`` may be replaced: who connects from then on is led elsewhere.
    """

    def __init__(self, upstream: Callable[[], int]) -> None:
        self.upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self._swallow: tuple[bytes, bytes] | None = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        self._reset_all()

    def cut(self) -> None:
        self._refuses = True
        self._reset_all()

    def hang(self) -> None:
        self._flows.clear()

    def mend(self) -> None:
        hung = not self._flows.is_set()
        self._refuses = False
        if hung:
            self._reset_all()
        self._flows.set()

    def swallow(self, after: bytes, at: bytes) -> None:
        """Loses the answer to the next request with ``at`` in it, on a connection that ``after`` has passed since now.

        The request itself gets through; the connection is lost with the answer.
        """
        self._swallow = (after, at)

    @property
    def swallowed(self) -> bool:
        """Whether that has happened."""
        return self._swallow is None

    def _reset_all(self) -> None:
        with self._lock:
            opened, self._open = self._open, set()
        for end in opened:
            _reset(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            server = socket.create_connection(("127.0.0.1", self.upstream()), timeout=5)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        deaf = threading.Event()
        threading.Thread(target=self._pump, args=(server, client, None, deaf), daemon=True).start()
        self._pump(client, server, deaf, threading.Event())

    def _pump(
        self, source: socket.socket, target: socket.socket, mutes: threading.Event | None, deaf: threading.Event
    ) -> None:
        """Passes on until an end closes. ``mutes``: set when the answer to what passes here is to be lost."""
        seen = False
        with suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                if deaf.is_set():
                    break
                if mutes is not None and self._swallow is not None:
                    after, at = self._swallow
                    seen = seen or after in data
                    if seen and at in data[data.find(after) + 1 :]:
                        self._swallow = None
                        mutes.set()
                target.sendall(data)
        for end in (source, target):
            with self._lock:
                self._open.discard(end)
            _reset(end) if deaf.is_set() else _close(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _reset(end: socket.socket) -> None:
    """Closes with RST instead of FIN; shutdown first would send the FIN, but wakes a thread that reads."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    _close(end)
