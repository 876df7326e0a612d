"""Accounts and adapters for the SMTP emulator."""

from typing import Any

from providers.base import Account, OutboundEmail, Outcome
from providers.guard import Guard
from providers.smtp import Smtp
from tests.providers.samples import mail

LOOPBACK = Guard(frozenset({"127.0.0.1"}))


def account(url: str, *, guard: Guard = LOOPBACK, connections: int = 4, **credentials: Any) -> Account:
    return Account(
        mailer_id="m1",
        provider="smtp",
        credentials=credentials,
        base_url=url,
        connections=connections,
        guard=guard,
    )


def adapter(url: str, **options: Any) -> Smtp:
    return Smtp(account(url, **options), connect_timeout=20.0, command_timeout=0.6, dot_timeout=0.6)


def send_one(url: str, email: OutboundEmail | None = None, **options: Any) -> Outcome:
    provider = adapter(url, **options)
    try:
        (outcome,) = provider.send([email or mail()])
    finally:
        provider.close()
    return outcome


def results(outcomes: list[Outcome]) -> list[str]:
    return [outcome.result.value for outcome in outcomes]
