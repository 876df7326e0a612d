"""The SMTP dialogue: getting in, then mail after mail, pipelined where the server allows it (RFC 2920).

Pipelined, the content of a mail and the envelope of the next go out in one write, so a mail costs one round trip:

    >> MAIL RCPT DATA                     << 250 250 354
    >> content .  MAIL RCPT DATA          << 250 (mail 1)  250 250 354
    >> content .                          << 250 (mail 2)

No more than one final dot is ever unanswered, so a break leaves one mail uncertain and the others surely not sent.
"""

import ipaddress
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from providers import smtp_replies
from providers.base import OutboundEmail, Outcome, Result
from providers.guard import Guard, HostNotFound, HostRefused
from providers.smtp_login import MECHANISMS, Login, Security, Unavailable, misconfigured
from providers.smtp_mail import DOT, RSET, Mail, Offers, Unfit
from providers.smtp_wire import ConnectionLost, Reply, Wire, tls_context


class Stale(Exception):
    """The server closed an idle connection, perhaps with a 421; it answered nothing else and no content was sent."""


class _Closing(Exception):
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


@dataclass(slots=True)
class _Answers:
    """To MAIL, each RCPT and DATA, as far as the dialogue came."""

    sender: Reply
    recipients: list[Reply]
    data: Reply | None


