"""Gmail and Outlook over SMTP with OAuth: the token endpoint and the SMTP server agree on who may send."""

from collections.abc import Iterator
from typing import Any

import pytest

import providers.oauth
from providers.base import Account, Outcome, Result
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Fault
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.smtp import Does, Offer, SmtpEmulator, Stage
from providers.emulators.smtp import Fault as SmtpFault
from providers.gmail_smtp import GmailSmtp
from providers.outlook_smtp import OutlookSmtp
from providers.smtp_mailbox import MailboxSmtp
from tests.providers.samples import mail
from tests.providers.smtp_samples import LOOPBACK


@pytest.fixture
def google() -> Iterator[GmailEmulator]:
    providers.oauth._cache.clear()
    with GmailEmulator() as emulator:
        yield emulator


@pytest.fixture
def server(google: GmailEmulator) -> Iterator[SmtpEmulator]:
    """Takes mail from whoever brings a token that the OAuth emulator gave."""
    with SmtpEmulator(Offer(knows_token=lambda token: google.oauth.scopes_of(token) is not None)) as emulator:
        yield emulator


def account(server: SmtpEmulator, auth_url: str, **credentials: Any) -> Account:
    return Account(
        mailer_id="m1",
        provider="gmail_smtp",
        credentials={"username": "ann@demo.test", **credentials},
        base_url=server.url,
        auth_url=auth_url,
        guard=LOOPBACK,
    )


def gmail(server: SmtpEmulator, google: GmailEmulator, **changes: Any) -> GmailSmtp:
    oauth = google.oauth
    given = {
        "client_id": oauth.client_id,
        "client_secret": oauth.client_secret,
        "refresh_token": oauth.refresh_token,
    }
    return GmailSmtp(account(server, google.url, **(given | changes)))


def send(provider: MailboxSmtp) -> Outcome:
    try:
        [outcome] = provider.send([mail()])
    finally:
        provider.close()
    return outcome


def test_a_refresh_token_is_turned_into_a_login(server: SmtpEmulator, google: GmailEmulator) -> None:
    assert send(gmail(server, google)).result is Result.ACCEPTED
    assert server.received[0].username == "ann@demo.test"


def test_an_access_token_that_the_server_refuses_is_renewed_once(server: SmtpEmulator, google: GmailEmulator) -> None:
    send(gmail(server, google))
    google.oauth.expire()
    assert send(gmail(server, google)).result is Result.ACCEPTED
    assert google.oauth.granted == 2


def test_a_server_that_refuses_every_token_is_asked_twice_and_no_more(
    server: SmtpEmulator, google: GmailEmulator
) -> None:
    server.fail(*[SmtpFault(Stage.AUTH, Does.REPLY, "535 5.7.8 not accepted")] * 3)
    outcome = send(gmail(server, google))
    assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "535 5.7.8")
    assert google.oauth.granted == 2
    assert sum(command.startswith("AUTH") for command in server.commands) == 2


def test_a_revoked_grant_asks_for_a_reconnect(server: SmtpEmulator, google: GmailEmulator) -> None:
    google.oauth.revoked = True
    outcome = send(gmail(server, google))
    assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "invalid_grant")
    assert server.received == []


def test_a_token_endpoint_that_is_down_only_delays(server: SmtpEmulator, google: GmailEmulator) -> None:
    google.fail(Fault.ERROR_503, Fault.ERROR_503)
    assert send(gmail(server, google)).result is Result.TRANSIENT
    assert send(gmail(server, google)).result is Result.ACCEPTED


def test_a_password_needs_no_token(google: GmailEmulator) -> None:
    with SmtpEmulator(Offer(passwords={"ann@demo.test": "app-password"})) as server:
        assert send(gmail(server, google, password="app-password")).result is Result.ACCEPTED
    assert google.oauth.granted == 0


def test_outlook_asks_for_a_token_that_is_good_for_smtp() -> None:
    with Microsoft365Emulator() as microsoft:
        offer = Offer(knows_token=lambda token: token in microsoft.access_tokens)
        with SmtpEmulator(offer) as server:
            provider = OutlookSmtp(account(server, microsoft.url, **microsoft.credentials()))
            assert send(provider).result is Result.ACCEPTED
        [call] = microsoft.calls_to("/token")
        assert call.form["scope"] == ["https://outlook.office.com/SMTP.Send"]
