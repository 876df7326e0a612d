"""Each adapter with the emulated provider it talks to, in one form: what `test_contract` runs on."""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar, Self

import providers.oauth
from providers import open_provider
from providers.base import Account, HookRequest, OutboundEmail, Provider, Result
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Emulator, Fault, Hook
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import Does, Offer, SmtpEmulator, Stage
from providers.emulators.smtp import Fault as SmtpFault
from providers.emulators.sparkpost import SparkPostEmulator
from tests.providers.arrivals import Arrival, from_graph, from_mime, from_postmark
from tests.providers.samples import QUICK, account, fields, mail
from tests.providers.smtp_samples import LOOPBACK


class Failure(StrEnum):
    """What happens to the request that sends a mail."""

    CLOSE = "close"
    """The connection ends without an answer, after the whole request was read."""
    RESET = "reset"
    HANG = "hang"
    ERROR = "500"
    """The server's own fault; for SMTP a reply of 5yz to the content."""
    BUSY = "503"
    """The server's word that it does not take mail now; for SMTP a reply of 4yz to the content."""
    THROTTLED = "429"
    LOGGED_OUT = "401"


TOLD: dict[Failure, Result] = {
    Failure.CLOSE: Result.UNCERTAIN,
    Failure.RESET: Result.UNCERTAIN,
    Failure.HANG: Result.UNCERTAIN,
    Failure.ERROR: Result.UNCERTAIN,
    Failure.BUSY: Result.TRANSIENT,
    Failure.THROTTLED: Result.THROTTLED,
    Failure.LOGGED_OUT: Result.CREDENTIALS,
}
"""What an adapter makes of each failure, unless its bench says otherwise."""


class Bench(ABC):
    name: ClassVar[str]
    provider: Provider
    secrets: Sequence[str]
    """What must never be shown."""
    told: ClassVar[Mapping[Failure, Result]] = TOLD
    waits: ClassVar[bool] = True
    """The provider can say for how long it is too busy."""
    remade: ClassVar[frozenset[str]] = frozenset()
    """Optional fields, as `test_contract` names them, that the provider makes anew by itself."""
    events: ClassVar[frozenset[str]] = frozenset()
    """What it reports by webhook."""

    def __init__(self) -> None:
        self.closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.provider.close()
        self.closing.close()

    @abstractmethod
    def fail(self, failure: Failure) -> None:
        """The next request that sends a mail meets it."""

    def wait(self, retry_after: str) -> None:
        """The next request that sends a mail is too much; ``retry_after`` says when it will not be."""
        raise NotImplementedError

    @abstractmethod
    def sends(self) -> int:
        """How many requests that send a mail have reached the provider."""

    @abstractmethod
    def delivered(self, email: OutboundEmail) -> int:
        """How often the provider has taken this mail."""

    def bad(self) -> OutboundEmail:
        """A mail that the provider refuses for good."""
        return mail("gone@client.test")

    @abstractmethod
    def arrival(self) -> Arrival:
        """The last mail that the provider took."""

    def report(self, event: str) -> HookRequest:
        """A webhook call about the last mail."""
        raise NotImplementedError

    def forged(self, request: HookRequest) -> HookRequest:
        """The call as somebody makes it who does not know the secret."""
        return replace(request, headers={})


def as_request(hook: Hook) -> HookRequest:
    return HookRequest(headers={name.lower(): text for name, text in hook.headers.items()}, query={}, body=hook.body)


FAULTS = {
    Failure.CLOSE: Fault.CLOSE,
    Failure.RESET: Fault.RESET,
    Failure.HANG: Fault.HANG,
    Failure.ERROR: Fault.ERROR_500,
    Failure.BUSY: Fault.ERROR_503,
    Failure.THROTTLED: Fault.THROTTLED,
    Failure.LOGGED_OUT: Fault.UNAUTHORIZED,
}


