"""An SMTP connection that has got in: connected, encrypted, logged in, and what can be asked of it before any mail."""

import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import Self

from providers import smtp_replies
from providers.base import Outcome, Result
from providers.guard import Guard, HostNotFound, HostRefused
from providers.smtp_login import MECHANISMS, Login, Security, Unavailable, misconfigured
from providers.smtp_mail import Offers
from providers.smtp_wire import ConnectionLost, Reply, Wire, tls_context


class Closing(Exception):
    """The server answered 421: it closes the connection (RFC 5321 section 3.8)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.code)
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: until connected, for a command, for the answer to the final dot (RFC 5321 section 4.5.3.2)."""

    connect: float
    command: float
    dot: float


class Connection:
    """Not for two threads at once."""

    def __init__(self, wire: Wire, timeouts: Timeouts) -> None:
        self.used_at = time.monotonic()
        self.broken = False
        """It carries no more mail."""
        self._wire = wire
        self._timeouts = timeouts
        self._offers = Offers()
        self._answered = 0

    @classmethod
    def open(cls, login: Login, guard: Guard, timeouts: Timeouts, source: str | None = None) -> Self:
        """Connects, encrypts and authenticates. Raises Unavailable, with the outcome for every mail that waits.

        source: the address of this machine to connect from.
        """
        try:
            addresses = guard.addresses(login.host, login.port)
        except HostRefused as error:
            raise misconfigured(str(error)) from error
        except HostNotFound as error:
            raise Unavailable(Outcome(result=Result.TRANSIENT, detail=str(error))) from error
        try:
            wire = Wire.connect(
                addresses, login.port, timeout=timeouts.connect, patience=timeouts.command, source=source
            )
        except ConnectionLost as error:
            raise Unavailable(Outcome(result=Result.TRANSIENT, detail=str(error))) from error
        session = cls(wire, timeouts)
        try:
            session._enter(login)
        except ConnectionLost as error:
            wire.close()
            raise Unavailable(Outcome(result=Result.TRANSIENT, detail=str(error))) from error
        except Closing as closing:
            wire.close()
            raise Unavailable(smtp_replies.service_refusal(closing.reply)) from closing
        except Unavailable:
            wire.close()
            raise
        return session

    def _enter(self, login: Login) -> None:
        if login.security is Security.TLS:
            self._encrypt(login)
        self._expect(self._reply(), 220)
        self._hello()
        if login.security is Security.STARTTLS:
            if not self._offers.starttls:
                raise misconfigured("the server does not offer STARTTLS")
            self._expect(self._ask(b"STARTTLS"), 220)
            self._encrypt(login)
            self._hello()
        if login.username is not None:
            self._authenticate(login)

    def _encrypt(self, login: Login) -> None:
        local = _is_loopback(self._wire.peer)
        if login.verify is False and not local:
            raise misconfigured("certificates go unchecked (verify: false) only for servers on this machine")
        self._wire.encrypt(tls_context(bool(login.verify) or not local), login.host)

    def _hello(self) -> None:
        """EHLO, or HELO for a server from before 1995."""
        name = _own_name(self._wire.local_address)
        reply = self._ask(b"EHLO " + name)
        if reply.code in (500, 502, 504):
            reply = self._ask(b"HELO " + name)
        self._expect(reply, 250)
        self._offers = Offers.read(reply)

    def _authenticate(self, login: Login) -> None:
        if not self._wire.encrypted and not _is_loopback(self._wire.peer):
            raise misconfigured("credentials are not sent without encryption; set security to starttls or tls")
        mechanism = login.choose(self._offers.mechanisms)
        exchange = MECHANISMS[mechanism](login.username or "", login.secret(mechanism))
        reply = self._ask(next(exchange))
        while reply.code == 334:
            try:
                reply = self._ask(exchange.send(reply.text))
            except StopIteration:
                reply = self._ask(b"*")
                break
        if reply.code != 235:
            raise Unavailable(smtp_replies.login_refusal(reply))

    def _expect(self, reply: Reply, code: int) -> None:
        if reply.code != code:
            raise Unavailable(smtp_replies.service_refusal(reply))

    def noop(self) -> Outcome:
        """Whether the connection still works."""
        try:
            reply = self._ask(b"NOOP")
        except ConnectionLost as error:
            return Outcome(result=Result.TRANSIENT, detail=str(error))
        except Closing as closing:
            reply = closing.reply
        if reply.code == 250:
            return Outcome(result=Result.ACCEPTED, detail="the server is ready", code="250")
        return smtp_replies.service_refusal(reply)

    def close(self, *, farewell: bool = False) -> None:
        """farewell: says QUIT and waits a second for the answer, which changes nothing."""
        if farewell and not self.broken:
            try:
                self._wire.write(b"QUIT\r\n")
                self._wire.reply(1.0)
            except ConnectionLost:
                self.broken = True
        self._wire.close()

    def _ask(self, command: bytes) -> Reply:
        return self._ask_raw(command + b"\r\n")

    def _ask_raw(self, line: bytes) -> Reply:
        self._wire.write(line)
        return self._reply()

    def _reply(self, timeout: float | None = None) -> Reply:
        reply = self._wire.reply(self._timeouts.command if timeout is None else timeout)
        self._answered += 1
        if reply.code == 421:
            raise Closing(reply)
        return reply


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _own_name(address: str) -> bytes:
    """For EHLO: the host's name if it is a full one, else the address (RFC 5321 section 4.1.3)."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name.encode()
    literal = address.partition("%")[0]
    return f"[IPv6:{literal}]".encode() if ":" in literal else f"[{literal}]".encode()
