"""What a provider is to postroad: two required hooks, one optional, and outcomes that never guess.

    Outcome.result     meaning                                           what the worker does
    ACCEPTED           the provider said yes                             sent
    PERMANENT          this mail will never pass                         failed
    TRANSIENT          surely not accepted, may pass later               queued again, backoff
    THROTTLED          surely not accepted, not before retry_after       queued again, the lane slows down
    CREDENTIALS        the account's credentials are refused             queued, the mailer waits for reconnect
    UNCERTAIN          the request went out, no usable answer came       uncertain, then lookup

One call of `Provider.send` puts each mail on the wire at most once: no redirects, no retries of a client library, a
timeout on everything. An adapter lets no exception out for what a provider or a network can do; it returns outcomes.
A bug may raise.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from providers.credentials import Credentials
from providers.guard import Guard

if TYPE_CHECKING:
    from providers.inbox import Inbox


class Result(enum.StrEnum):
    ACCEPTED = "accepted"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    CREDENTIALS = "credentials"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one mail in one call."""

    result: Result
    detail: str = ""
    """The provider's own words, at most 500 characters, without credentials or mail bodies."""
    code: str | None = None
    """The provider's code: ``550 5.1.1``, ``422/406``."""
    retry_after: float | None = None
    """Seconds, where the provider said so."""
    untried: bool = False
    """With TRANSIENT: it was not begun, because of another mail on the same connection. No failure of its own."""
    provider_message_id: str | None = None
    rfc_message_id: str | None = None
    """The Message-ID as really sent, where the provider replaced ours and told us."""
    provider_thread_id: str | None = None
    recipients: Mapping[str, "Outcome"] = field(default_factory=dict)
    """Recipients that fared differently from ``result``. With ACCEPTED: those refused or still to be sent."""


def harmless(outcome: Outcome) -> Outcome:
    """Of a step that sends nothing: doubtful is worth another attempt."""
    return replace(outcome, result=Result.TRANSIENT) if outcome.result is Result.UNCERTAIN else outcome


class Failed(Exception):
    """Something that mails depend on did not work; ``outcome`` is what that means for each of them."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Form(enum.Enum):
    """What an adapter needs of a mail; composing the other would be wasted."""

    MIME = "mime"
    FIELDS = "fields"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    email: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An attachment with its bytes."""

    filename: str
    content_type: str
    data: bytes = field(repr=False)
    inline: bool = False
    content_id: str | None = None
    """Without angle brackets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A mail as a JSON API wants it. Everything is rendered; nothing is left to substitute."""

    sender: Mailbox
    to: tuple[Mailbox, ...] = field(repr=False)
    cc: tuple[Mailbox, ...] = field(default=(), repr=False)
    bcc: tuple[Mailbox, ...] = field(default=(), repr=False)
    reply_to: tuple[Mailbox, ...] = ()
    subject: str = field(repr=False)
    html: str | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Custom headers, In-Reply-To, References and List-Unsubscribe among them. Never Message-ID."""
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundEmail:
    """One mail, ready for the wire."""

    ref: str
    """Our own reference: 32 hex digits, stable over retries. Goes wherever the provider gives it back."""
    rfc_message_id: str
    """With angle brackets; the same on every attempt."""
    envelope_from: str
    recipients: tuple[str, ...] = field(repr=False)
    """Envelope recipients still to be served; on a retry perhaps fewer than the headers name."""
    mime: bytes | None = field(default=None, repr=False)
    """The whole mail with CRLF line ends, Bcc left out. Set for `Form.MIME`."""
    fields: Fields | None = None
    """Set for `Form.FIELDS`."""
    provider_thread_id: str | None = None
    draft_id: str | None = None
    """The ``provider_message_id`` of an earlier attempt: the draft that a draft-first provider left behind."""
    smtputf8: bool = False
    """An address or header cannot be written without SMTPUTF8 (RFC 6531)."""
    ip_pool: str = ""

    def named(self) -> tuple[Fields, tuple[tuple[Mailbox, ...], ...]]:
        """The fields, and their To, Cc and Bcc without those already served; whom none of them names is blind.

        For a provider that sends to whom these name. Raises ValueError for a mail without fields.
        """
        if self.fields is None:
            raise ValueError("the mail was not composed as fields")
        wanted = {address.casefold(): address for address in self.recipients}
        to, cc, bcc = (
            tuple(box for box in group if wanted.pop(box.email.casefold(), None) is not None)
            for group in (self.fields.to, self.fields.cc, self.fields.bcc)
        )
        return self.fields, (to, cc, (*bcc, *(Mailbox(email=address) for address in wanted.values())))


class NotKept(Exception):
    """Renewed credentials could not be read or stored now."""


class Keeper(Protocol):
    """Keeps the credentials of an account where all its processes find them."""

    def __call__(self, renew: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        """Calls ``renew`` with the credentials as they are stored now, while no other process does for this account.

        Stores what it returns; None stores nothing. Returns the credentials as they are stored then. Raises NotKept,
        and whatever ``renew`` raises.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A mailer as its adapter sees it. ``credentials`` are secret: never logged, never in a repr."""

    mailer_id: str
    provider: str
    credentials: Mapping[str, Any] = field(repr=False)
    base_url: str | None = None
    auth_url: str | None = None
    connections: int = 4
    ip_pools: Mapping[str, Any] = field(default_factory=dict)
    """As in `models.mailer.Mailer.ip_pools`."""
    guard: Guard = field(repr=False)
    """Says which hosts may be connected to; every adapter connects through it."""
    keeper: Keeper | None = field(default=None, repr=False)
    """Where renewed credentials go. None: nobody else uses the account, memory will do."""


class Lookup(enum.StrEnum):
    """The provider's answer to: did you take this mail?"""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    CANNOT_TELL = "cannot_tell"
    """It was asked and does not know."""
    UNANSWERED = "unanswered"
    """The question got no answer now; another time it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupAnswer:
    answer: Lookup
    detail: str = ""
    provider_message_id: str | None = None
    rfc_message_id: str | None = None
    provider_thread_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRequest:
    """A provider's call to ``/v1/hooks/{provider}/{token}`` as it came."""

    headers: Mapping[str, str]
    """Names in lower case."""
    query: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEvent:
    """One thing a provider reports. ``type`` is a word of `models.event.EventType`."""

    type: str
    at: datetime
    natural_key: str
    """The provider's identity of this event: the same report twice has the same key."""
    ref: str | None = None
    provider_message_id: str | None = None
    rfc_message_id: str | None = None
    recipient: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    """What a receiver may want to know: bounce type, url clicked, user agent, ..."""
    locator: str | None = None
    """Of mail that came in and still lies at the provider: what `providers.inbox.Inbox` fetches it by."""


