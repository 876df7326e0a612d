"""A mail as commands and content for one server: what it offers decides how, and whether at all."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import idna

from providers.base import OutboundEmail
from providers.smtp_wire import Reply

PIPELINED_RECIPIENTS = 500
"""A mail to more goes step by step: the replies to all of them must fit the sockets' buffers while nobody reads."""

DATA = b"DATA\r\n"
DOT = b".\r\n"
RSET = b"RSET\r\n"


class Unfit(Exception):
    """This server cannot take this mail, whatever one tries. Says why."""


@dataclass(frozen=True, slots=True)
class Mail:
    """Ready for the wire."""

    recipients: tuple[str, ...]
    commands: list[bytes]
    """MAIL, a RCPT for each recipient, DATA."""
    content: bytes
    """Dots stuffed, and with the final dot."""
    ahead: bytes
    """All commands at once where they may go out before the answers to what is ahead of them, else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """A server's answer to EHLO."""

    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    size: bool = False
    size_limit: int = 0
    """Bytes; 0: none told."""
    mechanisms: frozenset[str] = frozenset()
    """Of AUTH."""

    @classmethod
    def read(cls, hello: Reply) -> Self:
        lines = hello.text.decode("ascii", "replace").upper().split("\n")[1:]
        # "AUTH=LOGIN" is how servers of the nineties say it.
        words = [line.replace("AUTH=", "AUTH ", 1).split() for line in lines if line.strip()]
        keywords = {line[0] for line in words}
        size = next((line[1] for line in words if line[0] == "SIZE" and len(line) > 1), "")
        return cls(
            pipelining="PIPELINING" in keywords,
            eight_bit="8BITMIME" in keywords,
            smtputf8="SMTPUTF8" in keywords,
            starttls="STARTTLS" in keywords,
            size="SIZE" in keywords,
            size_limit=int(size) if size.isdecimal() else 0,
            mechanisms=frozenset(name for line in words if line[0] == "AUTH" for name in line[1:]),
        )

    def prepare(self, email: OutboundEmail) -> Mail:
        """Raises Unfit."""
        mime = email.mime
        if mime is None:
            raise ValueError("an SMTP mail needs its MIME form")
        self._check(email, mime)
        commands = [b"MAIL FROM:<%b>%b\r\n" % (_path(email.envelope_from), self._parameters(email, mime))]
        commands += [b"RCPT TO:<%b>\r\n" % _path(address) for address in email.recipients]
        commands.append(DATA)
        pipelined = self.pipelining and len(email.recipients) <= PIPELINED_RECIPIENTS
        return Mail(email.recipients, commands, _content(mime), b"".join(commands) if pipelined else b"")

    def _check(self, email: OutboundEmail, mime: bytes) -> None:
        if 0 < self.size_limit < len(mime):
            raise Unfit(f"the mail has {len(mime)} bytes; the server takes at most {self.size_limit}")
        if email.smtputf8 and not self.smtputf8:
            raise Unfit("an address or header needs SMTPUTF8, which the server does not offer")
        if not self.eight_bit and not mime.isascii():
            raise Unfit("the mail has 8-bit characters, and the server does not offer 8BITMIME")
        if not email.recipients:
            raise Unfit("the mail has no recipient")
        for address in (email.envelope_from, *email.recipients):
            if not address.isprintable():
                raise Unfit("an envelope address has a control character")
            if not email.smtputf8 and not address.isascii() and not _path(address).isascii():
                raise Unfit("an envelope address has a local part that needs SMTPUTF8")

    def _parameters(self, email: OutboundEmail, mime: bytes) -> bytes:
        parameters = b" SIZE=%d" % len(mime) if self.size else b""
        if not mime.isascii():
            parameters += b" BODY=8BITMIME"
        if email.smtputf8:
            parameters += b" SMTPUTF8"
        return parameters


def _content(mime: bytes) -> bytes:
    """RFC 5321 section 4.5.2."""
    if mime.rfind(b"\n.") >= 0:  # there is none, and from the end that is found out in half the time
        mime = mime.replace(b"\n.", b"\n..")
    if mime.startswith(b"."):
        mime = b"." + mime
    return mime + (DOT if mime.endswith(b"\r\n") else b"\r\n" + DOT)


@lru_cache(maxsize=1024)
def _path(address: str) -> bytes:
    """The address for the envelope: an internationalised domain as A-labels (RFC 5891). Raises Unfit."""
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return address.encode()
    try:
        return (local + at).encode() + idna.encode(domain, uts46=True)
    except idna.IDNAError as error:
        raise Unfit("an envelope address has a domain that is not valid in IDNA") from error
