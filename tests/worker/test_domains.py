"""What the DNS says about a domain's mail, asked of a real server on loopback."""

import time
from collections.abc import Iterator

import pytest

from tests.dns_server import BROKEN, SILENT, DnsServer, Zone
from worker import domains as module
from worker.domains import Domains, Mail, is_asked, read_servers

PATIENT = 60.0
"""Seconds to look up: more than one question may take."""

ZONE: Zone = {
    "mx.org": {"MX": "10 mail.mx.org."},
    "web.org": {"A": "192.0.2.1"},
    "six.org": {"AAAA": "2001:db8::1"},
    "null.org": {"MX": "0 ."},
    "parked.org": {},
    "slow.org": SILENT,
    "broken.org": BROKEN,
    "xn--mller-kva.org": {"MX": "10 mail.mx.org."},
}


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


@pytest.fixture
def domains(server: DnsServer) -> Iterator[Domains]:
    opened = Domains(server.address)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("mx.org", Mail.TAKEN),
        ("web.org", Mail.TAKEN),
        ("six.org", Mail.TAKEN),
        ("xn--mller-kva.org", Mail.TAKEN),
        ("null.org", Mail.REFUSED),
        ("parked.org", Mail.NO_SERVER),
        ("gone.org", Mail.NO_DOMAIN),
        ("broken.org", Mail.UNKNOWN),
        ("slow.org", Mail.UNKNOWN),
        (f"{'x' * 64}.org", Mail.UNKNOWN),
        ("a..org", Mail.UNKNOWN),
    ],
)
def test_only_a_clear_answer_counts_against_a_domain(domains: Domains, domain: str, expected: Mail) -> None:
    assert domains.look_up([domain], PATIENT) == {domain: expected}


@pytest.mark.parametrize(
    "domain", ["demo.test", "shop.example", "x.invalid", "localhost", "example.com", "a.example.org"]
)
def test_reserved_names_are_never_asked_about(server: DnsServer, domains: Domains, domain: str) -> None:
    assert domains.look_up([domain], PATIENT) == {domain: Mail.UNKNOWN}
    assert not server.asked


@pytest.mark.parametrize("domain", ["contest.org", "myexample.com", "example.com.au", "test.org"])
def test_names_that_merely_resemble_reserved_ones_are_asked_about(domain: str) -> None:
    assert is_asked(domain)


def test_an_answer_is_remembered(server: DnsServer, domains: Domains) -> None:
    for _ in range(3):
        domains.look_up(["mx.org", "gone.org"], PATIENT)
    assert server.asked == {"mx.org": 1, "gone.org": 1}


def test_a_remembered_answer_is_asked_for_again_when_it_is_old(
    server: DnsServer, domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._REMEMBERED_SECONDS, Mail.NO_DOMAIN, 0.0)
    for _ in range(2):
        domains.look_up(["gone.org"], PATIENT)
    assert server.asked["gone.org"] == 2


def test_no_more_is_remembered_than_there_is_room_for(
    server: DnsServer, domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 1)
    for domain in ("mx.org", "gone.org", "mx.org"):
        domains.look_up([domain], PATIENT)
    assert server.asked["mx.org"] == 2


def test_slow_domains_hold_up_nobody_longer_than_allowed_and_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFETIME_SECONDS", 0.1)
    slow = [f"slow{number}.org" for number in range(module.AT_ONCE * 300)]  # half a minute of patience
    with DnsServer(dict.fromkeys(slow, SILENT)) as server:
        patient = Domains(server.address)
        started = time.monotonic()
        found = patient.look_up([*slow, "demo.test"], 0.15)
        assert time.monotonic() - started < 10
        assert set(found.values()) == {Mail.UNKNOWN}
        time.sleep(0.5)
        assert len(server.asked) <= module.AT_ONCE * 3
        patient.close()


def test_a_crowd_of_callers_leaves_the_rest_with_unknown_at_once(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains.look_up(["mx.org"], PATIENT)
    for _ in range(module.CROWD):
        domains._room.acquire()
    started = time.monotonic()
    assert domains.look_up(["mx.org", "gone.org"], PATIENT) == {"mx.org": Mail.TAKEN, "gone.org": Mail.UNKNOWN}
    assert time.monotonic() - started < 30
    domains._room.release()
    assert domains.look_up(["gone.org"], PATIENT) == {"gone.org": Mail.NO_DOMAIN}


def test_a_resolver_that_is_not_there_makes_everything_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFETIME_SECONDS", 0.1)
    with DnsServer({}) as server:
        address = server.address
    gone = Domains(address)
    assert gone.look_up(["mx.org"], PATIENT) == {"mx.org": Mail.UNKNOWN}
    gone.close()


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("", []),
        ("192.0.2.53", [("192.0.2.53", 53)]),
        ("127.0.0.1:5353, [2001:db8::53]:54", [("127.0.0.1", 5353), ("2001:db8::53", 54)]),
        ("2001:db8::53", [("2001:db8::53", 53)]),
        ("[2001:db8::53]", [("2001:db8::53", 53)]),
    ],
)
def test_servers_are_read_from_the_setting(listed: str, expected: list[tuple[str, int]]) -> None:
    assert read_servers(listed) == expected


@pytest.mark.parametrize("listed", ["ns.example.org:53", "127.0.0.1:port", "127.0.0.1:"])
def test_a_server_that_is_no_address_is_named(listed: str) -> None:
    with pytest.raises(ValueError, match="POSTROAD_DNS_SERVERS"):
        read_servers(listed)
