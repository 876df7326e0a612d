"""The server's half of an SMTP dialogue (RFC 5321, 2920, 3207, 4954), with its faults."""

import base64
import binascii
import contextlib
import json
import re
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime

from providers.emulators.smtp_books import Books, Received
from providers.emulators.smtp_faults import DRIP_SECONDS, MAGIC, Does, Fault, Stage


class _Over(Exception):
    """The conversation has ended."""


class Conversation:
    """One connection."""

    def __init__(self, books: Books, sock: socket.socket) -> None:
        self._sock = sock
        self._books = books
        self._in = b""
        self._out = b""
        self._encrypted = False
        self._username: str | None = None
        self._greeted = False
        self._reset()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._parameters = ""
        self._recipients: list[str] = []
        self._pending: dict[Stage, Fault] = {}

    def run(self) -> None:
        """Until either side leaves, which both may at any time."""
        try:
            self._talk()
        except (OSError, _Over):
            pass
        finally:
            self._sock.close()

    def cut(self, farewell: str) -> None:
        """Ends it from another thread."""
        with contextlib.suppress(OSError):
            if farewell:
                self._sock.sendall(f"{farewell}\r\n".encode())
            self._sock.shutdown(socket.SHUT_RDWR)

    def _talk(self) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._books.offer.implicit_tls:
            self._encrypt()
        self._answer(Stage.GREETING, "220 emulator.test ESMTP")
        while True:
            line = self._line().decode("utf-8", "replace")
            verb, _, argument = line.partition(" ")
            verb = verb.upper()
            self._books.commands.append(" ".join(line.split()[:2]) if verb == "AUTH" else line)
            action = _VERBS.get(verb)
            if action is None:
                self._say("500 5.5.2 unknown command")
            else:
                action(self, argument)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """More input; what was said so far goes out first, in one piece."""
        self._flush()
        data = self._sock.recv(262_144)
        if not data:
            raise _Over
        self._in += data

    def _flush(self) -> None:
        out, self._out = self._out, b""
        if not out:
            return
        if self._books.latency:
            self._books.stopped.wait(self._books.latency)
        self._sock.sendall(out)

    def _line(self) -> bytes:
        while (end := self._in.find(b"\r\n")) < 0:
            self._receive()
        line, self._in = self._in[:end], self._in[end + 2 :]
        return line

    def _content(self) -> bytes:
        """Up to the final dot, with its dots as they were."""
        # With the line end before it, the dot of an empty mail is found like any other.
        self._in = b"\r\n" + self._in
        searched = 0
        while (end := self._in.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(self._in) - 4)
            self._receive()
        content, self._in = self._in[: end + 2], self._in[end + 5 :]
        return content.replace(b"\r\n.", b"\r\n")[2:]

    def _encrypt(self) -> None:
        if self._books.offer.certificate is None:
            raise ValueError("TLS needs a certificate")
        self._sock = self._books.offer.certificate.wrap_socket(self._sock, server_side=True)
        self._encrypted = True
        # What was said in the clear is forgotten (RFC 3207 section 4.2).
        self._greeted = False
        self._in = b""

    def _say(self, reply: str) -> None:
        self._out += reply.encode() + b"\r\n"

    def _answer(self, stage: Stage, reply: str) -> bool:
        """Says it, or does what a fault wants instead; whether the reply was said."""
        fault = self._pending.pop(stage, None) or self._books.next_fault(stage)
        if fault is None:
            self._say(reply)
            return True
        return self._misbehave(fault, reply)

    def _misbehave(self, fault: Fault, reply: str) -> bool:
        if fault.does is Does.REPLY:
            self._say(fault.reply)
            if not fault.reply.startswith("421"):
                return False
        self._flush()
        if fault.does is Does.DRIP:
            for byte in f"{reply}\r\n".encode():
                self._sock.sendall(bytes([byte]))
                if self._books.stopped.wait(DRIP_SECONDS):
                    break
            return True
        if fault.does is Does.HANG:
            self._books.stopped.wait()
        if fault.does is Does.RESET:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Over

    # -- commands -------------------------------------------------------------------------------------------------

    def _ehlo(self, _: str) -> None:
        if not self._books.offer.ehlo:
            self._say("502 5.5.1 not implemented")
            return
        self._reset()
        lines = ["emulator.test", *self._extensions()]
        self._greeted = True
        self._answer(Stage.EHLO, "\r\n".join([f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]))

    def _extensions(self) -> list[str]:
        offer = self._books.offer
        named = {
            "PIPELINING": offer.pipelining,
            "8BITMIME": offer.eight_bit,
            "SMTPUTF8": offer.smtputf8,
            f"SIZE {offer.size}": offer.size > 0,
            "STARTTLS": offer.certificate is not None and not self._encrypted,
            f"AUTH {' '.join(offer.mechanisms)}": self._auth_needed(),
            "ENHANCEDSTATUSCODES": True,
        }
        return [name for name, offered in named.items() if offered]

    def _auth_needed(self) -> bool:
        return self._books.offer.wants_login

    def _helo(self, _: str) -> None:
        self._reset()
        self._greeted = True
        self._answer(Stage.EHLO, "250 emulator.test")

    def _starttls(self, _: str) -> None:
        if self._books.offer.certificate is None or self._encrypted:
            self._say("502 5.5.1 not offered")
        elif self._answer(Stage.STARTTLS, "220 2.0.0 go ahead"):
            self._flush()
            self._encrypt()

    def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        check = _MECHANISMS.get(mechanism.upper())
        if not self._greeted:
            self._say("503 5.5.1 EHLO first")
            return
        if check is None or mechanism.upper() not in self._books.offer.mechanisms:
            self._say("504 5.5.4 mechanism not offered")
            return
        try:
            username = check(self, initial)
        except (ValueError, binascii.Error):
            self._say("501 5.5.2 cannot decode that")
            return
        if username is None:
            self._say("535 5.7.8 bad credentials")
        elif self._answer(Stage.AUTH, "235 2.7.0 welcome"):
            self._username = username

    def _challenge(self, text: bytes) -> str:
        self._say(f"334 {base64.b64encode(text).decode()}")
        return self._line().decode("ascii", "replace")

    def _plain(self, initial: str) -> str | None:
        blob = base64.b64decode(initial or self._challenge(b""), validate=True).decode()
        _, username, password = blob.split("\0")
        return username if self._books.offer.passwords.get(username) == password else None

    def _login(self, initial: str) -> str | None:
        username = base64.b64decode(initial or self._challenge(b"Username:"), validate=True).decode()
        password = base64.b64decode(self._challenge(b"Password:"), validate=True).decode()
        return username if self._books.offer.passwords.get(username) == password else None

    def _xoauth2(self, initial: str) -> str | None:
        blob = base64.b64decode(initial or self._challenge(b""), validate=True).decode()
        found = re.fullmatch("user=(.*)\x01auth=Bearer (.*)\x01\x01", blob)
        if found and self._books.offer.takes(found[1], found[2]):
            return found[1]
        if self._challenge(json.dumps({"status": "400", "schemes": "bearer"}).encode()):
            raise ValueError("only an empty line may follow")
        return None

    def _mail(self, argument: str) -> None:
        found = re.match(r"FROM: ?<([^>]*)> ?(.*)", argument, re.IGNORECASE)
        size = re.search(r"\bSIZE=(\d+)", argument, re.IGNORECASE)
        if not self._greeted:
            self._say("503 5.5.1 EHLO first")
        elif self._auth_needed() and self._username is None:
            self._say("530 5.7.0 authentication required")
        elif found is None or self._sender is not None:
            self._say("501 5.5.4 MAIL FROM:<address>" if found is None else "503 5.5.1 nested MAIL")
        elif size and 0 < self._books.offer.size < int(size[1]):
            self._say("552 5.3.4 too big")
        elif self._answer(Stage.MAIL, "250 2.1.0 sender ok"):
            self._sender, self._parameters = found[1], found[2]

    def _rcpt(self, argument: str) -> None:
        found = re.match(r"TO: ?<([^>]+)>", argument, re.IGNORECASE)
        if self._sender is None or found is None:
            self._say("503 5.5.1 MAIL first" if found else "501 5.5.4 RCPT TO:<address>")
            return
        magic = MAGIC.get(found[1].rpartition("@")[0].partition("+")[0])
        if magic is not None:
            self._pending[magic.at] = magic
        if self._answer(Stage.RCPT, "250 2.1.5 recipient ok"):
            self._recipients.append(found[1])

    def _data(self, _: str) -> None:
        if not self._recipients:
            self._say("554 5.5.1 no valid recipients" if self._sender is not None else "503 5.5.1 MAIL first")
            return
        if not self._answer(Stage.DATA, "354 end with a dot"):
            return
        fault = self._books.next_fault(Stage.BODY)
        if fault is not None:
            self._receive()
            self._misbehave(fault, "")
        self._finish(self._content())

    def _finish(self, data: bytes) -> None:
        fault = self._pending.pop(Stage.DOT, None) or self._books.next_fault(Stage.DOT)
        self._books.count_content()
        reply = f"250 2.0.0 Ok: queued as {self._store(data):08X}" if fault is None or fault.store else ""
        self._reset()
        if fault is None:
            self._say(reply)
        else:
            self._misbehave(fault, reply)

    def _store(self, data: bytes) -> int:
        found = _MESSAGE_ID.search(data, 0, data.find(b"\r\n\r\n") + 2)
        return self._books.take(
            Received(
                sender=self._sender or "",
                recipients=tuple(self._recipients),
                parameters=self._parameters,
                data=data if self._books.keep_data else b"",
                message_id=found[1].decode("utf-8", "replace") if found else "",
                username=self._username,
                encrypted=self._encrypted,
                at=datetime.now(UTC),
            )
        )

    def _rset(self, _: str) -> None:
        self._reset()
        self._answer(Stage.RSET, "250 2.0.0 flushed")

    def _noop(self, _: str) -> None:
        self._answer(Stage.NOOP, "250 2.0.0 ok")

    def _quit(self, _: str) -> None:
        self._answer(Stage.QUIT, "221 2.0.0 bye")
        self._flush()
        raise _Over


_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)

_VERBS: dict[str, Callable[[Conversation, str], None]] = {
    "EHLO": Conversation._ehlo,
    "HELO": Conversation._helo,
    "STARTTLS": Conversation._starttls,
    "AUTH": Conversation._auth,
    "MAIL": Conversation._mail,
    "RCPT": Conversation._rcpt,
    "DATA": Conversation._data,
    "RSET": Conversation._rset,
    "NOOP": Conversation._noop,
    "QUIT": Conversation._quit,
}
_MECHANISMS: dict[str, Callable[[Conversation, str], str | None]] = {
    "PLAIN": Conversation._plain,
    "LOGIN": Conversation._login,
    "XOAUTH2": Conversation._xoauth2,
}
