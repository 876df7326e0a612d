"""``settings.validate`` on the send path: real database, real SMTP dialogue, a DNS server on loopback."""

from collections.abc import Iterator

import pytest

from models.content import Address, SendSettings
from providers.emulators.smtp import Does, Fault, SmtpEmulator, Stage
from tests.dns_server import BROKEN, SILENT, DnsServer, Zone
from tests.worker.house import House, settings_for

ZONE: Zone = {
    "good.org": {"MX": "10 mail.good.org."},
    "null.org": {"MX": "0 ."},
    "broken.org": BROKEN,
    "slow.org": SILENT,
}
VALIDATED = SendSettings(validate=True)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


@pytest.fixture
def house(database_url: str, redis_url: str, dns: DnsServer) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(database_url, redis_url, dns_servers=dns.address), server)
        yield opened
        opened.close()


def test_c18_a_recipient_whose_domain_takes_no_mail_is_skipped_and_the_others_get_theirs(house: House) -> None:
    accepted = house.submit("ann@good.org", "bob@null.org", "cat@gone.org", settings=VALIDATED)
    house.deliver_all()
    assert [mail.recipients for mail in house.server.received] == [("ann@good.org",)]
    by_recipient = {message.recipients[0]: message for message in house.messages(accepted)}
    assert {address: message.state for address, message in by_recipient.items()} == {
        "ann@good.org": "sent",
        "bob@null.org": "skipped",
        "cat@gone.org": "skipped",
    }
    assert by_recipient["cat@gone.org"].reason == "invalid recipient: the domain gone.org does not exist"
    assert by_recipient["cat@gone.org"].finished_at is not None
    assert by_recipient["cat@gone.org"].attempts == []


def test_c18_a_skipped_recipient_is_logged_and_told_as_failed_with_the_reason(house: House) -> None:
    house.submit("cat@gone.org", settings=VALIDATED)
    house.deliver_all()
    house.record_all()
    [event] = house.rows("select type, state, data from event where workspace_id = :w")
    assert (event["type"], event["state"]) == ("failed", "skipped")
    assert event["data"] == {"reason": "invalid recipient: the domain gone.org does not exist", "status": "skipped"}
    [log] = house.rows("select status, error from email_log where workspace_id = :w")
    assert log == {"status": "skipped", "error": "invalid recipient: the domain gone.org does not exist"}


def test_c18_without_the_switch_nobody_is_asked_about_and_everybody_is_sent_to(house: House, dns: DnsServer) -> None:
    accepted = house.submit("cat@gone.org")
    house.deliver_all()
    assert house.message(accepted).state == "sent"
    assert not dns.asked


def test_the_switch_of_one_submission_is_not_that_of_another_in_the_same_batch(house: House) -> None:
    plain = house.submit("cat@gone.org")
    validated = house.submit("cat@gone.org", settings=VALIDATED)
    house.deliver_all()
    assert (house.message(plain).state, house.message(validated).state) == ("sent", "skipped")


@pytest.mark.parametrize("address", ["ann@broken.org", "ann@slow.org", "ann@shop.test"])
def test_a_domain_of_which_the_dns_says_nothing_clear_is_sent_to(house: House, address: str) -> None:
    accepted = house.submit(address, settings=VALIDATED)
    house.deliver_all()
    assert house.message(accepted).state == "sent"


def test_c18_a_shared_mail_goes_to_those_who_are_valid_and_tells_of_the_others(house: House) -> None:
    accepted = house.submit("ann@good.org", individual=False, cc=(Address("cat@gone.org"),), settings=VALIDATED)
    house.deliver_all()
    house.record_all()
    assert [mail.recipients for mail in house.server.received] == [("ann@good.org",)]
    message = house.message(accepted)
    assert message.state == "sent"
    assert (message.outcomes or {})["cat@gone.org"]["outcome"] == "skipped"
    events = house.rows("select type, recipients from event where workspace_id = :w order by cursor")
    assert [(event["type"], event["recipients"]) for event in events] == [
        ("delivered", ["ann@good.org"]),
        ("failed", ["cat@gone.org"]),
    ]


def test_a_shared_mail_without_a_valid_recipient_is_skipped(house: House) -> None:
    accepted = house.submit("bob@null.org", individual=False, cc=(Address("cat@gone.org"),), settings=VALIDATED)
    house.deliver_all()
    message = house.message(accepted)
    assert message.state == "skipped"
    assert "null.org" in (message.reason or "")
    assert "gone.org" in (message.reason or "")
    assert not house.server.received


def test_a_mail_that_was_tried_before_is_left_to_the_provider(house: House, dns: DnsServer) -> None:
    dns.zone = {**ZONE, "late.org": {"MX": "10 mail.late.org."}}
    house.server.fail(Fault(Stage.RCPT, Does.REPLY, "451 4.3.0 later"))
    accepted = house.submit("ann@late.org", settings=VALIDATED)
    house.deliver()
    assert house.message(accepted).tries == 1
    dns.zone = ZONE
    house.runtime.domains._known.clear()
    house.deliver_all()
    assert house.message(accepted).state == "sent"