class BadSignature(Exception):
    """The call does not come from the provider. Answered with 401, nothing is stored."""


class Provider(ABC):
    """An adapter. One instance serves one account in one worker process and may keep connections open."""

    name: ClassVar[str]
    credentials: ClassVar[Credentials]
    """What a mailer is made with, field by field."""
    form: ClassVar[Form] = Form.MIME
    batch: ClassVar[int] = 100
    """Mails one claim may take for this provider."""
    group: ClassVar[int] = 16
    """Mails put on the wire together on one connection, and so the most that a crash leaves uncertain on it."""
    parallel: ClassVar[bool] = False
    """``send`` itself spreads a list over `connections` connections."""
    max_connections: ClassVar[int | None] = None
    """What the provider allows at once, where it says so."""
    confirms_delivery: ClassVar[bool] = False
    """The provider reports delivery later; otherwise acceptance is the best news there is."""
    wants_signature: ClassVar[bool] = False
    """It passes mail on as it is; others sign what they send (DKIM) themselves."""
    default_caps: ClassVar[Mapping[str, int]] = {}
    """What the provider lets an account do where the mailer's own ``caps`` do not say: ``per_second``, ``per_minute``,
    ``per_day``, ``connections``. A name that is missing has no limit (four connections)."""
    max_bytes: ClassVar[int] = 25 * 1024 * 1024
    """Largest mail it takes, encoded."""
    settle_seconds: ClassVar[float] = 60.0
    """How long its own index may lag: a "not there" younger than this is no proof."""
    call_seconds: ClassVar[float] = 90.0
    """Longest that one call of `send` may take. The worker's lease outlasts it; a call that does not end is ended."""
    keeps_message_id: ClassVar[bool] = True
    """False where the provider puts its own Message-ID (Gmail): a caller's own id is ignored then."""

    def __init__(self, account: Account) -> None:
        self.account = account

    @property
    def connections(self) -> int:
        return max(1, min(self.account.connections, self.max_connections or self.account.connections))

    @abstractmethod
    def send(self, emails: Sequence[OutboundEmail]) -> Sequence[Outcome]:
        """Puts each mail on the wire at most once. Returns one outcome per mail, in the same order."""

    @abstractmethod
    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        """Checks the signature in constant time, then reads the events.

        Raises BadSignature; a provider without webhooks raises it always.
        """

    def lookup(self, email: OutboundEmail) -> LookupAnswer:  # noqa: ARG002 -- this one needs no look
        """Asks the provider whether it took this mail. Only for mails whose outcome is uncertain."""
        return LookupAnswer(answer=Lookup.CANNOT_TELL, detail=f"{self.name} keeps no record that can be asked")

    def inbox(self) -> "Inbox | None":
        """The readable side of the account; None where mail that comes in is not to be had."""
        return None

    def check(self) -> Outcome:
        """Connects and authenticates without sending: ``POST /v1/mailers/{id}/test``."""
        return Outcome(result=Result.ACCEPTED, detail="nothing to check")

    def close(self) -> None:  # noqa: B027 -- a provider may hold nothing
        """Gives back connections. Called when the account changes or the process ends."""