class Session:
    """A logged-in connection. Not for two threads at once."""

    def __init__(self, wire: Wire, timeouts: Timeouts) -> None:
        self.mails = 0
        """How many it has carried."""
        self.accepted = 0
        """How many of them the server took."""
        self.used_at = time.monotonic()
        self.broken = False
        """It carries no more mail."""
        self._wire = wire
        self._timeouts = timeouts
        self._offers = Offers()
        self._answered = 0
        self._dot_at: int | None = None
        """While a final dot is being written or awaits its answer: how many bytes of that write it ends at."""

    # -- getting in -----------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, login: Login, guard: Guard, timeouts: Timeouts, source: str | None = None) -> "Session":
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
        except _Closing as closing:
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

    # -- keeping it -----------------------------------------------------------------------------------------------

    def noop(self) -> Outcome:
        """Whether the connection still works."""
        try:
            reply = self._ask(b"NOOP")
        except ConnectionLost as error:
            return Outcome(result=Result.TRANSIENT, detail=str(error))
        except _Closing as closing:
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

    # -- mail -----------------------------------------------------------------------------------------------------

    def deliver(self, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        """Sends them one after the other; one outcome each. After a break the rest is not attempted and transient.

        Fewer outcomes, for the first of them, if the server has had enough mails on this connection: nothing of the
        others is sent, and they may go over a new one. Raises Stale if the connection had been used before and turns
        out to be closed before anything happened.
        """
        outcomes: dict[int, Outcome] = {}
        self._answered = 0
        self._dot_at = None
        under_way: int | None = None
        rest = Outcome(result=Result.TRANSIENT, detail="not attempted", untried=True)
        try:
            for under_way, mail, ahead in self._in_order(emails, outcomes):
                self._transfer(under_way, mail, ahead, outcomes)
        except ConnectionLost as lost:
            self.broken = True
            if self.mails and not self._answered and not lost.timed_out:
                raise Stale from lost
            rest = Outcome(result=Result.TRANSIENT, detail=f"not attempted: {lost}", untried=under_way is not None)
            if under_way is not None:
                outcomes.setdefault(under_way, self._fate(lost))
        except _Closing as closing:
            self.broken = True
            if self.mails and self._answered == 1:
                raise Stale from closing
            rest = smtp_replies.refusal(closing.reply)
            if self.accepted and smtp_replies.ends_connection_only(closing.reply):
                return self._until_closing(under_way, outcomes, rest)
        self.mails += len(emails)
        self.used_at = time.monotonic()
        return [outcomes.get(index, rest) for index in range(len(emails))]

    def _until_closing(self, under_way: int | None, outcomes: dict[int, Outcome], closing: Outcome) -> list[Outcome]:
        """The outcomes up to the mail at which the server closed. One whose content it had is not repeated at once."""
        if under_way is None:
            return []
        if self._dot_at is not None:
            outcomes[under_way] = replace(closing, result=Result.TRANSIENT)
        done = under_way + 1 if under_way in outcomes else under_way
        return [outcomes[index] for index in range(done)]

    def _in_order(
        self, emails: Sequence[OutboundEmail], outcomes: dict[int, Outcome]
    ) -> Iterator[tuple[int, Mail, bytes]]:
        """Each mail with its index and the commands of the next one that may go out together with its last bytes."""
        prepared = self._prepared(emails, outcomes)
        index, mail = next(prepared, (0, None))
        if mail is not None and mail.ahead:
            self._wire.write(mail.ahead)
        while mail is not None:
            following, next_mail = next(prepared, (0, None))
            yield index, mail, next_mail.ahead if next_mail is not None else b""
            index, mail = following, next_mail

    def _prepared(self, emails: Sequence[OutboundEmail], outcomes: dict[int, Outcome]) -> Iterator[tuple[int, Mail]]:
        """The mails that this server can take; why it cannot take the others goes into ``outcomes``."""
        for index, email in enumerate(emails):
            try:
                yield index, self._offers.prepare(email)
            except Unfit as unfit:
                outcomes[index] = Outcome(result=Result.PERMANENT, detail=str(unfit))

    def _fate(self, lost: ConnectionLost) -> Outcome:
        """Of the mail that was under way: uncertain if its final dot may have arrived, else surely not sent."""
        if self._dot_at is not None and self._wire.handed >= self._dot_at:
            return Outcome(result=Result.UNCERTAIN, detail=f"no answer to the complete mail: {lost}")
        return Outcome(result=Result.TRANSIENT, detail=f"broken off before the mail was complete: {lost}")

    def _transfer(self, index: int, mail: Mail, ahead: bytes, outcomes: dict[int, Outcome]) -> None:
        answers = self._read_answers(mail) if mail.ahead else self._ask_for_answers(mail)
        refused = _refused(mail.recipients, answers.recipients)
        refusal = _refusal(answers, refused)
        if refusal is not None:
            outcomes[index] = refusal
            self._abandon(answers, refused, ahead)
            return
        self._dot_at = len(mail.content)
        self._wire.write(mail.content + ahead if ahead else mail.content)
        reply = self._reply(self._timeouts.dot)
        if 300 <= reply.code < 400:
            raise ConnectionLost(f"an answer out of turn ({reply.code})")
        accepted = reply.code < 300
        self.accepted += accepted
        outcomes[index] = smtp_replies.acceptance(reply, refused) if accepted else smtp_replies.refusal(reply)
        self._dot_at = None

    def _abandon(self, answers: _Answers, refused: dict[str, Outcome], ahead: bytes) -> None:
        """Leaves a refused mail so that the next can start."""
        goes_on = answers.data is not None and answers.data.code == 354
        if goes_on and len(refused) < len(answers.recipients):
            raise ConnectionLost("the server would send a mail that it refused")
        # A server that says 354 all the same waits for content; to no recipient (RFC 2920 section 3.1).
        self._wire.write((DOT if goes_on else RSET) + ahead)
        self._reply()

    def _read_answers(self, mail: Mail) -> _Answers:
        return _Answers(self._reply(), [self._reply() for _ in mail.recipients], self._reply())

    def _ask_for_answers(self, mail: Mail) -> _Answers:
        """Step by step, and no further than it makes sense."""
        sender, *recipients, data = mail.commands
        answers = _Answers(self._ask_raw(sender), [], None)
        if answers.sender.code < 300:
            answers.recipients = [self._ask_raw(command) for command in recipients]
        if any(reply.code < 300 for reply in answers.recipients):
            answers.data = self._ask_raw(data)
        return answers

    # -- commands -------------------------------------------------------------------------------------------------

    def _ask(self, command: bytes) -> Reply:
        return self._ask_raw(command + b"\r\n")

    def _ask_raw(self, line: bytes) -> Reply:
        self._wire.write(line)
        return self._reply()

    def _reply(self, timeout: float | None = None) -> Reply:
        reply = self._wire.reply(self._timeouts.command if timeout is None else timeout)
        self._answered += 1
        if reply.code == 421:
            raise _Closing(reply)
        return reply


def _refused(recipients: tuple[str, ...], replies: list[Reply]) -> dict[str, Outcome]:
    return {
        address: smtp_replies.recipient_refusal(reply)
        for address, reply in zip(recipients, replies, strict=False)
        if reply.code >= 300
    }


def _refusal(answers: _Answers, refused: dict[str, Outcome]) -> Outcome | None:
    """What the envelope came to, or None if the content may follow."""
    if answers.sender.code >= 300:
        return smtp_replies.refusal(answers.sender)
    if len(refused) == len(answers.recipients):
        return smtp_replies.all_refused(refused)
    if answers.data is None or answers.data.code == 354:
        return None
    if answers.data.code < 400:
        raise ConnectionLost(f"an answer out of turn ({answers.data.code})")
    return replace(smtp_replies.refusal(answers.data), recipients=refused)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _own_name(address: str) -> bytes:
    """For EHLO: the host's name if it is a full one, else the address (RFC 5321 section 4.1.3)."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name.encode()
    literal = address.partition("%")[0]
    return f"[IPv6:{literal}]".encode() if ":" in literal else f"[{literal}]".encode()
