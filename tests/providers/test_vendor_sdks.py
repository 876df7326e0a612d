"""The emulated Mailgun and SparkPost as their own client libraries see them: what they send is taken, what they read
is there, errors are told as theirs are.

Postmark's is read by postmarker in ``test_postmark.py``, Gmail's by Google's client in ``test_gmail_answers.py``,
Microsoft's by the models of its SDK in ``test_graph_models.py``.
"""

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.sparkpost import SparkPostEmulator
from tests.providers.vendor_wheels import vendor_wheels

MIME = b"From: ann@demo.test\r\nTo: bob@client.test\r\nMessage-ID: <m1@demo.test>\r\nSubject: Offer\r\n\r\nHello\r\n"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    for wheel in vendor_wheels("mailgun", "sparkpost"):
        monkeypatch.syspath_prepend(wheel)


@pytest.fixture
def mailgun() -> Iterator[MailgunEmulator]:
    with MailgunEmulator() as emulator:
        yield emulator


@pytest.fixture
def mailguns(mailgun: MailgunEmulator) -> Iterator[Any]:
    with importlib.import_module("mailgun.client").Client(auth=("api", mailgun.api_key), api_url=mailgun.url) as client:
        yield client


def test_mailguns_library_sends_and_finds_what_it_sent(mailgun: MailgunEmulator, mailguns: Any) -> None:
    sent = mailguns.mimemessage.create(
        domain=mailgun.domain,
        data={"to": ["bob@client.test", "dora@client.test"], "v:ref": "r1", "o:tracking": "no"},
        files={"message": ("message.mime", MIME)},
    )
    assert (sent.status_code, sent.json()["id"]) == (200, "<m1@demo.test>")
    assert mailgun.delivered_once(["r1"])
    assert (mailgun.mails[0].mime, list(mailgun.mails[0].recipients)) == (MIME, ["bob@client.test", "dora@client.test"])
    found = list(mailguns.events.stream(domain=mailgun.domain, filters={"message-id": "m1@demo.test"}))
    assert [item["event"] for item in found] == ["accepted", "delivered"] * 2
    assert mailguns.domains.get(domain_name=mailgun.domain).json()["domain"]["state"] == "active"


def test_mailguns_library_is_refused_what_mailgun_refuses(mailgun: MailgunEmulator, mailguns: Any) -> None:
    refused = mailguns.mimemessage.create(domain=mailgun.domain, data={}, files={"message": ("message.mime", MIME)})
    assert (refused.status_code, refused.json()["message"]) == (400, "to parameter is missing")
    mailgun.api_key = "another-key"
    assert mailguns.domains.get(domain_name=mailgun.domain).status_code == 401


def test_mailguns_library_finds_a_webhook_signed(mailgun: MailgunEmulator, mailguns: Any) -> None:
    mailguns.mimemessage.create(
        domain=mailgun.domain, data={"to": "bob@client.test"}, files={"message": ("message.mime", MIME)}
    )
    verify = importlib.import_module("mailgun.security").SecurityGuard.verify_webhook
    signatures = [json.loads(hook.body)["signature"] for hook in mailgun.hooks]
    assert [verify(mailgun.signing_key, **signature) for signature in signatures] == [True, True]
    assert not verify("another-key", **signatures[0])
    old = json.loads(mailgun.signed(mailgun.events[0], timestamp=1.0).body)["signature"]
    assert not verify(mailgun.signing_key, **old)


@pytest.fixture
def sparkpost() -> Iterator[SparkPostEmulator]:
    with SparkPostEmulator() as emulator:
        yield emulator


@pytest.fixture
def transmissions(sparkpost: SparkPostEmulator) -> Iterator[Any]:
    found = importlib.import_module("sparkpost.transmissions")
    made = found.Transmissions(f"{sparkpost.url}/api/v1", sparkpost.api_key)
    yield made
    made.transport.sess.close()


def test_sparkposts_library_sends(sparkpost: SparkPostEmulator, transmissions: Any) -> None:
    sparkpost.suppressed = {"gone@client.test"}
    told = transmissions.send(
        recipients=[
            {"address": {"email": address}, "metadata": {"ref": "r1"}}
            for address in ("bob@client.test", "gone@client.test")
        ],
        email_rfc822=MIME.decode(),
    )
    assert (told["total_accepted_recipients"], told["total_rejected_recipients"]) == (1, 1)
    assert (told["id"], sparkpost.mails[0].mime) == (sparkpost.mails[0].transmission_id, MIME.decode())
    assert sparkpost.delivered_once(["r1"])


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"suppressed": {"bob@client.test"}}, 422, "1902"),
        ({"domains": {"mg.demo.test"}}, 400, "7001"),
        ({"api_key": "another-key"}, 401, "none"),
    ],
)
def test_sparkposts_library_reads_why_a_mail_was_refused(
    sparkpost: SparkPostEmulator, transmissions: Any, changes: dict[str, Any], status: int, code: str
) -> None:
    for name, value in changes.items():
        setattr(sparkpost, name, value)
    refused = importlib.import_module("sparkpost.exceptions").SparkPostAPIException
    with pytest.raises(refused, match=f"Code: {code} ") as caught:
        transmissions.send(recipients=["bob@client.test"], email_rfc822=MIME.decode())
    assert caught.value.status == status
