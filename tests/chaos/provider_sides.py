"""The provider's side of a run: an emulator, what it does wrong, and what it has to say of the mail it took."""

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from models.message import Message
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Emulator, Fault, Hook
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import Does, Offer, SmtpEmulator, Stage
from providers.emulators.smtp import Fault as SmtpFault
from providers.emulators.sparkpost import SparkPostEmulator

CHANCE = 0.05
INDEX_LAG_SECONDS = 0.2
STORM = 12
"""429s one after the other, once in each run."""

HTTP_FAULTS = (
    Fault.ACCEPT_THEN_504,
    Fault.ACCEPT_THEN_CLOSE,
    Fault.ACCEPT_THEN_DRIP,
    Fault.CLOSE,
    Fault.ERROR_503,
    Fault.THROTTLED,
    Fault.UNAUTHORIZED,
)
SMTP_FAULTS = (
    SmtpFault(Stage.MAIL, Does.CLOSE),
    SmtpFault(Stage.DATA, Does.RESET),
    SmtpFault(Stage.BODY, Does.CLOSE),
    SmtpFault(Stage.DOT, Does.CLOSE, store=True),
    SmtpFault(Stage.DOT, Does.CLOSE),
    SmtpFault(Stage.DOT, Does.HANG, store=True),
    SmtpFault(Stage.DOT, Does.DRIP, store=True),
    SmtpFault(Stage.DOT, Does.REPLY, "451 4.3.0 try again"),
)


class Side(ABC):
    """The provider's side of a run."""

    provider: ClassVar[str]
    can_be_asked: ClassVar[bool] = True
    """Whether it took a mail."""
    reports: ClassVar[bool] = False
    """Delivery is told by webhooks."""
    refuses: ClassVar[bool] = False
    """Some recipients for good."""
    wave: ClassVar[int] = 1000
    """Mails submitted together."""
    auth_url: str | None = None
    delivered: Counter[str]
    """Our reference, or the Message-ID where there is no other -> how often it was delivered."""

    @property
    @abstractmethod
    def base_url(self) -> str: ...

    @abstractmethod
    def credentials(self) -> dict[str, Any]:
        """Those that are good now."""

    @abstractmethod
    def misbehave(self, seed: int) -> None: ...

    @abstractmethod
    def storm(self) -> None:
        """A row of refusals."""

    @abstractmethod
    def revoke(self) -> None:
        """The credentials handed out so far are good no longer."""

    @abstractmethod
    def met(self) -> Mapping[str, int]:
        """Faults by name, as often as they were met."""

    def address(self, number: int) -> str:
        """The recipient of a mail; each 50th of `refuses` is refused for good."""
        return f"r{number}@client.test"

    def owes_hooks(self) -> bool:
        return False

    def take_hooks(self, dice: random.Random) -> list[Hook]:
        """Some of the webhook calls owed so far."""
        return []

    def key_of(self, message: Message) -> str:
        """Under which ``delivered`` counts a mail."""
        return message.id.hex

    @abstractmethod
    def stop(self) -> None: ...


