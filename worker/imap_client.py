"""An IMAP connection (RFC 3501): over the guard, with a bound on what it reads, and with IDLE (RFC 2177).

On top of the standard library's client, whose version for Python 3.11 has no IDLE.
"""

import imaplib
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from providers.guard import Guard, HostNotFound, HostRefused
from providers.smtp_login import Security
from providers.smtp_wire import tls_context

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""Longest wait for a piece of an answer."""
LOOK_UP_SECONDS = 1.0
"""How often a wait for news looks whether it is to end."""
SLACK = 64 * 1024
"""What an answer may have beside the mail in it."""

PORTS = {Security.NONE: 143, Security.STARTTLS: 143, Security.TLS: 993}


class MailboxUnreadable(Exception):
    """The mailbox cannot be read now. The text says why, for its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A folder and the way to it."""

    host: str
    port: int
    security: Security
    username: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    """None: XOAUTH2 with an access token."""
    folder: str = "INBOX"


class _Pinned(imaplib.IMAP4):
    """Connects to an address that the guard has checked; reads no literal beyond a limit."""

    def __init__(self, access: Access, address: str, longest: int, context: ssl.SSLContext | None) -> None:
        self._address = address
        self._longest = longest
        self._context = context
        super().__init__(access.host, access.port, timeout=CONNECT_SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        plain = socket.create_connection((self._address, self.port), timeout)
        plain.settimeout(ANSWER_SECONDS)
        return plain if self._context is None else self._context.wrap_socket(plain, server_hostname=self.host)

    def read(self, size: int) -> bytes:
        if size > self._longest + SLACK:
            raise self.abort(f"the server announced {size} bytes, more than a mail may have")
        return super().read(size)

    def begin(self, command: bytes) -> bytes:
        """Sends a command that imaplib does not know; its tag."""
        tag = bytes(self._new_tag())
        self.send(tag + b" " + command + b"\r\n")
        return tag


class ImapClient:
    """One connection, logged in, with one folder open for reading only. Raises MailboxUnreadable throughout."""

    uid_validity: int
    uid_next: int

    def __init__(self, access: Access, guard: Guard, *, token: Callable[[], str] | None = None, longest: int) -> None:
        """token: gives an access token where there is no password. longest: bytes of the largest mail that is read."""
        self._access = access
        self._longest = longest
        try:
            self._imap = self._connect(guard)
            try:
                self._log_in(token)
                self._idles = b"IDLE" in b" ".join(filter(None, self._imap.capability()[1])).upper().split()
                self._open_folder()
            except BaseException:
                self.close()
                raise
        except (imaplib.IMAP4.error, OSError, UnicodeError) as error:
            raise MailboxUnreadable(_why(error)) from error

    def _connect(self, guard: Guard) -> _Pinned:
        access = self._access
        try:
            address = guard.addresses(access.host, access.port)[0]
        except (HostRefused, HostNotFound) as error:
            raise MailboxUnreadable(str(error)) from error
        local = address.startswith("127.") or address == "::1"
        encrypted = access.security is Security.TLS
        imap = _Pinned(access, address, self._longest, tls_context(not local) if encrypted else None)
        if access.security is Security.STARTTLS:
            try:
                imap.starttls(tls_context(not local))
            except BaseException:
                imap.shutdown()
                raise
        return imap

    def _log_in(self, token: Callable[[], str] | None) -> None:
        access, imap = self._access, self._imap
        if access.password is None:
            if token is None:
                raise MailboxUnreadable("there is neither a password nor a connected account to log in with")
            answers = iter((f"user={access.username}\x01auth=Bearer {token()}\x01\x01".encode(),))
            # A refusal comes as a challenge with the reason; only an empty answer to it brings the NO.
            imap.authenticate("XOAUTH2", lambda _: next(answers, b""))
        elif "AUTH=PLAIN" in imap.capabilities:
            secret = f"\0{access.username}\0{access.password}".encode()
            imap.authenticate("PLAIN", lambda _: secret)
        else:
            imap.login(_quoted(access.username), access.password)

    def _open_folder(self) -> None:
        state, answer = self._imap.select(_quoted(self._access.folder), readonly=True)
        if state != "OK":
            raise MailboxUnreadable(f"the folder cannot be opened: {_text(answer[0])}")
        self.uid_validity = self._number("UIDVALIDITY")
        self.uid_next = self._number("UIDNEXT")

    def _number(self, name: str) -> int:
        _, [value] = self._imap.response(name)
        if not isinstance(value, bytes) or not value.isdigit():
            raise MailboxUnreadable(f"the server does not say {name} of the folder")
        return int(value)

    def after(self, uid: int) -> list[int]:
        """The UIDs above ``uid``, ascending."""
        # ``*`` is the last mail, also where it is not above.
        return [found for found in self._search(f"UID {uid + 1}:*") if found > uid]

    def since(self, at: time.struct_time) -> list[int]:
        """The UIDs of mails that came in on the day of ``at`` (UTC) or later."""
        return self._search(f"SINCE {at.tm_mday}-{_MONTHS[at.tm_mon - 1]}-{at.tm_year}")

    def _search(self, criterion: str) -> list[int]:
        answer = self._uid("SEARCH", criterion)
        words = b" ".join(part for part in answer if isinstance(part, bytes)).split()
        return sorted(int(word) for word in words if word.isdigit())

    def size(self, uid: int) -> int | None:
        """Bytes of a mail; None where it is gone."""
        for part in self._uid("FETCH", str(uid), "(RFC822.SIZE)"):
            if isinstance(part, bytes) and (found := re.search(rb"RFC822\.SIZE (\d+)", part)):
                return int(found[1])
        return None

    def mail(self, uid: int) -> bytes | None:
        """A mail as it lies there; it stays unread. None where it is gone."""
        for part in self._uid("FETCH", str(uid), "(BODY.PEEK[])"):
            if isinstance(part, tuple):
                return bytes(part[1])
        return None

    def _uid(self, command: str, *arguments: str) -> list[bytes | tuple[bytes, bytes] | None]:
        try:
            state, answer = self._imap.uid(command, *arguments)
        except (imaplib.IMAP4.error, OSError) as error:
            raise MailboxUnreadable(_why(error)) from error
        if state != "OK":
            raise MailboxUnreadable(f"{command} was refused: {_text(answer[0])}")
        return list(answer)

    def wait(self, seconds: float, ended: Callable[[], bool]) -> None:
        """Returns when there may be news: the server says so (IDLE), or after ``seconds``, or once ``ended()``."""
        try:
            if self._idles:
                self._idle(seconds, ended)
            else:
                _sleep(seconds, ended)
                self._imap.noop()
        except (imaplib.IMAP4.error, OSError) as error:
            raise MailboxUnreadable(_why(error)) from error

    def _idle(self, seconds: float, ended: Callable[[], bool]) -> None:
        # Read from the socket itself: a buffered file that has timed out once cannot be read again.
        connection, until = self._imap.socket(), time.monotonic() + seconds
        tag, heard = self._imap.begin(b"IDLE"), b""
        while not re.search(rb"(?:^|\n)\* \d+ EXISTS|(?:^|\n)" + re.escape(tag), heard):
            if ended() or time.monotonic() > until:
                break
            heard = (heard + self._heard(connection))[-4096:]
        if not re.search(rb"(?:^|\n)" + re.escape(tag), heard):
            self._imap.send(b"DONE\r\n")
        limit = time.monotonic() + ANSWER_SECONDS
        while not re.search(rb"(?:^|\n)" + re.escape(tag) + rb"[^\n]*\n", heard):
            heard = (heard + self._heard(connection))[-4096:]
            if time.monotonic() > limit:
                raise TimeoutError("the server does not end IDLE")

    @staticmethod
    def _heard(connection: socket.socket) -> bytes:
        connection.settimeout(LOOK_UP_SECONDS)
        try:
            data = connection.recv(4096)
        except TimeoutError:
            return b""
        finally:
            connection.settimeout(ANSWER_SECONDS)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def close(self) -> None:
        with suppress(imaplib.IMAP4.error, OSError):
            self._imap.logout()


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _sleep(seconds: float, ended: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not ended() and time.monotonic() < until:
        time.sleep(min(LOOK_UP_SECONDS, max(0.0, until - time.monotonic())))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _why(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else _text(error.args[0]) if error.args else ""
    return (said or type(error).__name__)[:300]


def _text(said: object) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