class HttpBench(Bench):
    path: ClassVar[str]
    """The end of the one path that sends."""
    emulator: Emulator

    def serve(self, emulator: Emulator, *apis: str, **credentials: str) -> None:
        """apis: where the adapter keeps its HTTP clients."""
        self.emulator = self.closing.enter_context(emulator)
        self.provider = open_provider(account(self.name, emulator, **credentials))
        self.secrets = [value for name, value in credentials.items() if name not in ("tenant", "client_id", "domain")]
        for path in apis:
            api: Any = self.provider
            for part in path.split("."):
                api = getattr(api, part)
            api.timeout = QUICK

    def fail(self, failure: Failure) -> None:
        self.emulator.fail(FAULTS[failure], path=self.path)

    def wait(self, retry_after: str) -> None:
        self.emulator.retry_after = retry_after
        self.emulator.fail(Fault.THROTTLED, path=self.path)

    def sends(self) -> int:
        return len(self.emulator.calls_to(self.path))

    def delivered(self, email: OutboundEmail) -> int:
        return self.emulator.ledger[email.ref]


class PostmarkBench(HttpBench):
    name = "postmark"
    path = "/email/batch"
    events = frozenset({"delivered", "bounced", "deferred", "complained", "opened", "clicked", "unsubscribed"})
    emulator: PostmarkEmulator
    _records: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        "delivered": ("Delivery", {}),
        "bounced": ("Bounce", {"Type": "HardBounce", "ID": 1}),
        "deferred": ("Bounce", {"Type": "Transient", "ID": 2}),
        "complained": ("SpamComplaint", {}),
        "opened": ("Open", {}),
        "clicked": ("Click", {"OriginalLink": "https://demo.test/a"}),
        "unsubscribed": ("SubscriptionChange", {"SuppressSending": True, "SuppressionReason": "ManualSuppression"}),
    }

    def __init__(self) -> None:
        super().__init__()
        emulator = PostmarkEmulator()
        emulator.server_token, emulator.hook_password = "a-token-nobody-may-see", "a-password-nobody-may-see"
        emulator.inactive = {"gone@client.test"}
        self.serve(emulator, "_api", server_token=emulator.server_token, hook_secret=emulator.hook_password)

    def arrival(self) -> Arrival:
        return from_postmark(self.emulator.mails[-1].fields, base64.b64decode)

    def report(self, event: str) -> HookRequest:
        record, more = self._records[event]
        self.emulator.report(record, self.emulator.mails[-1], **more)
        return as_request(self.emulator.hooks[-1])


class MailgunBench(HttpBench):
    name = "mailgun"
    path = "/messages.mime"
    events = PostmarkBench.events | {"accepted"}
    emulator: MailgunEmulator

    def __init__(self) -> None:
        super().__init__()
        mailgun = MailgunEmulator()
        keys = {"api_key": mailgun.api_key, "signing_key": mailgun.signing_key}
        self.serve(mailgun, "_api", domain=mailgun.domain, **keys)

    def bad(self) -> OutboundEmail:
        return mail(rfc_message_id="<no-at-sign>")

    def arrival(self) -> Arrival:
        last = self.emulator.mails[-1]
        return from_mime(last.mime, last.recipients)

    def report(self, event: str) -> HookRequest:
        return as_request(self.emulator.signed(self.emulator.report(event, self.emulator.mails[-1])))

    def forged(self, request: HookRequest) -> HookRequest:
        body = json.loads(request.body)
        body["signature"]["signature"] = "0" * 64
        return replace(request, body=json.dumps(body).encode())


class SparkPostBench(HttpBench):
    name = "sparkpost"
    path = "/transmissions"
    events = PostmarkBench.events | {"accepted", "generation_failed"}
    emulator: SparkPostEmulator
    _types: ClassVar[dict[str, str]] = {
        "accepted": "injection",
        "delivered": "delivery",
        "deferred": "delay",
        "bounced": "bounce",
        "complained": "spam_complaint",
        "opened": "open",
        "clicked": "click",
        "unsubscribed": "list_unsubscribe",
        "generation_failed": "generation_failure",
    }

    def __init__(self) -> None:
        super().__init__()
        sparkpost = SparkPostEmulator()
        sparkpost.suppressed = {"gone@client.test"}
        self.serve(sparkpost, "_api", api_key=sparkpost.api_key, hook_secret=sparkpost.hook_secret)

    def arrival(self) -> Arrival:
        last = self.emulator.mails[-1]
        return from_mime(last.mime.encode(), last.recipients)

    def report(self, event: str) -> HookRequest:
        more = {"bounce_class": "10"} if event == "bounced" else {}
        reported = self.emulator.report(self._types[event], self.emulator.mails[-1], **more)
        return as_request(self.emulator.batch(reported))


