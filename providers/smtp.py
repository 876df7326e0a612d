"""Any SMTP server: persistent, pooled connections, pipelined dialogues."""

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from providers.base import (
    Account,
    BadSignature,
    Form,
    HookRequest,
    OutboundEmail,
    Outcome,
    Provider,
    ProviderEvent,
    Result,
)
from providers.credentials import Credential, Credentials, Kind
from providers.smtp_connection import Timeouts
from providers.smtp_login import Login, Unavailable
from providers.smtp_pools import DIRECT, Pools, Route
from providers.smtp_session import Session, Stale

IDLE_SECONDS = 30.0
"""A connection that has been idle for longer is asked (NOOP) before mail goes over it."""


QUICK_SECONDS = 0.001


class Smtp(Provider):
    """``base_url`` (``smtp://``, ``smtp+starttls://`` or ``smtps://host:port``) wins over host, port and security."""

    name: ClassVar[str] = "smtp"
    credentials: ClassVar[Credentials] = {
        "host": Credential(Kind.HOST),  # may be left out where base_url names the server
        "port": Credential(Kind.PORT),
        "security": Credential(("none", "starttls", "tls"), default="none"),
        "username": Credential(Kind.NAME, beside="password"),
        "password": Credential(Kind.SECRET),
        "auth": Credential(("plain", "login")),  # forces a mechanism
        "verify": Credential(Kind.SWITCH),  # true: even a local server's certificate is checked
    }
    form: ClassVar[Form] = Form.MIME
    batch: ClassVar[int] = 512
    group: ClassVar[int] = 16
    parallel: ClassVar[bool] = True
    confirms_delivery: ClassVar[bool] = False
    wants_signature: ClassVar[bool] = True
    server: ClassVar[str | None] = None
    """A provider's own server, in the form of a ``base_url``."""
    mails_per_connection: ClassVar[int] = 1000
    call_seconds: ClassVar[float] = 720.0
    """One final dot may wait `dot_timeout`; a server that answers none of a group in this time is given up on."""

    connect_timeout: float = 10.0
    command_timeout: float = 30.0
    dot_timeout: float = 600.0
    """Seconds to wait for the answer to a complete mail; a claim's lease must outlast it. Short ones make duplicates
    (RFC 1047, RFC 5321 section 4.5.3.2.6)."""

    def __init__(
        self,
        account: Account,
        *,
        connect_timeout: float | None = None,
        command_timeout: float | None = None,
        dot_timeout: float | None = None,
    ) -> None:
        super().__init__(account)
        self.connect_timeout = self.connect_timeout if connect_timeout is None else connect_timeout
        self.command_timeout = self.command_timeout if command_timeout is None else command_timeout
        self.dot_timeout = self.dot_timeout if dot_timeout is None else dot_timeout
        self._lock = threading.Lock()
        self._pools = Pools(account.ip_pools)
        self._idle: list[tuple[Route, Session]] = []
        """The one used longest ago first."""
        self._busy = 0
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self._seconds_a_mail = math.inf
        """On one connection, in the latest call."""

    def login(self) -> Login:
        """Where to connect and as whom. Raises Unavailable if the credentials do not say."""
        return Login.read(self.account.credentials, self.account.base_url or self.server)

    def send(self, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        """See `Provider.send`. More than one group is spread over the connections, a thread for each.

        A server that answers in less than `QUICK_SECONDS` a mail is kept busy by one connection: there, threads would
        only take turns.
        """
        started = time.monotonic()
        lanes = 1 if self._seconds_a_mail < QUICK_SECONDS else self.connections
        lanes = max(1, min(lanes, math.ceil(len(emails) / self.group)))
        outcomes = self._send_over(lanes, emails)
        self._seconds_a_mail = (time.monotonic() - started) * lanes / max(1, len(emails))
        return outcomes

    def _send_over(self, lanes: int, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        if lanes <= 1:
            return self._send_over_one(emails)
        share = math.ceil(len(emails) / lanes)
        shares = [emails[start : start + share] for start in range(0, len(emails), share)]
        others = [self._pool().submit(self._send_over_one, part) for part in shares[1:]]
        outcomes = self._send_over_one(shares[0])
        for other in others:
            outcomes += other.result()
        return outcomes

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.connections, thread_name_prefix="smtp")
            return self._threads

    def _send_over_one(self, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        if not self.account.ip_pools:
            return self._send_by(DIRECT, emails)
        by_pool: dict[str, list[int]] = {}
        for index, email in enumerate(emails):
            by_pool.setdefault(email.ip_pool, []).append(index)
        outcomes: dict[int, Outcome] = {}
        for name, places in by_pool.items():
            sent = self._send_through(name, [emails[index] for index in places])
            outcomes.update(zip(places, sent, strict=True))
        return [outcomes[index] for index in range(len(emails))]

    def _send_through(self, pool: str, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        try:
            route = self._pools.draw(pool)
        except Unavailable as unavailable:
            return [unavailable.outcome] * len(emails)
        return self._send_by(route, emails)

    def _send_by(self, route: Route, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        """As many connections as it takes: each carries at least one mail before its server may ask for the next."""
        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < len(emails):
                outcomes += self._on_one_connection(route, emails[len(outcomes) :])
        except Unavailable as unavailable:
            outcomes += [unavailable.outcome] * (len(emails) - len(outcomes))
        return outcomes

    def _on_one_connection(self, route: Route, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        """The outcomes of all, or of the first of them; see `Session.deliver`. Raises Unavailable."""
        session = self._take(route, len(emails))
        try:
            try:
                outcomes = self._deliver(session, emails)
            except Stale:
                session.close()
                session = self._open(route)
                outcomes = self._deliver(session, emails)
        except BaseException:
            self._leave()
            raise
        self._give_back(route, session)
        return outcomes

    def _deliver(self, session: Session, emails: Sequence[OutboundEmail]) -> list[Outcome]:
        try:
            return session.deliver(emails)
        except Stale:
            raise
        except BaseException:
            # In the middle of a mail; nobody may go on from here.
            session.close()
            raise

    def _open(self, route: Route = DIRECT) -> Session:
        return self._session(self.login(), route)

    def _session(self, login: Login, route: Route) -> Session:
        timeouts = Timeouts(connect=self.connect_timeout, command=self.command_timeout, dot=self.dot_timeout)
        return Session.open(route.applied(login), self.account.guard, timeouts, route.source)

    def _take(self, route: Route, mails: int) -> Session:
        """An idle connection that works and has room for so many mails, or a new one. Raises Unavailable.

        Until it is given back, or `_leave` says that it was lost, it counts as busy.
        """
        with self._lock:
            self._busy += 1
        try:
            while (session := self._take_idle(route)) is not None:
                if self._works(session, mails):
                    return session
                session.close(farewell=True)
            return self._open(route)
        except BaseException:
            self._leave()
            raise

    def _take_idle(self, route: Route) -> Session | None:
        """One that goes this way. If there is none, and no room for one more, the oldest of another way makes room."""
        surplus = None
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == route:
                    return self._idle.pop(index)[1]
            if self._idle and len(self._idle) + self._busy > self.connections:
                _, surplus = self._idle.pop(0)
        if surplus is not None:
            surplus.close(farewell=True)
        return None

    def _works(self, session: Session, mails: int) -> bool:
        if session.mails and session.mails + mails > self.mails_per_connection:
            return False
        fresh = time.monotonic() - session.used_at < IDLE_SECONDS
        return fresh or session.noop().result is Result.ACCEPTED

    def _leave(self) -> None:
        with self._lock:
            self._busy -= 1

    def _give_back(self, route: Route, session: Session) -> None:
        with self._lock:
            self._busy -= 1
            keep = not session.broken and not self._closed and len(self._idle) < self.connections
            if keep:
                self._idle.append((route, session))
        if not keep:
            session.close(farewell=True)

    def parse_events(self, request: HookRequest) -> list[ProviderEvent]:  # noqa: ARG002
        raise BadSignature(f"{self.name} has no webhooks")

    def check(self) -> Outcome:
        """Connects, logs in and says NOOP over a connection of its own; the same on each way of each pool.

        Says the first thing that is wrong.
        """
        outcomes = [self._checked(route) for route in (DIRECT, *self._pools.routes())]
        return next((one for one in outcomes if one.result is not Result.ACCEPTED), outcomes[0])

    def _checked(self, route: Route) -> Outcome:
        try:
            session = self._open(route)
        except Unavailable as unavailable:
            return unavailable.outcome
        outcome = session.noop()
        session.close(farewell=True)
        return outcome

    def close(self) -> None:
        """Says goodbye on idle connections; those in use are closed when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            threads, self._threads = self._threads, None
        for _, session in idle:
            session.close(farewell=True)
        if threads is not None:
            threads.shutdown(wait=False)
