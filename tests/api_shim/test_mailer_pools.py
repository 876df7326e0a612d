"""IP pools as a mailer's owner sets them."""

from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from api_shim.services import Services
from models.content import SendSettings
from models.mailer import Mailer
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.test_mailers import SMTP, WORKING, fields_of, made
from tests.worker.house import House
from worker.settings import Settings

MEMBERS = [{"source": "192.0.2.10", "weight": 3}, {"host": "127.0.0.1", "port": 2526}]


def test_c21_mail_of_a_pool_leaves_by_it_and_a_change_of_the_pools_counts_at_once(
    api: TestClient, settings: Settings
) -> None:
    with SmtpEmulator() as server, SmtpEmulator() as relay:
        house = House(settings, server)
        bulk = SendSettings(ip_pool="bulk")
        for port in (relay.port, server.port):
            pools = {"bulk": [{"host": "127.0.0.1", "port": port}]}
            with house.session() as session:
                session.execute(update(Mailer).where(Mailer.id == house.mailer_id).values(ip_pools=pools))
                session.commit()
            house.submit("ann@example.com", settings=bulk)
            house.submit("bob@example.com")
            house.deliver_all()
        assert [mail.recipients for mail in relay.received] == [("ann@example.com",)]
        assert len(server.received) == 3
        house.close()


def test_pools_of_an_smtp_mailer_are_kept_as_they_were_given(client: TestClient) -> None:
    mailer = made(client, ip_pools={"bulk": MEMBERS})
    assert client.get(f"/v1/mailers/{mailer['id']}").json()["ip_pools"] == {"bulk": MEMBERS}


def _mail(mailer: dict[str, Any], pool: str) -> dict[str, Any]:
    return {
        "from": {"email": "hello@demo.test"}, "to": [{"email": "ann@example.com"}], "subject": "Hello",
        "content": [{"type": "text/plain", "value": "Hi"}], "mailer_id": mailer["id"], "settings": {"ip_pool": pool},
    }  # fmt: skip


def test_a_pool_that_the_mailer_lacks_is_refused_and_names_those_it_has(client: TestClient) -> None:
    mailer = made(client, ip_pools={"bulk": MEMBERS})
    mail = _mail(mailer, "bulk")
    assert client.post("/v1/email/send", json=mail).status_code == 202
    refused = client.post("/v1/email/send", json=mail | {"settings": {"ip_pool": "vip"}})
    assert refused.status_code == 400
    assert "bulk" in refused.json()["error"]


def test_a_mailer_without_pools_takes_every_name(client: TestClient) -> None:
    assert client.post("/v1/email/send", json=_mail(made(client), "transactional-pool")).status_code == 202
    passes_on = made(client, provider="sparkpost", credentials=WORKING["sparkpost"])
    assert client.post("/v1/email/send", json=_mail(passes_on, "bulk")).status_code == 202


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([{}], "one of the two"),
        ([{"source": "192.0.2.1", "host": "relay.example.com"}], "one of the two"),
        ([{"source": "relay.example.com"}], "is not an IP address"),
        ([{"source": "192.0.2.1", "port": 25}], "give it with host"),
        ([{"source": "192.0.2.1", "weight": 0}], "greater than or equal to 1"),
        ([], "at least 1"),
    ],
)
def test_a_member_is_an_address_or_a_relay(client: TestClient, members: Any, problem: str) -> None:
    answer = client.post("/v1/mailers", json=SMTP | {"ip_pools": {"bulk": members}})
    assert answer.status_code == 400
    assert any(problem in fault["message"] for fault in answer.json()["details"]["fields"])


def test_an_operator_says_which_addresses_pools_may_send_from(
    client: TestClient, app_services: Services, settings: Settings
) -> None:
    """Another tenant's address would bring its reputation."""
    allowed = settings.model_copy(update={"source_addresses": "192.0.2.10, 198.51.100.0/24"})
    pools = {"bulk": [{"source": address} for address in ("192.0.2.10", "198.51.100.9", "192.0.2.11", "2001:db8::1")]}
    kept, app_services.settings = app_services.settings, allowed
    try:
        answer = client.post("/v1/mailers", json=SMTP | {"ip_pools": pools})
    finally:
        app_services.settings = kept
    assert fields_of(answer) == {"ip_pools.bulk[2].source", "ip_pools.bulk[3].source"}


def test_a_relay_that_is_not_public_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/mailers", json=SMTP | {"ip_pools": {"bulk": [{"host": "10.0.0.1"}]}})
    assert fields_of(answer) == {"ip_pools.bulk[0].host"}


@pytest.mark.parametrize(
    ("provider", "field"), [("postmark", "ip_pools.bulk"), ("gmail_smtp", "ip_pools.bulk[0].host")]
)
def test_providers_with_servers_of_their_own_have_no_relays(client: TestClient, provider: str, field: str) -> None:
    pools = {"bulk": [{"host": "127.0.0.1"}]}
    body = SMTP | {"provider": provider, "credentials": WORKING[provider], "ip_pools": pools}
    assert fields_of(client.post("/v1/mailers", json=body)) == {field}


def test_credentials_cannot_be_lured_to_a_relay(client: TestClient) -> None:
    """Only who knows the password may name a host that gets it."""
    held = {**SMTP["credentials"], "username": "u", "password": "p"}
    path = f"/v1/mailers/{made(client, credentials=held, ip_pools={'bulk': MEMBERS})['id']}"
    lure = {"ip_pools": {"bulk": [{"host": "198.51.100.7.example.com"}]}}
    assert fields_of(client.patch(path, json=lure)) == {"ip_pools.bulk[0].host"}
    assert client.patch(path, json=lure | {"credentials": held}).status_code == 200
    assert client.patch(path, json={"ip_pools": {"other": lure["ip_pools"]["bulk"]}}).status_code == 200