class GmailBench(HttpBench):
    """The request that sends is ``drafts.send``; a draft carries the mail before it."""

    name = "gmail"
    path = "/drafts/send"
    told: ClassVar[Mapping[Failure, Result]] = {
        **TOLD,
        Failure.BUSY: Result.UNCERTAIN,
    }  # Google may answer 503 to what it did
    emulator: GmailEmulator

    def __init__(self) -> None:
        super().__init__()
        providers.oauth._cache.clear()  # a port, and with it an account, may be that of a test before
        gmail = GmailEmulator()
        gmail.oauth.client_secret, gmail.oauth.refresh_token = "a-secret-nobody-may-see", "a-token-nobody-may-see"
        secrets = {"client_secret": gmail.oauth.client_secret, "refresh_token": gmail.oauth.refresh_token}
        self.serve(gmail, "_service.api", client_id=gmail.oauth.client_id, **secrets)

    def fail(self, failure: Failure) -> None:
        super().fail(failure)
        if failure is Failure.LOGGED_OUT:  # and the refresh token no longer helps
            self.provider.check()
            self.emulator.fail(Fault.UNAUTHORIZED, path="/token")

    def sends(self) -> int:
        return max(len(self.emulator.calls_to("/drafts")), len(self.emulator.calls_to(self.path)))

    def bad(self) -> OutboundEmail:
        return mail(mime=b"Subject: x\r\n\r\n", recipients=())

    def arrival(self) -> Arrival:
        [last] = [message for message in self.emulator.messages.values() if "SENT" in message.labels][-1:]
        # Gmail serves those whom the headers of the draft name, and takes Bcc out.
        draft = self.emulator.calls_to("/drafts")[-1].json
        named = from_mime(base64.urlsafe_b64decode(draft["message"]["raw"]), ())
        blind = [part.strip() for part in named.headers.get("bcc", "").split(",") if part.strip()]
        return from_mime(last.mime, [*(box.email for box in (*named.to, *named.cc)), *blind])


class Microsoft365Bench(HttpBench):
    name = "microsoft365"
    path = "/send"
    told: ClassVar[Mapping[Failure, Result]] = {**TOLD, Failure.BUSY: Result.THROTTLED}
    remade = frozenset({"text beside html"})  # Exchange keeps one body and makes the other from it
    events = frozenset({"received"})
    emulator: Microsoft365Emulator

    def __init__(self) -> None:
        super().__init__()
        microsoft = Microsoft365Emulator()
        self.serve(microsoft, "_graph.api", "_graph.tokens._api", **microsoft.credentials())

    def fail(self, failure: Failure) -> None:
        super().fail(failure)
        if failure is Failure.LOGGED_OUT:  # and the refresh token no longer helps
            self.provider.check()
            self.emulator.fail(Fault.UNAUTHORIZED, path="/token")

    def bad(self) -> OutboundEmail:
        return mail(fields=fields(headers={"Auto-Submitted": "auto-replied"}))

    def arrival(self) -> Arrival:
        last = list(self.emulator.mails.values())[-1]
        return from_graph(last.resource, last.files)

    def report(self, event: str) -> HookRequest:
        self.emulator.notify(self.provider.client_state)  # type: ignore[attr-defined]
        return as_request(self.emulator.hooks[-1])

    def forged(self, request: HookRequest) -> HookRequest:
        body = json.loads(request.body)
        body["value"][0]["clientState"] = "0" * 64
        return replace(request, body=json.dumps(body).encode())


