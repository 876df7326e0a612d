"""Connections to addresses the guard allows, that say when a request touches them and end at its deadline.

The host is resolved once, by the guard, and one of the very addresses it checked is connected to; the TLS name and the
Host header stay those of the URL.
"""

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from contextvars import ContextVar
from typing import Any

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions

from providers.guard import Guard, HostRefused, is_public

# Its warning about headers that are cut or malformed quotes the whole URL, which may name a recipient.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

IDLE_SECONDS = 15.0
"""A kept connection idle for longer is not reused: the peer may be closing it just as the request is written."""


class Exchange:
    """One request under way: whether it touched the wire, and a valve that is shut at its deadline."""

    def __init__(self, guard: Guard, total: float) -> None:
        self.guard = guard
        self.total = total
        self.written = False
        self.expired = False
        self._valve: socket.socket | None = None
        self._timer = threading.Timer(total, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> "Exchange":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._close_valve()

    def watch(self, sock: socket.socket) -> None:
        """Remembers the connection. A duplicate descriptor, since TLS detaches the one it wraps."""
        self._close_valve()
        self._valve = socket.socket(fileno=os.dup(sock.fileno()))
        if self.expired:
            self._expire()

    def _expire(self) -> None:
        self.expired = True
        if self._valve is not None:
            with contextlib.suppress(OSError):
                self._valve.shutdown(socket.SHUT_RDWR)

    def _close_valve(self) -> None:
        if self._valve is not None:
            self._valve.close()


current: ContextVar[Exchange] = ContextVar("exchange")


def _connect(connection: urllib3.connection.HTTPConnection, scheme: str) -> socket.socket:
    """Connects to an address the guard has checked; name and Host header stay those of the URL."""
    exchange = current.get()
    host, port = connection.host.strip("[]"), connection.port
    addresses = exchange.guard.addresses(host, port)
    if scheme == "http" and host.lower() not in exchange.guard.allowed_hosts:
        _refuse_plain_text(host, addresses)
    failure: OSError | None = None
    for address in addresses:
        try:
            sock = socket.create_connection((address, port), timeout=connection.timeout)
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange.watch(sock)
        return sock
    raise urllib3.exceptions.NewConnectionError(connection, f"cannot connect: {failure}") from failure


def _refuse_plain_text(host: str, addresses: list[str]) -> None:
    if any(is_public(ipaddress.ip_address(address.partition("%")[0])) for address in addresses):
        raise HostRefused(f"{host} must be reached by https")


class _Guarded(urllib3.connection.HTTPConnection):
    """Says when the first byte is written and never writes on a connection that idled too long."""

    scheme = "http"
    _used = 0.0

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.scheme)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        if self.sock is not None:
            current.get().watch(self.sock)
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        current.get().written = True
        self._used = time.monotonic()
        super().send(data)


class _GuardedTls(_Guarded, urllib3.connection.HTTPSConnection):
    scheme = "https"


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


class GuardedAdapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
