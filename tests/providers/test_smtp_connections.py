"""SMTP connections: kept, replaced, logged in, encrypted."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers import smtp, smtp_connection, smtp_wire
from providers.base import Account, Result
from providers.emulators.smtp import Does, Fault, Offer, SmtpEmulator, Stage
from providers.gmail_smtp import GmailSmtp
from providers.guard import Guard
from providers.outlook_smtp import OutlookSmtp
from providers.smtp import Smtp
from tests.providers.conftest import Certificate
from tests.providers.samples import mail
from tests.providers.smtp_samples import account, adapter, results, send_one


def every_third(stage: Stage, reply: str) -> Callable[[Stage], Fault | None]:
    """The faults of a server that says this, and closes, each third time that a dialogue comes to the stage."""
    passages = itertools.count(1)
    fault = Fault(stage, Does.REPLY, reply)
    return lambda at: fault if at is stage and next(passages) % 3 == 0 else None


class TestConnections:
    def test_one_connection_carries_batch_after_batch(self, server: SmtpEmulator, provider: Smtp) -> None:
        for _ in range(5):
            provider.send([mail(), mail()])
        assert server.connections == 1

    @pytest.mark.parametrize("farewell", ["", "421 4.4.2 idle for too long"])
    def test_one_that_the_server_closed_while_idle_is_replaced(
        self, server: SmtpEmulator, provider: Smtp, farewell: str
    ) -> None:
        provider.send([mail()])
        server.drop_connections(farewell)
        time.sleep(0.05)
        email = mail()
        assert results(provider.send([email])) == ["accepted"]
        assert server.connections == 2
        assert server.ledger[email.rfc_message_id] == 1

    def test_one_that_closes_just_as_mail_comes_is_replaced_once(self, server: SmtpEmulator, provider: Smtp) -> None:
        provider.send([mail()])
        server.fail(Fault(Stage.MAIL, Does.CLOSE))
        assert results(provider.send([mail(), mail()])) == ["accepted", "accepted"]
        server.fail(Fault(Stage.MAIL, Does.CLOSE), Fault(Stage.MAIL, Does.CLOSE))
        assert results(provider.send([mail(), mail()])) == ["transient", "transient"]

    def test_one_that_has_carried_its_share_in_the_servers_view_is_replaced_once(
        self, server: SmtpEmulator, provider: Smtp
    ) -> None:
        enough = Fault(Stage.MAIL, Does.REPLY, "421 4.4.5 enough mails on this connection")
        provider.send([mail()])
        server.fail(enough)
        assert results(provider.send([mail(), mail()])) == ["accepted", "accepted"]
        server.fail(enough, enough)
        assert results(provider.send([mail(), mail()])) == ["throttled", "throttled"]

    @pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
    def test_a_server_that_counts_mails_per_connection_gets_the_rest_over_new_ones(
        self, server: SmtpEmulator, provider: Smtp, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        emails = [mail() for _ in range(8)]
        monkeypatch.setattr(server, "next_fault", every_third(stage, "421 4.4.2 enough mails on this connection"))
        assert results(provider.send(emails)) == ["accepted"] * 8
        assert server.connections == 4
        assert server.delivered_once(email.rfc_message_id for email in emails)

    def test_a_421_to_the_content_of_a_mail_leaves_only_that_one_for_later(
        self, server: SmtpEmulator, provider: Smtp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "next_fault", every_third(Stage.DOT, "421 4.3.2 going down"))
        assert results(provider.send([mail() for _ in range(5)])) == [*["accepted"] * 2, "transient", *["accepted"] * 2]
        assert server.connections == 2

    def test_a_421_before_the_first_mail_was_taken_throttles(self, server: SmtpEmulator, provider: Smtp) -> None:
        server.fail(Fault(Stage.MAIL, Does.REPLY, "421 4.4.2 too many messages"))
        assert results(provider.send([mail(), mail()])) == ["throttled", "throttled"]

    def test_one_that_was_idle_for_long_is_asked_first(
        self, server: SmtpEmulator, provider: Smtp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider.send([mail()])
        assert "NOOP" not in server.commands
        monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.0)
        assert results(provider.send([mail()])) == ["accepted"]
        assert "NOOP" in server.commands
        assert server.connections == 1

    def test_one_is_given_up_after_its_share_of_mails(
        self, server: SmtpEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Smtp, "mails_per_connection", 4)
        provider = adapter(server.url)
        for _ in range(3):
            provider.send([mail(), mail()])
        assert server.connections == 2
        provider.close()

    def test_closing_says_goodbye(self, server: SmtpEmulator) -> None:
        send_one(server.url)
        assert server.commands[-1] == "QUIT"

    def test_a_refused_connection_is_transient(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        outcome = send_one(f"smtp://127.0.0.1:{port}")
        assert (outcome.result, outcome.detail) == (Result.TRANSIENT, "cannot connect: Connection refused")

    @pytest.mark.parametrize(
        ("reply", "result"),
        [("421 4.3.2 busy", "throttled"), ("454 4.0.0 not now", "transient"), ("554 5.7.1 blocked", "transient")],
    )
    def test_a_refusing_greeting_says_nothing_about_the_mail(
        self, server: SmtpEmulator, provider: Smtp, reply: str, result: str
    ) -> None:
        server.fail(Fault(Stage.GREETING, Does.REPLY, reply))
        assert results(provider.send([mail(), mail()])) == [result, result]

    def test_a_private_host_is_a_fault_of_the_mailer(self, server: SmtpEmulator) -> None:
        outcome = send_one(server.url, guard=Guard())
        assert outcome.result is Result.CREDENTIALS
        assert "POSTROAD_MAILER_ALLOWED_HOSTS" in outcome.detail
        assert server.connections == 0

    def test_a_host_that_does_not_resolve_may_resolve_later(self) -> None:
        assert send_one("smtp://no-such-host.invalid:25").result is Result.TRANSIENT

    @pytest.mark.parametrize("base_url", ["http://127.0.0.1:25", "smtp://127.0.0.1:port", "smtp://"])
    def test_a_wrong_root_is_a_fault_of_the_mailer(self, base_url: str) -> None:
        assert send_one(base_url).result is Result.CREDENTIALS


class TestLogin:
    OFFER = Offer(passwords={"ann": "pass word"}, tokens={"ann": "t0ken"})

    @pytest.fixture
    def guarded(self) -> Iterator[SmtpEmulator]:
        with SmtpEmulator(self.OFFER) as emulator:
            yield emulator

    @pytest.mark.parametrize(
        ("credentials", "mechanism"),
        [
            ({"password": "pass word"}, "PLAIN"),
            ({"password": "pass word", "auth": "login"}, "LOGIN"),
            ({"access_token": "t0ken"}, "XOAUTH2"),
            ({"access_token": "t0ken", "password": "pass word"}, "XOAUTH2"),
            ({"access_token": "t0ken", "password": "pass word", "auth": "plain"}, "PLAIN"),
        ],
    )
    def test_it_logs_in_with_what_it_has(
        self, guarded: SmtpEmulator, credentials: dict[str, Any], mechanism: str
    ) -> None:
        assert send_one(guarded.url, username="ann", **credentials).result is Result.ACCEPTED
        assert f"AUTH {mechanism}" in guarded.commands
        assert guarded.received[0].username == "ann"

    @pytest.mark.parametrize(
        "credentials",
        [
            {"password": "wrong"},
            {"password": "wrong", "auth": "login"},
            {"access_token": "expired"},
            {},
            {"auth": "cram-md5", "password": "pass word"},
            {"client_id": "c", "client_secret": "s", "refresh_token": "r"},
        ],
    )
    def test_refused_or_missing_credentials_stop_the_mailer(
        self, guarded: SmtpEmulator, credentials: dict[str, Any]
    ) -> None:
        outcome = send_one(guarded.url, username="ann", **credentials)
        assert outcome.result is Result.CREDENTIALS
        assert not guarded.received

    def test_a_refused_token_ends_with_the_reply_proper(self, guarded: SmtpEmulator) -> None:
        outcome = send_one(guarded.url, username="ann", access_token="expired")
        assert outcome.code == "535 5.7.8"

    def test_without_a_login_the_server_says_so(self, guarded: SmtpEmulator) -> None:
        outcome = send_one(guarded.url)
        assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "530 5.7.0")

    @pytest.mark.parametrize(
        ("reply", "result"),
        [
            ("454 4.7.0 not now", Result.TRANSIENT),
            ("421 4.3.2 closing", Result.THROTTLED),
            ("432 4.3.2 too many connections", Result.THROTTLED),
            ("534 5.7.9 app password needed", Result.CREDENTIALS),
            ("550 5.7.30 no passwords here", Result.CREDENTIALS),
        ],
    )
    def test_a_failed_login_is_told_from_a_refused_one(self, guarded: SmtpEmulator, reply: str, result: Result) -> None:
        guarded.fail(Fault(Stage.AUTH, Does.REPLY, reply))
        assert send_one(guarded.url, username="ann", password="pass word").result is result

    def test_a_mechanism_that_is_not_offered_is_not_tried(self) -> None:
        with SmtpEmulator(Offer(passwords={"ann": "x"}, mechanisms=("LOGIN",))) as server:
            assert send_one(server.url, username="ann", password="x").result is Result.ACCEPTED
            outcome = send_one(server.url, username="ann", access_token="t")
            assert outcome.detail == "the server does not offer AUTH XOAUTH2 here"

    def test_credentials_never_leave_this_machine_in_the_clear(
        self, guarded: SmtpEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(smtp_connection, "_is_loopback", lambda _: False)
        outcome = send_one(guarded.url, username="ann", password="pass word")
        assert outcome.result is Result.CREDENTIALS
        assert not any(command.startswith("AUTH") for command in guarded.commands)

    def test_a_check_logs_in_and_sends_nothing(self, guarded: SmtpEmulator) -> None:
        good, bad = (adapter(guarded.url, username="ann", password=word) for word in ("pass word", "wrong"))
        assert good.check().result is Result.ACCEPTED
        assert bad.check().result is Result.CREDENTIALS
        assert guarded.commands[-1] != "MAIL"
        assert not guarded.received


class TestTls:
    @pytest.fixture(params=[False, True], ids=["starttls", "implicit"])
    def secure(self, request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[SmtpEmulator]:
        offer = Offer(certificate=certificate.server, implicit_tls=request.param, passwords={"ann": "word"})
        with SmtpEmulator(offer) as emulator:
            yield emulator

    @pytest.fixture
    def trusted(self, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
        smtp_wire.tls_context.cache_clear()
        yield
        smtp_wire.tls_context.cache_clear()

    def test_mail_and_login_go_encrypted(self, secure: SmtpEmulator) -> None:
        provider = adapter(secure.url, username="ann", password="word")
        assert results(provider.send([mail() for _ in range(16)])) == ["accepted"] * 16
        provider.close()
        assert all(received.encrypted and received.username == "ann" for received in secure.received)
        assert secure.connections == 1

    def test_a_server_on_this_machine_is_checked_when_asked(self, secure: SmtpEmulator) -> None:
        outcome = send_one(secure.url, verify=True)
        assert outcome.result is Result.TRANSIENT
        assert "certificate not accepted" in outcome.detail
        assert not secure.received

    @pytest.mark.usefixtures("trusted")
    def test_a_trusted_certificate_passes(self, secure: SmtpEmulator) -> None:
        assert send_one(secure.url, verify=True, username="ann", password="word").result is Result.ACCEPTED

    @pytest.mark.usefixtures("trusted")
    def test_a_certificate_for_another_name_does_not(
        self, secure: SmtpEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Guard, "addresses", lambda *_: ["127.0.0.1"])
        outcome = send_one(secure.url.replace("127.0.0.1", "other.test"), verify=True)
        assert outcome.result is Result.TRANSIENT
        assert "certificate not accepted" in outcome.detail

    def test_elsewhere_certificates_are_always_checked(
        self, secure: SmtpEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(smtp_connection, "_is_loopback", lambda _: False)
        assert "certificate not accepted" in send_one(secure.url).detail
        assert send_one(secure.url, verify=False).result is Result.CREDENTIALS
        assert not secure.received

    def test_a_server_without_starttls_gets_nothing(self, server: SmtpEmulator) -> None:
        outcome = send_one(server.url.replace("smtp://", "smtp+starttls://"))
        assert (outcome.result, outcome.detail) == (Result.CREDENTIALS, "the server does not offer STARTTLS")
        assert not server.received

    def test_a_refused_starttls_is_transient(self, certificate: Certificate) -> None:
        with SmtpEmulator(Offer(certificate=certificate.server)) as server:
            server.fail(Fault(Stage.STARTTLS, Does.REPLY, "454 4.7.0 no TLS now"))
            assert send_one(server.url).result is Result.TRANSIENT

    def test_an_answer_smuggled_in_before_tls_is_refused(self, certificate: Certificate) -> None:
        with SmtpEmulator(Offer(certificate=certificate.server)) as server:
            server.fail(Fault(Stage.STARTTLS, Does.REPLY, "220 go ahead\r\n250 smuggled"))
            assert "in the clear" in send_one(server.url).detail

    @pytest.mark.parametrize("does", [Does.CLOSE, Does.RESET, Does.HANG])
    def test_after_the_dot_nobody_knows_over_tls_either(self, secure: SmtpEmulator, does: Does) -> None:
        secure.fail(Fault(Stage.DOT, does, store=True))
        assert send_one(secure.url, username="ann", password="word").result is Result.UNCERTAIN

    def test_no_tls_where_tls_is_expected_is_transient(self, server: SmtpEmulator) -> None:
        outcome = send_one(server.url.replace("smtp://", "smtps://"))
        assert (outcome.result, outcome.detail.startswith("TLS failed")) == (Result.TRANSIENT, True)


class _Torn(socket.socket):
    """Fails in the middle of a write, as a TLS connection may: records are out, and nobody says how many."""

    def send(self, *_: Any) -> int:
        raise ConnectionResetError


@pytest.mark.parametrize(("encrypted", "handed"), [(False, 0), (True, 10)])
def test_over_tls_a_failed_write_may_have_arrived(encrypted: bool, handed: int) -> None:
    with _Torn() as sock:
        wire = smtp_wire.Wire(sock, "127.0.0.1", patience=1.0)
        wire.encrypted = encrypted
        with pytest.raises(smtp_wire.ConnectionLost):
            wire.write(b"0123456789")
        assert wire.handed == handed


class TestProviders:
    @pytest.mark.parametrize(("kind", "host"), [(GmailSmtp, "smtp.gmail.com"), (OutlookSmtp, "smtp.office365.com")])
    def test_their_server_is_known_and_encrypted(self, kind: type[Smtp], host: str) -> None:
        account = Account(mailer_id="m", provider=kind.name, credentials={"username": "ann"}, guard=Guard())
        login = kind(account).login()
        assert (login.host, login.port, login.security) == (host, 587, "starttls")

    @pytest.mark.parametrize("kind", [GmailSmtp, OutlookSmtp])
    def test_a_root_leads_elsewhere(self, kind: type[Smtp]) -> None:
        with SmtpEmulator(Offer(passwords={"ann": "s3cret"})) as server:
            provider = kind(account(server.url, username="ann", password="s3cret"))
            assert results(provider.send([mail()])) == ["accepted"]
            provider.close()

    def test_outlook_takes_three_connections(self) -> None:
        assert OutlookSmtp(account("smtp://127.0.0.1", connections=8)).connections == 3
