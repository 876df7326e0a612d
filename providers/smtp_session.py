"""The SMTP dialogue, mail after mail, pipelined where the server allows it (RFC 2920).

Pipelined, the content of a mail and the envelope of the next go out in one write, so a mail costs one round trip:

    >> MAIL RCPT DATA                     << 250 250 354
    >> content .  MAIL RCPT DATA          << 250 (mail 1)  250 250 354
    >> content .                          << 250 (mail 2)

No more than one final dot is ever unanswered, so a break leaves one mail uncertain and the others surely not sent.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from providers import smtp_replies
from providers.base import OutboundEmail, Outcome, Result
from providers.smtp_connection import Closing, Connection, Timeouts
from providers.smtp_mail import DOT, RSET, Mail, Unfit
from providers.smtp_wire import ConnectionLost, Reply, Wire


class Stale(Exception):
    """The server closed an idle connection, perhaps with a 421; it answered nothing else and no content was sent."""


@dataclass(slots=True)
class _Answers:
    """To MAIL, each RCPT and DATA, as far as the dialogue came."""

    sender: Reply
    recipients: list[Reply]
    data: Reply | None


class Session(Connection):
    """A connection that carries mail."""

    def __init__(self, wire: Wire, timeouts: Timeouts) -> None:
        super().__init__(wire, timeouts)
        self.mails = 0
        """How many it has carried."""
        self.accepted = 0
        """How many of them the server took."""
        self._dot_at: int | None = None
        """While a final dot is being written or awaits its answer: how many bytes of that write it ends at."""

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
        except Closing as closing:
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