class SmtpBench(Bench):
    name = "smtp"
    told: ClassVar[Mapping[Failure, Result]] = {**TOLD, Failure.ERROR: Result.PERMANENT}
    waits = False
    pipelining: ClassVar[bool] = True
    _faults: ClassVar[dict[Failure, SmtpFault]] = {
        Failure.CLOSE: SmtpFault(Stage.DOT, Does.CLOSE, store=True),
        Failure.RESET: SmtpFault(Stage.DOT, Does.RESET, store=True),
        Failure.HANG: SmtpFault(Stage.DOT, Does.HANG, store=True),
        Failure.ERROR: SmtpFault(Stage.DOT, Does.REPLY, "554 5.6.0 refused"),
        Failure.BUSY: SmtpFault(Stage.DOT, Does.REPLY, "451 4.3.0 try again"),
        Failure.THROTTLED: SmtpFault(Stage.MAIL, Does.REPLY, "421 4.7.0 too fast"),
        Failure.LOGGED_OUT: SmtpFault(Stage.MAIL, Does.REPLY, "530 5.7.0 log in first"),
    }

    def __init__(self) -> None:
        super().__init__()
        credentials = self.credentials()
        self.server = self.closing.enter_context(SmtpEmulator(self.offer()))
        self.secrets = [value for name, value in credentials.items() if name not in ("username", "client_id", "tenant")]
        self.provider = open_provider(
            Account(
                mailer_id="m1",
                provider=self.name,
                credentials=credentials,
                base_url=self.server.url,
                auth_url=self.auth_url,
                guard=LOOPBACK,
            )
        )
        adapter: Any = self.provider
        adapter.connect_timeout, adapter.command_timeout, adapter.dot_timeout = 2.0, 0.3, 0.3

    auth_url: str | None = None

    def credentials(self) -> dict[str, str]:
        return {"username": "ann", "password": "s3cret-word"}

    def offer(self) -> Offer:
        return Offer(pipelining=self.pipelining, passwords={"ann": "s3cret-word"})

    def fail(self, failure: Failure) -> None:
        self.server.fail(self._faults[failure])

    def sends(self) -> int:
        return sum(command.startswith("MAIL") for command in self.server.commands)

    def delivered(self, email: OutboundEmail) -> int:
        return self.server.ledger[email.rfc_message_id]

    def bad(self) -> OutboundEmail:
        return mail("bounce-550@client.test")

    def arrival(self) -> Arrival:
        last = self.server.received[-1]
        return from_mime(last.data, last.recipients)


class SteppingSmtpBench(SmtpBench):
    """A server that does not pipeline."""

    pipelining = False


class GmailSmtpBench(SmtpBench):
    name = "gmail_smtp"

    def credentials(self) -> dict[str, str]:
        providers.oauth._cache.clear()
        self.google = self.closing.enter_context(GmailEmulator())
        self.auth_url = self.google.url
        oauth = self.google.oauth
        oauth.client_secret, oauth.refresh_token = "a-secret-nobody-may-see", "a-token-nobody-may-see"
        secrets = {"client_secret": oauth.client_secret, "refresh_token": oauth.refresh_token}
        return {"username": "ann@demo.test", "client_id": oauth.client_id, **secrets}

    def offer(self) -> Offer:
        return Offer(knows_token=lambda token: self.google.oauth.scopes_of(token) is not None)


class OutlookSmtpBench(SmtpBench):
    name = "outlook_smtp"

    def credentials(self) -> dict[str, str]:
        providers.oauth._cache.clear()
        self.microsoft = self.closing.enter_context(Microsoft365Emulator())
        self.auth_url = self.microsoft.url
        return {"username": "ann@demo.test", **self.microsoft.credentials()}

    def offer(self) -> Offer:
        return Offer(knows_token=lambda token: token in self.microsoft.access_tokens)


BENCHES: Mapping[str, type[Bench]] = {
    "postmark": PostmarkBench,
    "mailgun": MailgunBench,
    "sparkpost": SparkPostBench,
    "gmail": GmailBench,
    "microsoft365": Microsoft365Bench,
    "smtp": SmtpBench,
    "smtp, step by step": SteppingSmtpBench,
    "gmail_smtp": GmailSmtpBench,
    "outlook_smtp": OutlookSmtpBench,
}
"""Every adapter, SMTP in both of its ways."""
