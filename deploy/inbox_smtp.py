"""The SMTP side of the local inbox: takes everything at once and pipelined, keeps it in an `InboxWriter`.

So that failures can be seen without a failing server, two kinds of local part are refused: ``bounce...`` always with
550, ``later...`` once with 451.
"""

import asyncio
import re
import signal
from pathlib import Path
from typing import cast

from deploy.inbox_store import InboxWriter, Mail

MAX_MAIL = 40 * 1024 * 1024
MAX_LINE = 4096
EXTENSIONS = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES")

_PATH = re.compile(rb"^(?:FROM|TO):[ \t]*<([^<>\r\n]*)>(.*)$", re.IGNORECASE | re.DOTALL)


class Inbox:
    """What the connections of one server share."""

    def __init__(self, writer: InboxWriter) -> None:
        self.writer = writer
        self._deferred: set[str] = set()

    def refusal(self, address: str) -> bytes | None:
        """The answer to a recipient that is refused, None for one that is taken."""
        if address.startswith("bounce"):
            return b"550 5.1.1 No such mailbox here\r\n"
        if address.startswith("later") and address not in self._deferred:
            self._deferred.add(address)
            return b"451 4.2.0 Greylisted, try again\r\n"
        return None


class InboxProtocol(asyncio.Protocol):
    """One connection (RFC 5321, with PIPELINING, 8BITMIME and SMTPUTF8).

    All commands that arrived together are answered together, after their mails were stored together.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._buffer = bytearray()
        self._in_data = False
        self._closing = False
        self._searched = 0
        """How far the buffer holds no end of the mail; a large mail is not searched again with each piece."""
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 inbox.postroad.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        batch: list[Mail] = []
        while not self._transport.is_closing() and self._take_one(replies, batch):
            pass
        if batch:
            self._inbox.writer.append(batch)
        self._transport.write(b"".join(replies))
        if len(self._buffer) > (MAX_MAIL if self._in_data else MAX_LINE):
            self._transport.write(b"552 5.3.4 Too big\r\n" if self._in_data else b"500 5.5.2 Line too long\r\n")
            self._transport.close()
        if self._closing:
            self._transport.close()

    def _take_one(self, replies: list[bytes], batch: list[Mail]) -> bool:
        """Consumes one command line or one mail from the buffer. False when neither is complete."""
        if self._in_data:
            return self._take_mail(replies, batch)
        end = self._buffer.find(b"\n")
        if end < 0 or self._closing:
            return False
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        replies.append(self._answer(line))
        return True

    def _take_mail(self, replies: list[bytes], batch: list[Mail]) -> bool:
        if self._buffer.startswith(b".\r\n"):
            mail, consumed = b"", 3
        else:
            end = self._buffer.find(b"\r\n.\r\n", max(0, self._searched - 4))
            if end < 0:
                self._searched = len(self._buffer)
                return False
            mail, consumed = bytes(self._buffer[: end + 2]).replace(b"\r\n..", b"\r\n."), end + 5
        del self._buffer[:consumed]
        batch.append((self._sender or "", self._recipients, mail[1:] if mail.startswith(b"..") else mail))
        self._in_data = False
        self._reset()
        replies.append(b"250 2.0.0 Kept\r\n")
        return True

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    def _answer(self, line: bytes) -> bytes:
        verb, _, argument = line.partition(b" ")
        answers = {
            b"EHLO": self._ehlo, b"HELO": self._helo, b"MAIL": self._mail, b"RCPT": self._rcpt, b"DATA": self._data,
            b"RSET": self._rset, b"QUIT": self._quit,
        }  # fmt: skip
        answer = answers.get(verb.upper())
        if answer is not None:
            return answer(argument)
        return b"250 2.0.0 OK\r\n" if verb.upper() in (b"NOOP", b"VRFY") else b"502 5.5.1 Not implemented\r\n"

    def _ehlo(self, _: bytes) -> bytes:
        self._reset()
        return b"\r\n250-".join([b"250-inbox.postroad.test", *EXTENSIONS]) + b"\r\n250 SIZE %d\r\n" % MAX_MAIL

    def _helo(self, _: bytes) -> bytes:
        self._reset()
        return b"250 inbox.postroad.test\r\n"

    def _mail(self, argument: bytes) -> bytes:
        match = _PATH.match(argument)
        if match is None:
            return b"501 5.5.4 MAIL FROM:<address>\r\n"
        self._reset()
        self._sender = match[1].decode("utf-8", "replace")
        return b"250 2.1.0 OK\r\n"

    def _rcpt(self, argument: bytes) -> bytes:
        match = _PATH.match(argument)
        if self._sender is None or match is None or not match[1]:
            return b"503 5.5.1 MAIL first\r\n" if match else b"501 5.5.4 RCPT TO:<address>\r\n"
        address = match[1].decode("utf-8", "replace")
        refusal = self._inbox.refusal(address.lower())
        if refusal is None:
            self._recipients.append(address)
        return refusal or b"250 2.1.5 OK\r\n"

    def _data(self, _: bytes) -> bytes:
        if not self._recipients:
            return b"554 5.5.1 No valid recipients\r\n"
        self._in_data, self._searched = True, 0
        return b"354 Go on\r\n"

    def _rset(self, _: bytes) -> bytes:
        self._reset()
        return b"250 2.0.0 OK\r\n"

    def _quit(self, _: bytes) -> bytes:
        self._closing = True
        return b"221 2.0.0 Bye\r\n"


async def serve(directory: Path, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    inbox = Inbox(InboxWriter(directory))
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: InboxProtocol(inbox), host, port, backlog=512)
    await stopped.wait()
    server.close()
    inbox.writer.close()
