"""POST /v1/email/validate, and what a dry run says about recipients."""

from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api_shim.services import Services
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.test_send import add_mailer, body, send
from tests.dns_server import BROKEN, DnsServer

ZONE: dict[str, Any] = {
    "good.org": {"MX": "10 mail.good.org."},
    "gmial.com": {"A": "192.0.2.1"},
    "mailinator.com": {"MX": "10 mail.good.org."},
    "broken.org": BROKEN,
}


@pytest.fixture(autouse=True)
def zone(dns: DnsServer) -> None:
    dns.zone = ZONE


@pytest.fixture
def mailer_id(app_services: Services, tenant: Tenant) -> UUID:
    return add_mailer(app_services, tenant)


def validate(client: TestClient, *emails: Any) -> dict[str, Any]:
    answer = client.post("/v1/email/validate", json={"emails": emails})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_each_address_gets_its_verdict_in_the_order_given(client: TestClient) -> None:
    given = ["ann@good.org", "ann@gone.org", "ann@broken.org", "ann@mailinator.com", "no address", "ann@demo.test"]
    found = validate(client, *given)
    assert found["next_cursor"] is None
    assert [one["email"] for one in found["data"]] == given
    assert [one["verdict"] for one in found["data"]] == ["valid", "invalid", "unknown", "risky", "invalid", "unknown"]


def test_a_verdict_says_why_and_what_was_probably_meant(client: TestClient) -> None:
    [typo, role, wrong] = validate(client, "Ann@GMIAL.com", "info@good.org", "ann@@good.org")["data"]
    assert typo == {
        "email": "Ann@gmial.com",
        "verdict": "risky",
        "reason": "gmial.com looks like a misspelt gmail.com",
        "suggestion": "Ann@gmail.com",
        "hints": ["typo"],
    }
    assert role == {"email": "info@good.org", "verdict": "valid", "reason": None, "suggestion": None, "hints": ["role"]}
    assert wrong["reason"] == "not an email address; write it as user@domain"


@pytest.mark.parametrize(
    "content",
    [
        {"emails": []},
        {"emails": ["a@good.org"] * 101},
        {"emails": "a@good.org"},
        {"emails": [1]},
        {"emails": ["a\0@good.org"]},
        {"emails": ["a" * 1001]},
        {"emails": ["a@good.org"], "deep": True},
        {},
    ],
)
def test_a_bad_body_is_refused(client: TestClient, content: Any) -> None:
    answer = client.post("/v1/email/validate", json=content)
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_whoever_may_not_send_may_not_validate(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("email:read",)).key)
    assert reader.post("/v1/email/validate", json={"emails": ["a@good.org"]}).status_code == 403


def test_c18_a_dry_run_lists_who_would_be_skipped(client: TestClient, mailer_id: UUID) -> None:
    recipients = ("ann@good.org", "bob@gone.org", "cat@hotmial.com", "dan@example.com")
    answer = send(client, body(mailer_id, *recipients, settings={"validate": {"enable": True}}, dry_run=True)).json()
    assert answer["invalid"] == [
        {"email": "bob@gone.org", "reason": "the domain gone.org does not exist", "suggestion": None},
        {
            "email": "cat@hotmial.com",
            "reason": "the domain hotmial.com does not exist",
            "suggestion": "cat@hotmail.com",
        },
    ]


def test_a_dry_run_without_the_switch_examines_nobody(client: TestClient, mailer_id: UUID, dns: DnsServer) -> None:
    before = dns.asked.copy()
    answer = send(client, body(mailer_id, "bob@unasked.org", dry_run=True)).json()
    assert (answer["invalid"], dns.asked) == (None, before)
