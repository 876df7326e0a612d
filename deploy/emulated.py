"""Providers on loopback for trying things out: one emulator each, and the mailer that talks to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Emulator
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import SmtpEmulator
from providers.emulators.sparkpost import SparkPostEmulator

SENDER = "ann@demo.test"
"""Whom every emulated mailbox belongs to."""


@dataclass(frozen=True, slots=True)
class Emulated:
    """A running emulator and the body for ``POST /v1/mailers`` of a mailer that sends through it."""

    mailer: dict[str, Any]
    emulator: Emulator | SmtpEmulator


def _over_http(provider: str, emulator: Emulator, credentials: dict[str, str], *, by_oauth: bool = False) -> Emulated:
    emulator.start()
    roots = {"base_url": emulator.url} | ({"auth_url": emulator.url} if by_oauth else {})
    return Emulated(_mailer(provider, credentials) | roots, emulator)


def _mailer(provider: str, credentials: dict[str, Any]) -> dict[str, Any]:
    return {"provider": provider, "name": f"{provider} emulator", "from": [SENDER], "credentials": credentials}


def _postmark(port: int) -> Emulated:
    emulator = PostmarkEmulator(port=port)
    return _over_http("postmark", emulator, {"server_token": emulator.server_token})


def _gmail(port: int) -> Emulated:
    emulator = GmailEmulator(port=port)
    oauth = emulator.oauth
    credentials = {
        "client_id": oauth.client_id,
        "client_secret": oauth.client_secret,
        "refresh_token": oauth.refresh_token,
    }
    return _over_http("gmail", emulator, credentials, by_oauth=True)


def _microsoft365(port: int) -> Emulated:
    emulator = Microsoft365Emulator(port=port)
    return _over_http("microsoft365", emulator, emulator.credentials(), by_oauth=True)


def _mailgun(port: int) -> Emulated:
    emulator = MailgunEmulator(port=port)
    credentials = {"api_key": emulator.api_key, "domain": emulator.domain, "signing_key": emulator.signing_key}
    return _over_http("mailgun", emulator, credentials)


def _sparkpost(port: int) -> Emulated:
    emulator = SparkPostEmulator(port=port)
    return _over_http("sparkpost", emulator, {"api_key": emulator.api_key, "hook_secret": emulator.hook_secret})


def _smtp(port: int) -> Emulated:
    emulator = SmtpEmulator(port=port).start()
    credentials = {"host": "127.0.0.1", "port": emulator.port, "security": "none"}
    return Emulated(_mailer("smtp", credentials), emulator)


EMULATED: dict[str, Callable[[int], Emulated]] = {
    "postmark": _postmark,
    "gmail": _gmail,
    "microsoft365": _microsoft365,
    "mailgun": _mailgun,
    "sparkpost": _sparkpost,
    "smtp": _smtp,
}
"""By provider: starts the emulator on a port, 0 for a free one. Raises OSError where the port is taken."""
