"""What an SMTP emulator offers, what it took, and what it still has to do wrong."""

import random
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from providers.emulators.smtp_faults import Fault, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A mail that the server took."""

    sender: str
    recipients: tuple[str, ...]
    parameters: str
    """What stood after the address in MAIL FROM."""
    data: bytes = field(repr=False)
    """As it was before dots were stuffed; empty where the emulator keeps no data."""
    message_id: str
    """Its header, with angle brackets; empty if there is none."""
    username: str | None
    encrypted: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the server says it can, and who may use it."""

    ehlo: bool = True
    """False: knows HELO only."""
    pipelining: bool = True
    eight_bit: bool = True
    smtputf8: bool = True
    size: int = 36_700_160
    """Bytes; 0: not offered."""
    certificate: ssl.SSLContext | None = field(default=None, repr=False)
    """Makes STARTTLS possible."""
    implicit_tls: bool = False
    """TLS from the first byte, with ``certificate``."""
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    """User -> password. With any user, or any token, mail is taken after AUTH only."""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """User -> OAuth access token, for XOAUTH2."""
    knows_token: Callable[[str], bool] | None = field(default=None, repr=False)
    """Whether an access token is good for any user, besides ``tokens``: the word of an OAuth emulator."""
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", "XOAUTH2")

    @property
    def wants_login(self) -> bool:
        return bool(self.passwords or self.tokens or self.knows_token)

    def takes(self, username: str, token: str) -> bool:
        """Whether this access token lets the user in."""
        known = self.knows_token is not None and self.knows_token(token)
        return known or self.tokens.get(username) == token


class Books:
    """Shared by all connections of a server."""

    def __init__(self, offer: Offer, *, keep_data: bool, latency: float) -> None:
        self.offer = offer
        self.latency = latency
        self.keep_data = keep_data
        self.received: list[Received] = []
        self.ledger: Counter[str] = Counter()
        """Message-ID -> how often it was taken. More than once is a mail sent twice."""
        self.commands: deque[str] = deque(maxlen=10_000)
        """The latest commands as they came, without the secrets of AUTH."""
        self.contents = 0
        """Complete contents seen, taken or not."""
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.met: Counter[Fault] = Counter()
        """How often each fault has been met, those of `MAGIC` recipients left out."""
        self._script: list[Fault] = []
        self._chances: Mapping[Fault, float] = {}
        self._random = random.Random()  # noqa: S311 -- not a secret

    def fail(self, *faults: Fault) -> None:
        """Each of these happens once, at its stage, in the order given."""
        with self.lock:
            self._script += faults

    def fail_at_random(self, chances: Mapping[Fault, float], seed: int) -> None:
        """From now on each passage of a fault's stage meets it with its probability (0 to 1)."""
        with self.lock:
            self._chances = chances
            self._random = random.Random(seed)  # noqa: S311 -- not a secret

    def delivered_once(self, message_ids: Iterable[str]) -> bool:
        """Whether these mails were taken exactly once each, and no others were."""
        with self.lock:
            return dict(self.ledger) == dict.fromkeys(message_ids, 1)

    def next_fault(self, stage: Stage) -> Fault | None:
        with self.lock:
            fault = self._scripted(stage) or self._by_chance(stage)
            if fault is not None:
                self.met[fault] += 1
        return fault

    def _scripted(self, stage: Stage) -> Fault | None:
        for index, fault in enumerate(self._script):
            if fault.at is stage:
                return self._script.pop(index)
        return None

    def _by_chance(self, stage: Stage) -> Fault | None:
        chances = {fault: chance for fault, chance in self._chances.items() if fault.at is stage}
        dice = self._random.random() if chances else 1.0
        for fault, chance in chances.items():
            if dice < chance:
                return fault
            dice -= chance
        return None

    def take(self, mail: Received) -> int:
        """Keeps a mail; its number."""
        with self.lock:
            self.received.append(mail)
            self.ledger[mail.message_id] += 1
            return len(self.received)

    def count_content(self) -> None:
        with self.lock:
            self.contents += 1
