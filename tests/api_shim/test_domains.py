"""Domains: added with keys, checked against a DNS server, rotated, removed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.domain import DkimKey
from tests.dns_server import BROKEN, DnsServer
from worker.dkim import SigningKey
from worker.signers import Signers, key_purpose

Json = dict[str, Any]


def added(client: TestClient, domain: str = "acme-mail.com") -> Json:
    answer = client.post("/v1/domains", json={"domain": domain})
    assert answer.status_code == 201, answer.text
    body: Json = answer.json()
    return body


def checked(client: TestClient, domain: Json) -> Json:
    answer = client.post(f"/v1/domains/{domain['id']}/check")
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def rotated(client: TestClient, domain: Json, **body: Any) -> Json:
    answer = client.post(f"/v1/domains/{domain['id']}/rotate", json=body)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def records(domain: Json, purpose: str) -> list[Json]:
    return [record for record in domain["records"] if record["purpose"] == purpose]


def publish(dns: DnsServer, domain: Json, *purposes: str) -> None:
    """Puts the records into the DNS from their lines of a zone file."""
    zone: dict[str, dict[str, str]] = {}
    for record in domain["records"]:
        if record["purpose"] in purposes:
            name, _, kind, value = record["zone_line"].split(" ", 3)
            zone.setdefault(name.rstrip("."), {})[kind] = value
    dns.zone = {domain["domain"]: {}, **zone}


def statuses(domain: Json) -> dict[str, str]:
    return {key["algorithm"]: key["status"] for key in domain["keys"] if key["status"] != "retired"}


EVERYTHING = ("dkim", "spf", "dmarc", "mx", "return_path")


def test_a_new_domain_says_exactly_what_to_publish_and_signs_nothing_yet(client: TestClient) -> None:
    domain = added(client, "Acme-Mail.com")
    assert (domain["domain"], domain["status"]) == ("acme-mail.com", "pending")
    assert statuses(domain) == {"rsa-sha256": "pending", "ed25519-sha256": "pending"}
    names = {(record["purpose"], record["type"], record["name"]) for record in domain["records"]}
    selectors = [key["selector"] for key in domain["keys"]]
    assert names == {
        *(("dkim", "TXT", f"{selector}._domainkey.acme-mail.com") for selector in selectors),
        ("spf", "TXT", "acme-mail.com"),
        ("dmarc", "TXT", "_dmarc.acme-mail.com"),
        ("mx", "MX", "acme-mail.com"),
        ("return_path", "MX", "bounces.acme-mail.com"),
        ("return_path", "TXT", "bounces.acme-mail.com"),
    }
    values = {record["value"].partition(" p=")[0] for record in records(domain, "dkim")}
    assert values == {"v=DKIM1; k=rsa;", "v=DKIM1; k=ed25519;"}
    assert all(record["ok"] is None for record in domain["records"])


def test_private_keys_are_sealed_and_never_come_back(
    client: TestClient, session: Session, app_services: Services
) -> None:
    domain = added(client)
    answers = client.get("/v1/domains").text + client.get(f"/v1/domains/{domain['id']}").text
    assert "PRIVATE" not in answers
    for key in session.scalars(select(DkimKey)):
        assert b"PRIVATE" not in key.sealed_private_key
        private = app_services.vault.open(key_purpose(key.id), key.sealed_private_key)["private"]
        assert SigningKey(key.selector, private).algorithm == key.algorithm


def test_keys_sign_once_a_check_has_seen_their_records(
    client: TestClient, dns: DnsServer, app_services: Services
) -> None:
    domain = added(client)
    publish(dns, domain, "dkim")
    found = checked(client, domain)
    assert (found["status"], set(statuses(found).values())) == ("signing", {"active"})
    assert all(record["ok"] and record["found"] == [record["value"]] for record in records(found, "dkim"))
    assert client.get(f"/v1/domains/{domain['id']}").json() == found
    with app_services.engine.connect() as connection:
        workspace_id = connection.scalar(select(DkimKey.workspace_id).where(DkimKey.domain_id == domain["id"]))
        assert workspace_id is not None
        signers = Signers(app_services.vault)
        signer = signers.signer(connection, workspace_id, "news.acme-mail.com")
        assert signer is not None
        assert signer.domain == "acme-mail.com"
        assert len(signer.keys) == 2
        assert signers.signer(connection, workspace_id, "other-acme-mail.com") is None


def test_a_key_whose_record_is_not_there_stays_pending_while_the_other_signs(
    client: TestClient, dns: DnsServer
) -> None:
    domain = added(client)
    rsa = next(record for record in records(domain, "dkim") if "k=rsa" in record["value"])
    publish(dns, domain | {"records": [rsa]}, "dkim")
    found = checked(client, domain)
    assert statuses(found) == {"rsa-sha256": "active", "ed25519-sha256": "pending"}
    [other] = [record for record in records(found, "dkim") if "k=ed25519" in record["value"]]
    assert (other["ok"], other["advice"]) == (False, f"publish this TXT record at {other['name']}")


def test_all_records_as_they_are_asked_for_are_found_to_be_right(client: TestClient, dns: DnsServer) -> None:
    domain = added(client)
    publish(dns, domain, *EVERYTHING)
    found = checked(client, domain)
    assert {record["ok"] for record in found["records"]} == {True}
    assert {record["advice"] for record in found["records"]} == {None}
    assert found["checked_at"] is not None


@pytest.mark.parametrize(
    ("purpose", "name", "kind", "value", "advice"),
    [
        ("spf", "", "TXT", '"v=spf1 include:other.example ~all"', "add mx before its last word"),
        ("spf", "", "TXT", '"v=spf1 mx +all"', "lets everybody send as you"),
        ("spf", "", "TXT", '"google-site-verification=x"', "publish this TXT record"),
        ("dmarc", "_dmarc.", "TXT", '"v=DMARC1; p=perhaps"', "must be none, quarantine or reject"),
        ("mx", "", "MX", "0 .", "a null MX refuses all mail"),
        ("mx", "", "MX", "10 mx.elsewhere.example.", None),
        ("return_path", "bounces.", "MX", "10 mx.elsewhere.example.", "publish this MX record"),
        ("dmarc", "_dmarc.", "TXT", '"v=DMARC1;p=reject;rua=mailto:d@acme-mail.com"', None),
        ("spf", "", "TXT", '"v=spf1 ip4:192.0.2.1 MX -all"', None),
    ],
)
def test_what_is_published_instead_is_shown_with_what_to_do(
    client: TestClient, dns: DnsServer, purpose: str, name: str, kind: str, value: str, advice: str | None
) -> None:
    domain = added(client)
    dns.zone = {"acme-mail.com": {}, f"{name}acme-mail.com": {kind: value}}
    record = next(one for one in records(checked(client, domain), purpose) if one["type"] == kind)
    assert record["ok"] is (advice is None)
    assert [found.rstrip(".") for found in record["found"]] == [value.strip('"').rstrip(".")]
    assert (advice or "") in (record["advice"] or "")


def test_another_key_at_the_name_is_not_taken_for_ours(client: TestClient, dns: DnsServer) -> None:
    domain = added(client)
    name = records(domain, "dkim")[0]["name"]
    dns.zone = {name: {"TXT": '"v=DKIM1; k=rsa; p=MIIB"'}}
    record = next(one for one in records(checked(client, domain), "dkim") if one["name"] == name)
    assert record["ok"] is False
    assert "another key" in record["advice"]


def test_dmarc_of_the_organisation_counts_for_its_subdomains(client: TestClient, dns: DnsServer) -> None:
    domain = added(client, "news.acme-mail.com")
    dns.zone = {"_dmarc.acme-mail.com": {"TXT": '"v=DMARC1; p=none"'}}
    [record] = records(checked(client, domain), "dmarc")
    assert record["ok"] is True


def test_a_dns_that_gives_no_clear_answer_proves_nothing(client: TestClient, dns: DnsServer) -> None:
    domain = added(client)
    dns.zone = dict.fromkeys([record["name"] for record in domain["records"]], BROKEN)
    found = checked(client, domain)
    assert {record["ok"] for record in records(found, "dkim") + records(found, "spf")} == {None}
    assert set(statuses(found).values()) == {"pending"}


def test_a_rotation_signs_with_the_old_key_until_the_new_record_is_seen(client: TestClient, dns: DnsServer) -> None:
    domain = added(client)
    publish(dns, domain, "dkim")
    old = {key["selector"] for key in checked(client, domain)["keys"]}
    turned = rotated(client, domain)
    assert {key["status"] for key in turned["keys"] if key["selector"] in old} == {"active"}
    assert client.post(f"/v1/domains/{domain['id']}/rotate", json={}).status_code == 409
    publish(dns, turned, "dkim")
    after = checked(client, domain)
    status = {key["selector"]: key["status"] for key in after["keys"]}
    assert {status[selector] for selector in old} == {"retired"}
    assert {one for selector, one in status.items() if selector not in old} == {"active"}
    assert len(records(after, "dkim")) == 4
    ends = [datetime.fromisoformat(key["retires_at"]) for key in after["keys"] if key["retires_at"]]
    assert all(timedelta(days=6) < end - datetime.now(UTC) < timedelta(days=8) for end in ends)


def test_a_retired_key_is_forgotten_after_its_grace(client: TestClient, session: Session) -> None:
    domain = added(client)
    rotated(client, domain, force=True)
    rotated(client, domain, force=True)
    over = update(DkimKey).where(DkimKey.domain_id == domain["id"], DkimKey.status == "retired")
    session.execute(over.values(retires_at=datetime.now(UTC)))
    session.commit()
    assert len(client.get(f"/v1/domains/{domain['id']}").json()["keys"]) == 2
    rotated(client, domain)
    assert set(session.scalars(select(DkimKey.status).where(DkimKey.domain_id == domain["id"]))) == {
        "active",
        "pending",
    }


def test_force_signs_without_a_record(client: TestClient) -> None:
    domain = added(client)
    assert set(statuses(rotated(client, domain, force=True)).values()) == {"active"}


def test_a_domain_is_added_once_and_found_by_name(client: TestClient, other: TestClient) -> None:
    domain = added(client)
    assert client.post("/v1/domains", json={"domain": "ACME-mail.com"}).status_code == 409
    assert added(other)["id"] != domain["id"]
    listed = client.get("/v1/domains", params={"domain": "acme-mail.com"}).json()["data"]
    assert [one["id"] for one in listed] == [domain["id"]]
    assert other.get(f"/v1/domains/{domain['id']}").status_code == 404


@pytest.mark.parametrize("name", ["com", "co.uk", "not a domain", "a\x00b.com", ""])
def test_what_cannot_be_a_sending_domain_is_refused(client: TestClient, name: str) -> None:
    assert client.post("/v1/domains", json={"domain": name}).status_code == 400


def test_removing_a_domain_erases_its_keys(client: TestClient, session: Session) -> None:
    domain = added(client)
    assert client.delete(f"/v1/domains/{domain['id']}").status_code == 204
    assert client.get(f"/v1/domains/{domain['id']}").status_code == 404
    assert session.scalars(select(DkimKey.id).where(DkimKey.domain_id == domain["id"])).all() == []
