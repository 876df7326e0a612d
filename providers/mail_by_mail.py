"""For a provider that takes one mail a request: a list goes out over several connections at once."""

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from providers.base import Account, Failed, Form, OutboundEmail, Outcome, Provider, Result


class MailByMail(Provider):
    """`send` made of `send_one`."""

    title: ClassVar[str]
    """The name as people write it."""
    parallel: ClassVar[bool] = True
    max_recipients: ClassVar[int | None] = None
    """Of one mail; None: as many as fit."""
    has_ip_pools: ClassVar[bool] = False

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._threads = ThreadPoolExecutor(self.connections, thread_name_prefix=self.name)

    def send(self, emails: Sequence[OutboundEmail]) -> Sequence[Outcome]:
        if len(emails) == 1:
            return [self._outcome(emails[0])]
        return list(self._threads.map(self._outcome, emails))

    def _outcome(self, email: OutboundEmail) -> Outcome:
        reason = self.refusal(email)
        if reason:
            return Outcome(result=Result.PERMANENT, detail=reason)
        try:
            return self.send_one(email)
        except Failed as failure:
            return failure.outcome

    def refusal(self, email: OutboundEmail) -> str | None:
        """Why the provider cannot carry this mail, or None."""
        count, size = len(email.recipients), len(email.mime or b"")
        if (email.mime if self.form is Form.MIME else email.fields) is None:
            return f"{self.title} needs the mail as {'MIME' if self.form is Form.MIME else 'fields'}"
        if email.ip_pool and not self.has_ip_pools:
            return f"{self.title} has no IP pools; leave ip_pool out"
        if self.max_recipients is not None and count > self.max_recipients:
            return f"{self.title} takes {self.max_recipients} recipients a message; this one has {count}"
        if size > self.max_bytes:
            return f"{self.title} takes {self.max_bytes} bytes a message; this one has {size}"
        return None

    @abstractmethod
    def send_one(self, email: OutboundEmail) -> Outcome:
        """Puts a mail without `refusal` on the wire at most once. May raise Failed instead of returning an outcome."""

    def close(self) -> None:
        self._threads.shutdown()
