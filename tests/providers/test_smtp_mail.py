"""What SMTP makes of recipients and content."""

import pytest

from providers.base import Result
from providers.emulators.smtp import Does, Fault, Offer, SmtpEmulator, Stage
from providers.smtp import Smtp
from providers.smtp_mail import Offers
from tests.providers.samples import mail
from tests.providers.smtp_samples import adapter, results, send_one


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
