"""SMTP against its emulator: what is on the wire, and what each way of breaking off means."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from providers import smtp, smtp_session, smtp_wire
from providers.base import Account, OutboundEmail, Outcome, Result
from providers.emulators.smtp import Does, Fault, Offer, SmtpEmulator, Stage
from providers.gmail_smtp import GmailSmtp
from providers.guard import Guard
from providers.outlook_smtp import OutlookSmtp
from providers.smtp import Smtp
from providers.smtp_mail import Offers
from tests.providers.conftest import Certificate
from tests.providers.contract import AdapterContract, Bench, Failure
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
    return Smtp(account(url, **options), connect_timeout=2.0, command_timeout=0.3, dot_timeout=0.3)


def send_one(url: str, email: OutboundEmail | None = None, **options: Any) -> Outcome:
    provider = adapter(url, **options)
    try:
        (outcome,) = provider.send([email or mail()])
    finally:
        provider.close()
    return outcome


def results(outcomes: list[Outcome]) -> list[str]:
    return [outcome.result.value for outcome in outcomes]


@pytest.fixture(params=[True, False], ids=["pipelined", "step by step"])
def server(request: pytest.FixtureRequest) -> Iterator[SmtpEmulator]:
    with SmtpEmulator(Offer(pipelining=request.param)) as emulator:
        yield emulator


@pytest.fixture
def provider(server: SmtpEmulator) -> Iterator[Smtp]:
    opened = adapter(server.url)
    yield opened
    opened.close()


@contextlib.contextmanager
def _scripted(replies: list[bytes], heard: list[bytes]) -> Iterator[int]:
    """A pipelining server that says these replies, one after each write of the client; ``heard`` gets the writes."""

    def talk() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"220 ready\r\n")
            sock.recv(4096)
            sock.sendall(b"250-test\r\n250 PIPELINING\r\n")
            for reply in replies:
                heard.append(sock.recv(65536))
                sock.sendall(reply)
            heard.append(sock.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


class SmtpBench(Bench):
    secrets = ("s3cret-word",)
    _faults = {  # noqa: RUF012
        Failure.CLOSE: Fault(Stage.DOT, Does.CLOSE, store=True),
        Failure.RESET: Fault(Stage.DOT, Does.RESET, store=True),
        Failure.HANG: Fault(Stage.DOT, Does.HANG, store=True),
        Failure.CLIENT_ERROR: Fault(Stage.DOT, Does.REPLY, "451 4.3.0 try again"),
        Failure.SERVER_ERROR: Fault(Stage.DOT, Does.REPLY, "554 5.6.0 refused"),
        Failure.THROTTLED: Fault(Stage.MAIL, Does.REPLY, "421 4.7.0 too fast"),
        Failure.LOGGED_OUT: Fault(Stage.MAIL, Does.REPLY, "530 5.7.0 log in first"),
    }

    def __init__(self, server: SmtpEmulator) -> None:
        self.server = server
        self.provider = adapter(server.url, username="ann", password="s3cret-word")

    def fail(self, failure: Failure) -> None:
        self.server.fail(self._faults[failure])

    def sends(self) -> int:
        return sum(command.startswith("MAIL") for command in self.server.commands)

    def delivered(self, email: OutboundEmail) -> int:
        return self.server.ledger[email.rfc_message_id]

    def good(self) -> OutboundEmail:
        return mail()

    def bad(self) -> OutboundEmail:
        return mail("bounce-550@client.test")


class TestContract(AdapterContract):
    expected = {  # noqa: RUF012
        Failure.CLOSE: Result.UNCERTAIN,
        Failure.RESET: Result.UNCERTAIN,
        Failure.HANG: Result.UNCERTAIN,
        Failure.CLIENT_ERROR: Result.TRANSIENT,
        Failure.SERVER_ERROR: Result.PERMANENT,
        Failure.THROTTLED: Result.THROTTLED,
        Failure.LOGGED_OUT: Result.CREDENTIALS,
    }

    @pytest.fixture(params=[True, False], ids=["pipelined", "step by step"])
    def bench(self, request: pytest.FixtureRequest) -> Iterator[Bench]:
        with SmtpEmulator(Offer(pipelining=request.param, passwords={"ann": "s3cret-word"})) as server:
            bench = SmtpBench(server)
            yield bench
            bench.provider.close()


CUTS = [
    *((stage, does) for stage in (Stage.GREETING, Stage.EHLO) for does in (Does.CLOSE, Does.HANG)),
    *((stage, does) for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA) for does in (Does.CLOSE, Does.RESET, Does.HANG)),
]


class TestWhereItBreaks:
    @pytest.mark.parametrize(("stage", "does"), CUTS)
    def test_before_the_content_nothing_was_sent_and_a_retry_delivers_once(
        self, server: SmtpEmulator, provider: Smtp, stage: Stage, does: Does
    ) -> None:
        server.fail(Fault(stage, does))
        email = mail()
        assert results(provider.send([email])) == ["transient"]
        assert not server.ledger
        assert results(provider.send([email])) == ["accepted"]
        assert server.delivered_once([email.rfc_message_id])

    @pytest.mark.parametrize("does", [Does.CLOSE, Does.RESET, Does.HANG])
    @pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "tls"])
    def test_in_the_middle_of_the_content_nothing_was_sent(
        self, certificate: Certificate, does: Does, encrypted: bool
    ) -> None:
        # Larger than what the kernel takes without the server reading.
        big = mail(mime=b"Message-ID: <big@demo.test>\r\n\r\n" + b"0123456789abcdef" * 62 * 16_000 + b"\r\n")
        offer = Offer(certificate=certificate.server if encrypted else None)
        with SmtpEmulator(offer, receive_buffer=4096) as server:
            server.fail(Fault(Stage.BODY, does))
            outcome = send_one(server.url, big)
            assert outcome.result is Result.TRANSIENT
            assert server.contents == 0

    @pytest.mark.parametrize(
        ("does", "store"),
        [
            *((does, store) for does in (Does.CLOSE, Does.RESET, Does.HANG) for store in (True, False)),
            (Does.DRIP, True),
        ],
    )
    def test_after_the_dot_nobody_knows(self, server: SmtpEmulator, provider: Smtp, does: Does, store: bool) -> None:
        server.fail(Fault(Stage.DOT, does, store=store))
        email = mail()
        assert results(provider.send([email])) == ["uncertain"]
        assert server.ledger[email.rfc_message_id] == store

    @pytest.mark.parametrize(
        ("reply", "result"),
        [("451 4.3.0 later", "transient"), ("554 5.7.1 no", "permanent"), ("421 4.3.2 closing", "throttled")],
    )
    def test_an_explicit_no_to_the_dot_is_a_no(
        self, server: SmtpEmulator, provider: Smtp, reply: str, result: str
    ) -> None:
        server.fail(Fault(Stage.DOT, Does.REPLY, reply))
        assert results(provider.send([mail()])) == [result]

    @pytest.mark.parametrize("does", [Does.CLOSE, Does.RESET])
    def test_a_break_at_quit_changes_nothing(self, server: SmtpEmulator, does: Does) -> None:
        server.fail(Fault(Stage.QUIT, does))
        assert send_one(server.url).result is Result.ACCEPTED

    def test_an_answer_out_of_turn_to_the_dot_is_uncertain(self, server: SmtpEmulator, provider: Smtp) -> None:
        server.fail(Fault(Stage.DOT, Does.REPLY, "354 more please"))
        assert results(provider.send([mail()])) == ["uncertain"]

    def test_what_does_not_speak_smtp_is_transient(self, server: SmtpEmulator, provider: Smtp) -> None:
        server.fail(Fault(Stage.GREETING, Does.REPLY, "HTTP/1.1 400 Bad Request"))
        (outcome,) = provider.send([mail()])
        assert (outcome.result, outcome.detail) == (Result.TRANSIENT, "the server does not speak SMTP")


class TestABatch:
    def test_a_break_leaves_one_uncertain_and_the_rest_not_attempted(
        self, server: SmtpEmulator, provider: Smtp
    ) -> None:
        emails = [mail(), mail(), mail("drop-after-dot@client.test"), mail(), mail()]
        outcomes = provider.send(emails)
        assert results(outcomes) == ["accepted", "accepted", "uncertain", "transient", "transient"]
        assert server.delivered_once(email.rfc_message_id for email in emails[:3])

    def test_a_break_in_an_envelope_says_nothing_about_the_mail_before(
        self, server: SmtpEmulator, provider: Smtp
    ) -> None:
        emails = [mail(), mail("drop-before-dot@client.test"), mail()]
        assert results(provider.send(emails)) == ["accepted", "transient", "transient"]
        assert server.delivered_once([emails[0].rfc_message_id])

    def test_a_421_holds_the_rest_back_too(self, provider: Smtp) -> None:
        outcomes = provider.send([mail(), mail("slow-421@client.test"), mail()])
        assert results(outcomes) == ["accepted", "throttled", "throttled"]

    @pytest.mark.parametrize("place", range(4))
    @pytest.mark.parametrize("local", ["bounce-550", "later-451", "full-452", "reject-data"])
    def test_one_refused_mail_does_not_disturb_its_neighbours(
        self, server: SmtpEmulator, provider: Smtp, local: str, place: int
    ) -> None:
        emails = [mail() for _ in range(4)]
        emails[place] = mail(f"{local}@client.test")
        outcomes = provider.send(emails)
        assert [outcome.result is Result.ACCEPTED for outcome in outcomes] == [index != place for index in range(4)]
        assert server.delivered_once(email.rfc_message_id for email in emails if email is not emails[place])
        assert server.connections == 1

    @pytest.mark.parametrize("stage", [Stage.MAIL, Stage.DATA])
    def test_a_refused_command_does_not_disturb_the_next_mail(
        self, server: SmtpEmulator, provider: Smtp, stage: Stage
    ) -> None:
        server.fail(Fault(stage, Does.REPLY, "552 5.3.4 too much"))
        emails = [mail(), mail(), mail()]
        assert results(provider.send(emails)) == ["permanent", "accepted", "accepted"]
        assert server.delivered_once(email.rfc_message_id for email in emails[1:])

    def test_a_354_after_all_recipients_were_refused_sends_an_empty_mail_to_nobody(self) -> None:
        script = [b"250 ok\r\n550 no\r\n354 go\r\n", b"554 nobody\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 taken\r\n"]
        heard: list[bytes] = []
        with _scripted(script, heard) as port:
            provider = adapter(f"smtp://127.0.0.1:{port}")
            assert results(provider.send([mail(), mail()])) == ["permanent", "accepted"]
            provider.close()
        assert heard[1].startswith(b".\r\nMAIL FROM:")

    def test_a_server_that_would_send_what_it_refused_is_left(self) -> None:
        heard: list[bytes] = []
        with _scripted([b"550 no\r\n250 ok\r\n354 go\r\n"], heard) as port:
            assert send_one(f"smtp://127.0.0.1:{port}").result is Result.PERMANENT
        assert heard[1:] == [b""]

    def test_a_mail_costs_one_round_trip_where_the_server_pipelines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        writes: list[int] = []
        write = smtp_wire.Wire.write

        def counted(wire: smtp_wire.Wire, data: bytes) -> None:
            writes.append(len(data))
            write(wire, data)

        monkeypatch.setattr(smtp_wire.Wire, "write", counted)
        with SmtpEmulator() as server:
            provider = adapter(server.url)
            assert set(results(provider.send([mail() for _ in range(16)]))) == {"accepted"}
            ehlo, envelope = 1, 1
            assert len(writes) == ehlo + envelope + 16
            provider.close()

    def test_many_mails_are_spread_and_keep_their_order(self) -> None:
        emails = [mail("bounce-550@client.test") if index % 7 == 3 else mail() for index in range(64)]
        with SmtpEmulator(latency=0.005) as server:
            provider = adapter(server.url)
            outcomes = provider.send(emails)
            provider.close()
        assert [outcome.result is Result.PERMANENT for outcome in outcomes] == [n % 7 == 3 for n in range(64)]
        assert server.connections == 4
        assert server.delivered_once(e.rfc_message_id for n, e in enumerate(emails) if n % 7 != 3)

    def test_a_group_stays_on_one_connection(self, server: SmtpEmulator, provider: Smtp) -> None:
        provider.send([mail() for _ in range(provider.group)])
        assert server.connections == 1


class TestRecipients:
    def test_a_partial_refusal_is_accepted_and_names_the_refused(self, server: SmtpEmulator, provider: Smtp) -> None:
        email = mail("a@client.test", "bounce-550@client.test", "later-451@client.test", "d@client.test")
        (outcome,) = provider.send([email])
        assert outcome.result is Result.ACCEPTED
        assert {address: (o.result, o.code) for address, o in outcome.recipients.items()} == {
            "bounce-550@client.test": (Result.PERMANENT, "550 5.1.1"),
            "later-451@client.test": (Result.TRANSIENT, "451 4.3.0"),
        }
        assert server.received[0].recipients == ("a@client.test", "d@client.test")

    def test_all_refused_lives_on_if_one_may_pass_later(self, provider: Smtp) -> None:
        (outcome,) = provider.send([mail("bounce-550@client.test", "later-451@client.test")])
        assert (outcome.result, outcome.code) == (Result.TRANSIENT, "451 4.3.0")
        assert outcome.recipients["bounce-550@client.test"].result is Result.PERMANENT

    def test_all_refused_for_good_is_permanent(self, provider: Smtp) -> None:
        (outcome,) = provider.send([mail("bounce-550+1@client.test", "bounce-550+2@client.test")])
        assert (outcome.result, outcome.detail) == (Result.PERMANENT, "5.1.1 no such user")
        assert len(outcome.recipients) == 2

    def test_a_refused_data_keeps_what_each_recipient_was_told(self, server: SmtpEmulator, provider: Smtp) -> None:
        server.fail(Fault(Stage.DATA, Does.REPLY, "451 4.3.0 disk"))
        (outcome,) = provider.send([mail("a@client.test", "bounce-550@client.test")])
        assert outcome.result is Result.TRANSIENT
        assert {a: o.result for a, o in outcome.recipients.items()} == {"bounce-550@client.test": Result.PERMANENT}

    def test_very_many_recipients_go_step_by_step(self, provider: Smtp, server: SmtpEmulator) -> None:
        email = mail(*(f"user{n}@client.test" for n in range(600)))
        assert Offers(pipelining=True).prepare(email).ahead == b""
        (outcome,) = provider.send([email])
        assert outcome.result is Result.ACCEPTED
        assert len(server.received[0].recipients) == 600


class TestContent:
    @pytest.mark.parametrize(
        "body", [b".\r\n", b"..\r\n", b"a\r\n.\r\nb\r\n", b"a\r\n.hidden\r\n", b"a\r\n..\r\n.\r\n", b"", b"no line end"]
    )
    def test_it_arrives_as_it_was(self, server: SmtpEmulator, provider: Smtp, body: bytes) -> None:
        emails = [mail(mime=b"Subject: x\r\n\r\n" + body), mail(mime=body)]
        assert results(provider.send(emails)) == ["accepted", "accepted"]
        ending = b"" if body.endswith(b"\r\n") else b"\r\n"
        assert server.received[0].data == b"Subject: x\r\n\r\n" + body + (ending if body else b"")
        assert server.received[1].data == body + ending

    def test_a_mail_above_the_servers_size_never_goes_out(self) -> None:
        with SmtpEmulator(Offer(size=1000)) as server:
            outcome = send_one(server.url, mail(mime=b"x" * 1001))
            assert outcome.result is Result.PERMANENT
            assert outcome.detail == "the mail has 1001 bytes; the server takes at most 1000"
            assert not any(command.startswith("MAIL") for command in server.commands)

    def test_the_size_is_told_beforehand(self, server: SmtpEmulator, provider: Smtp) -> None:
        email = mail()
        provider.send([email])
        assert server.received[0].parameters == f"SIZE={len(email.mime or b'')}"

    def test_eight_bits_are_announced_where_offered(self, server: SmtpEmulator, provider: Smtp) -> None:
        provider.send([mail(mime="Subject: x\r\n\r\nGrüße\r\n".encode())])
        assert "BODY=8BITMIME" in server.received[0].parameters
        assert server.received[0].data == "Subject: x\r\n\r\nGrüße\r\n".encode()

    def test_eight_bits_are_refused_where_not_offered(self) -> None:
        with SmtpEmulator(Offer(eight_bit=False)) as server:
            outcome = send_one(server.url, mail(mime="ü\r\n".encode()))
            assert (outcome.result, "8BITMIME" in outcome.detail) == (Result.PERMANENT, True)

    def test_a_mail_that_needs_smtputf8_gets_it(self, server: SmtpEmulator, provider: Smtp) -> None:
        provider.send([mail("jürgen@client.test", smtputf8=True), mail()])
        assert "SMTPUTF8" in server.received[0].parameters
        assert server.received[0].recipients == ("jürgen@client.test",)
        assert "SMTPUTF8" not in server.received[1].parameters

    def test_a_mail_that_needs_smtputf8_is_refused_without_it(self) -> None:
        with SmtpEmulator(Offer(smtputf8=False)) as server:
            provider = adapter(server.url)
            outcomes = provider.send([mail("jürgen@client.test", smtputf8=True), mail()])
            provider.close()
        assert results(outcomes) == ["permanent", "accepted"]
        assert "SMTPUTF8" in outcomes[0].detail

    def test_a_domain_in_another_script_is_written_in_ascii(self, server: SmtpEmulator, provider: Smtp) -> None:
        provider.send([mail("ann@bücher.test", envelope_from="desk@bücher.test")])
        assert server.received[0].recipients == ("ann@xn--bcher-kva.test",)
        assert server.received[0].sender == "desk@xn--bcher-kva.test"

    @pytest.mark.parametrize("address", ["a@x.test>\r\nRSET", "a\x00@x.test", "jürgen@x.test", "a@-\u2014.test"])
    def test_an_address_that_cannot_be_written_never_goes_out(
        self, server: SmtpEmulator, provider: Smtp, address: str
    ) -> None:
        (outcome,) = provider.send([mail(address, mime=b"x\r\n")])
        assert outcome.result is Result.PERMANENT
        assert address not in outcome.detail
        assert not any(command.startswith("MAIL") for command in server.commands)

    def test_the_servers_queue_id_is_kept(self, provider: Smtp) -> None:
        (outcome,) = provider.send([mail()])
        assert outcome.provider_message_id == "00000001"
        assert (outcome.code, outcome.detail) == ("250 2.0.0", "2.0.0 Ok: queued as 00000001")

    def test_a_server_that_knows_helo_only_gets_the_mail(self) -> None:
        with SmtpEmulator(Offer(ehlo=False)) as server:
            assert send_one(server.url).result is Result.ACCEPTED
            assert any(command.startswith("HELO") for command in server.commands)


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
        monkeypatch.setattr(smtp_session, "_is_loopback", lambda _: False)
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
        monkeypatch.setattr(smtp_session, "_is_loopback", lambda _: False)
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
        with SmtpEmulator(Offer(tokens={"ann": "t0ken"})) as server:
            oauth: dict[str, Any] = {"client_id": "c", "client_secret": "s", "refresh_token": "r"}
            provider = kind(account(server.url, username="ann", access_token="t0ken", **oauth))
            assert results(provider.send([mail()])) == ["accepted"]
            provider.close()

    def test_outlook_takes_three_connections(self) -> None:
        assert OutlookSmtp(account("smtp://127.0.0.1", connections=8)).connections == 3
