"""The SMTP emulator against the standard library's client."""

import smtplib
import ssl
from collections.abc import Iterator

import pytest

from providers.emulators.smtp import Offer, SmtpEmulator
from tests.providers.conftest import Certificate

MAIL = b"Message-ID: <one@demo.test>\r\nSubject: x\r\n\r\n.\r\nhello\r\n"


@pytest.fixture
def server() -> Iterator[SmtpEmulator]:
    with SmtpEmulator() as emulator:
        yield emulator


def test_it_keeps_envelope_content_and_time(server: SmtpEmulator) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("ann@demo.test", ["bob@client.test", "cy@client.test"], MAIL)
    (received,) = server.received
    assert (received.sender, received.recipients) == ("ann@demo.test", ("bob@client.test", "cy@client.test"))
    assert (received.data, received.message_id) == (MAIL, "<one@demo.test>")
    assert received.at.tzinfo is not None
    assert "hello" not in repr(received)


def test_a_mail_taken_twice_is_not_delivered_once(server: SmtpEmulator) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("ann@demo.test", "bob@client.test", MAIL)
        assert server.delivered_once(["<one@demo.test>"])
        assert not server.delivered_once(["<one@demo.test>", "<two@demo.test>"])
        client.sendmail("ann@demo.test", "bob@client.test", MAIL)
    assert server.ledger == {"<one@demo.test>": 2}
    assert not server.delivered_once(["<one@demo.test>"])


@pytest.mark.parametrize("address", ["bounce-550@x.test", "bounce-550+tag@x.test"])
def test_a_magic_recipient_is_refused(server: SmtpEmulator, address: str) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail("ann@demo.test", address, MAIL)
    assert refused.value.recipients == {address: (550, b"5.1.1 no such user")}


def test_a_dropped_answer_hides_a_stored_mail(server: SmtpEmulator) -> None:
    with pytest.raises(smtplib.SMTPServerDisconnected), smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("ann@demo.test", "drop-after-dot@x.test", MAIL)
    assert server.delivered_once(["<one@demo.test>"])


def test_mail_is_taken_after_starttls_and_a_login(certificate: Certificate) -> None:
    offer = Offer(certificate=certificate.server, passwords={"ann": "s3cret-word"})
    with SmtpEmulator(offer) as server, smtplib.SMTP("127.0.0.1", server.port) as client:
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("ann@demo.test", "bob@client.test", MAIL)
        client.starttls(context=ssl.create_default_context(cafile=certificate.path))
        client.login("ann", "s3cret-word")
        client.sendmail("ann@demo.test", "bob@client.test", MAIL)
        assert server.received[0].encrypted
        assert server.received[0].username == "ann"
        assert not any("s3cret" in command or "czNjcmV0" in command for command in server.commands)
        assert "s3cret" not in repr(server.offer)


def test_it_can_count_without_keeping_data() -> None:
    with SmtpEmulator(keep_data=False) as server, smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("ann@demo.test", "bob@client.test", MAIL)
        assert server.received[0].data == b""
        assert server.delivered_once(["<one@demo.test>"])
