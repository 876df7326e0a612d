"""The SMTP and LMTP side of mail that comes in: answers 250 once the mail is stored, and not before."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import structlog
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP
from sqlalchemy.exc import SQLAlchemyError

from worker.gate import Destination, Gate

log = structlog.get_logger()

MOST_RECIPIENTS = 100
MOST_SESSIONS = 50
"""Connections at once; each may hold a mail in memory. More are told to come back."""
IDLE_SECONDS = 120.0
LONGEST_LINE = 256 * 1024
"""Octets. RFC 5321 allows 1000; what other servers pass on is longer now and then."""

NOT_OURS = "550 5.1.1 No such recipient here"
TOO_MANY = "452 4.5.3 Too many recipients"
AWAY = "451 4.3.0 Cannot store the mail now, try again later"
BUSY = "421 4.3.2 Too many connections, try again later"
BROKEN = "451 4.3.0 This did not work, try again later"
TAKEN = "250 2.0.0 Stored"

logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's own words hold addresses


class _Lines(asyncio.StreamReaderProtocol):
    """What both protocols change of aiosmtpd's."""

    line_length_limit: ClassVar[int] = LONGEST_LINE
    command_size_limit: ClassVar[int] = 2048
    event_handler: "Reception"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.event_handler.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.open.discard(self)
        super().connection_lost(error)


class _Busy(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- what servers make
        transport.write(f"{BUSY}\r\n".encode())
        transport.close()


class SmtpServer(_Lines, SMTP):
    """SMTP, RFC 5321."""


class LmtpServer(_Lines, LMTP):
    """LMTP, RFC 2033."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to listen: ``host`` and ``port``, or the ``path`` of a Unix socket."""

    lmtp: bool
    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def server(self) -> type[Any]:
        return LmtpServer if self.lmtp else SmtpServer


class Reception:
    """The hooks that aiosmtpd calls; the names are its own. One instance for all sessions of a server."""

    def __init__(self, gate: Gate, *, per_recipient: bool) -> None:
        """per_recipient: LMTP wants an answer to each recipient after the data."""
        self._gate = gate
        self._per_recipient = per_recipient
        self.open: set[object] = set()
        """The connections of the moment."""

    async def handle_exception(self, error: Exception) -> str:
        log.error("mail_session_failed", error=type(error).__name__)
        return BROKEN

    async def handle_RCPT(  # noqa: N802
        self,
        server: Any,  # noqa: ARG002
        session: Any,  # noqa: ARG002
        envelope: Any,
        address: str,
        options: Sequence[str],  # noqa: ARG002
    ) -> str:
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return TOO_MANY
        try:
            destination = await asyncio.to_thread(self._gate.destination, address)
        except SQLAlchemyError as error:
            log.warning("recipient_not_looked_up", error=type(error).__name__, next="the sender tries again")
            return AWAY
        if destination is None:
            return NOT_OURS
        envelope.rcpt_tos.append(destination)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: ARG002, N802
        destinations: list[Destination] = envelope.rcpt_tos
        try:
            await asyncio.to_thread(self._gate.take, envelope.content, envelope.mail_from or "", destinations)
        except SQLAlchemyError as error:
            log.warning("mail_not_stored", error=type(error).__name__, next="the sender tries again")
            answer = AWAY
        else:
            answer = TAKEN
        return "\r\n".join([answer] * len(destinations)) if self._per_recipient else answer


def _factory(place: Place, gate: Gate, tls: ssl.SSLContext | None, longest: int, name: str) -> Callable[[], Any]:
    """Makes the protocol of one connection."""
    reception = Reception(gate, per_recipient=place.lmtp)

    def protocol() -> Any:
        if len(reception.open) >= MOST_SESSIONS:
            return _Busy()
        return place.server(
            reception,
            data_size_limit=longest,
            enable_SMTPUTF8=True,
            hostname=name,
            ident="postroad",
            timeout=IDLE_SECONDS,
            tls_context=tls,
            loop=asyncio.get_running_loop(),
        )

    return protocol


async def serve(
    gate: Gate,
    places: Sequence[Place],
    *,
    longest: int,
    name: str,
    tls: ssl.SSLContext | None = None,
    until: Callable[[], Awaitable[object]],
    ready: Callable[[Sequence[Any]], None] = lambda _: None,
) -> None:
    """Listens at ``places`` until ``until`` returns; what is being handed over then has a moment to finish.

    longest: bytes of the largest mail. name: what the servers call themselves. tls: offers STARTTLS.
    ready: is told the sockets listened on. Raises OSError if a place cannot be listened on.
    """
    servers = []
    loop = asyncio.get_running_loop()
    for place in places:
        make = _factory(place, gate, tls, longest, name)
        if place.path is not None:
            place.path.unlink(missing_ok=True)
            servers.append(await loop.create_unix_server(make, str(place.path)))
        else:
            servers.append(await loop.create_server(make, place.host, place.port, backlog=MOST_SESSIONS))
    ready([socket for server in servers for socket in server.sockets])
    await until()
    for server in servers:
        server.close()
    for place in places:
        if place.path is not None:
            place.path.unlink(missing_ok=True)