class HttpSide(Side):
    emulator: Emulator
    paths: ClassVar[tuple[str, ...]]
    """Ends of the paths of calls that carry or send a mail."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator.start()
        emulator.retry_after = "0"
        self.delivered = emulator.ledger

    @property
    def base_url(self) -> str:
        return self.emulator.url

    def misbehave(self, seed: int) -> None:
        self.emulator.fail_at_random(dict.fromkeys(HTTP_FAULTS, CHANCE), path=self.paths)

    def storm(self) -> None:
        self.emulator.fail(*[Fault.THROTTLED] * STORM, path=self.paths[-1])

    def revoke(self) -> None:
        self.emulator.revoke()

    def met(self) -> Mapping[str, int]:
        return {fault.value: count for fault, count in self.emulator.met.items()}

    def owes_hooks(self) -> bool:
        return self.reports and bool(self.emulator.hooks)

    def take_hooks(self, dice: random.Random) -> list[Hook]:
        with self.emulator.lock:
            owed = self.emulator.hooks
            some = set(dice.sample(range(len(owed)), (len(owed) + 1) // 2))
            self.emulator.hooks = [hook for number, hook in enumerate(owed) if number not in some]
            return [hook for number, hook in enumerate(owed) if number in some]

    def stop(self) -> None:
        self.emulator.stop()


class PostmarkSide(HttpSide):
    provider = "postmark"
    refuses = True
    reports = True
    paths = ("/email/batch",)
    emulator: PostmarkEmulator

    def __init__(self, seed: int) -> None:
        super().__init__(PostmarkEmulator(seed=seed, index_lag_seconds=INDEX_LAG_SECONDS))

    def misbehave(self, seed: int) -> None:
        super().misbehave(seed)
        self.emulator.break_chance = CHANCE

    def credentials(self) -> dict[str, Any]:
        return {"server_token": self.emulator.server_token}

    def address(self, number: int) -> str:
        if number % 50:
            return super().address(number)
        self.emulator.inactive.add(f"gone{number}@client.test")
        return f"gone{number}@client.test"


class MailgunSide(HttpSide):
    provider = "mailgun"
    reports = True
    paths = ("/messages.mime",)
    emulator: MailgunEmulator

    def __init__(self, seed: int) -> None:
        super().__init__(MailgunEmulator(seed=seed, index_lag_seconds=INDEX_LAG_SECONDS))
        self.emulator.rewrite_message_id = True

    def credentials(self) -> dict[str, Any]:
        mailgun = self.emulator
        return {"api_key": mailgun.api_key, "domain": mailgun.domain, "signing_key": mailgun.signing_key}


class SparkPostSide(HttpSide):
    provider = "sparkpost"
    refuses = True
    reports = True
    paths = ("/transmissions",)
    emulator: SparkPostEmulator

    def __init__(self, seed: int) -> None:
        super().__init__(SparkPostEmulator(seed=seed, index_lag_seconds=INDEX_LAG_SECONDS))

    def credentials(self) -> dict[str, Any]:
        return {"api_key": self.emulator.api_key, "hook_secret": self.emulator.hook_secret}

    def address(self, number: int) -> str:
        if number % 50:
            return super().address(number)
        self.emulator.suppressed.add(f"gone{number}@client.test")
        return f"gone{number}@client.test"


class GmailSide(HttpSide):
    provider = "gmail"
    wave = 150  # what a mailbox sends in a minute; its adapter's searches are made for that
    paths = ("/drafts", "/drafts/send")
    emulator: GmailEmulator

    def __init__(self, seed: int) -> None:
        super().__init__(GmailEmulator(seed=seed))
        self.auth_url = self.emulator.url

    def credentials(self) -> dict[str, Any]:
        oauth = self.emulator.oauth
        return {
            "client_id": oauth.client_id,
            "client_secret": oauth.client_secret,
            "refresh_token": oauth.refresh_token,
        }


class Microsoft365Side(HttpSide):
    provider = "microsoft365"
    paths = ("/me/messages", "/send")
    emulator: Microsoft365Emulator

    def __init__(self, seed: int) -> None:
        super().__init__(Microsoft365Emulator(seed=seed, sent_lag_seconds=INDEX_LAG_SECONDS))
        self.emulator.rewrite_message_id = True
        self.auth_url = self.emulator.url

    def credentials(self) -> dict[str, Any]:
        return dict(self.emulator.credentials())


class SmtpSide(Side):
    provider = "smtp"
    can_be_asked = False
    refuses = True

    def __init__(self, seed: int, offer: Offer | None = None) -> None:
        self.emulator: SmtpEmulator = SmtpEmulator(offer, keep_data=False).start()
        self.delivered = self.emulator.ledger

    @property
    def base_url(self) -> str:
        return self.emulator.url

    def credentials(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.emulator.port, "security": "none"}

    def misbehave(self, seed: int) -> None:
        self.emulator.fail_at_random(dict.fromkeys(SMTP_FAULTS, CHANCE), seed)

    def storm(self) -> None:
        self.emulator.fail(*[SmtpFault(Stage.GREETING, Does.REPLY, "450 4.3.2 too busy")] * STORM)

    def revoke(self) -> None:
        """A server without a login has nothing to revoke."""

    def met(self) -> Mapping[str, int]:
        kept = {True: ", stored", False: ""}
        return {f"{fault.at} {fault.does}{kept[fault.store]}": n for fault, n in self.emulator.met.items()}

    def key_of(self, message: Message) -> str:
        return message.rfc_message_id

    def stop(self) -> None:
        self.emulator.stop()

    def address(self, number: int) -> str:
        return super().address(number) if number % 50 else f"bounce-550+{number}@client.test"


class GmailSmtpSide(SmtpSide):
    """The mailbox's SMTP: access tokens of Google's endpoint log in."""

    provider = "gmail_smtp"

    def __init__(self, seed: int) -> None:
        self.google = GmailEmulator(seed=seed).start()
        self.auth_url = self.google.url
        super().__init__(seed, Offer(knows_token=lambda token: self.google.oauth.scopes_of(token) is not None))

    def credentials(self) -> dict[str, Any]:
        oauth = self.google.oauth
        return {
            "username": "ann@demo.test",
            "client_id": oauth.client_id,
            "client_secret": oauth.client_secret,
            "refresh_token": oauth.refresh_token,
        }

    def revoke(self) -> None:
        self.google.revoke()
        self.emulator.drop_connections()

    def stop(self) -> None:
        super().stop()
        self.google.stop()


class OutlookSmtpSide(SmtpSide):
    """The same with Microsoft's tokens."""

    provider = "outlook_smtp"

    def __init__(self, seed: int) -> None:
        self.microsoft = Microsoft365Emulator(seed=seed).start()
        self.auth_url = self.microsoft.url
        super().__init__(seed, Offer(knows_token=lambda token: token in self.microsoft.access_tokens))

    def credentials(self) -> dict[str, Any]:
        return {"username": "ann@demo.test", **self.microsoft.credentials()}

    def revoke(self) -> None:
        self.microsoft.revoke()
        self.emulator.drop_connections()

    def stop(self) -> None:
        super().stop()
        self.microsoft.stop()


SIDES: dict[str, Callable[[int], Side]] = {
    side.provider: side
    for side in (
        PostmarkSide,
        MailgunSide,
        SparkPostSide,
        GmailSide,
        Microsoft365Side,
        SmtpSide,
        GmailSmtpSide,
        OutlookSmtpSide,
    )
}
