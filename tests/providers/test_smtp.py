"""SMTP against its emulator: what each way of breaking off means, alone and in a batch."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from providers import smtp_wire
from providers.base import Result
from providers.emulators.smtp import Does, Fault, Offer, SmtpEmulator, Stage
from providers.smtp import Smtp
from tests.providers.conftest import Certificate
from tests.providers.samples import mail
from tests.providers.smtp_samples import adapter, results, send_one

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
