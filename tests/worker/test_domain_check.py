"""The beat looks at the DNS of domains: new keys sign by themselves once their record is there."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.domain import SendingDomain
from providers.emulators.smtp import SmtpEmulator
from tests.dns_server import SILENT, DnsServer
from tests.worker.house import House, settings_for
from worker.dkim_keys import add_keys, keys_of
from worker.domain_check import check_due, records_of


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer({}) as server:
        yield server


@pytest.fixture
def house(services: Any, redis_url: str, dns: DnsServer) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(services.fresh_database(), redis_url, dns_servers=dns.address), server)
        yield opened
        opened.close()


def _added(house: House, dns: DnsServer, name: str, *, hours: float) -> None:
    """A domain with pending keys that was added so long ago, and their records in the DNS."""
    with house.session() as session:
        added = datetime.now(UTC) - timedelta(hours=hours)
        row = SendingDomain(workspace_id=house.workspace_id, name=name, findings={}, created_at=added)
        session.add(row)
        session.flush()
        add_keys(session, house.runtime.vault, row)
        session.flush()
        records = records_of(house.settings, row, keys_of(session, [row]))
        session.commit()
    zone = {each.name: {each.type: each.zone_line.split(" ", 3)[3]} for each in records if each.purpose == "dkim"}
    dns.zone = {**dns.zone, name: {}, **zone}


def _check(house: House) -> int:
    return check_due(house.runtime, threading.Event())


def _age(house: House, hours: float) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update sending_domain set checked_at = now() - make_interval(hours => :h)"), {"h": hours}
        )


def _statuses(house: House) -> set[str]:
    return {row["status"] for row in house.rows("select status from dkim_key where workspace_id = :w")}


def test_a_pending_key_becomes_active_by_itself_once_its_record_is_there(house: House, dns: DnsServer) -> None:
    _added(house, dns, "acme-mail.com", hours=2)
    assert (_check(house), _statuses(house)) == (1, {"active"})
    entries = house.rows("select action, api_key_id, detail from audit_entry where workspace_id = :w")
    assert [(entry["action"], entry["api_key_id"]) for entry in entries] == [("domain.key_activated", None)] * 2
    assert {entry["detail"]["domain"] for entry in entries} == {"acme-mail.com"}


def test_a_domain_is_looked_at_once_a_day_and_hourly_while_a_key_waits(house: House, dns: DnsServer) -> None:
    _added(house, dns, "acme-mail.com", hours=0.5)
    published, dns.zone = dns.zone, {"acme-mail.com": {}}
    assert _check(house) == 0
    _age(house, 2)
    assert (_check(house), _statuses(house), _check(house)) == (1, {"pending"}, 0)
    dns.zone = published
    _age(house, 2)
    assert (_check(house), _statuses(house)) == (1, {"active"})
    _age(house, 2)
    assert _check(house) == 0
    _age(house, 25)
    assert _check(house) == 1


def test_no_transaction_is_open_while_the_dns_is_silent(
    house: House, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.domain_records.LIFETIME_SECONDS", 2.0)
    _added(house, dns, "slow-mail.com", hours=2)
    dns.zone = dict.fromkeys(dns.zone, SILENT)
    checking = threading.Thread(target=_check, args=(house,))
    checking.start()
    while checking.is_alive() and not dns.asked:
        time.sleep(0.01)
    open_now = house.scalar(
        "select count(*) from pg_stat_activity where datname = current_database() and state ~ 'in tr'"
    )
    still_asking = checking.is_alive()
    checking.join()
    assert (open_now, still_asking, _statuses(house)) == (0, True, {"pending"})
    assert house.scalar("select checked_at is not null from sending_domain") is True
