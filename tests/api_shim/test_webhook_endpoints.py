"""Webhook endpoints: registering, changing, rotating, and that nobody else sees them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from api_shim.services import Services
from models.base import ulid, uuid7
from tests.api_shim.conftest import Tenant
from tests.api_shim.test_send import add_mailer, body

URL = "http://127.0.0.1:9000/hook"


def register(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhook-endpoints", json={"url": URL} | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_new_endpoint_answers_its_secret_once(client: TestClient, app_services: Services, tenant: Tenant) -> None:
    mail = body(add_mailer(app_services, tenant))
    ref_id = client.post("/v1/email/send", json=mail).json()["ref_id"]
    made = register(client, events=["MAIL_BOUNCED", "MAIL_SPAM"], campaign_id="spring", ref_id=ref_id, max_batch=50)
    assert made["secret"].startswith("whsec_")
    found = client.get(f"/v1/webhook-endpoints/{made['id']}").json()
    assert found == {key: value for key, value in made.items() if key != "secret"}
    assert (found["events"], found["campaign_id"]) == (["MAIL_BOUNCED", "MAIL_SPAM"], "spring")
    assert (found["ref_id"], found["max_batch"]) == (ref_id, 50)
    assert (found["status"], found["ordered"]) == ("active", False)


def test_a_secret_in_a_url_is_not_in_the_audit_trail(client: TestClient) -> None:
    made = register(client, url=f"{URL}?token=sesame")
    (entry,) = client.get("/v1/ops/audit", params={"target": made["id"]}).json()["data"]
    assert (entry["action"], entry["detail"]) == ("webhook_endpoint.created", {"host": "127.0.0.1"})


def test_an_endpoint_for_a_submission_that_is_not_there_is_refused(client: TestClient) -> None:
    ref_id = ulid(uuid7())
    answer = client.post("/v1/webhook-endpoints", json={"url": URL, "ref_id": ref_id})
    assert answer.status_code == 400
    assert answer.json()["details"] == {"missing_entities": [{"field": "ref_id", "id": ref_id}]}


def test_all_events_one_at_a_time_are_the_default(client: TestClient) -> None:
    made = register(client)
    assert (made["events"], made["max_batch"], made["campaign_id"], made["ref_id"]) == (["*"], 1, None, None)


@pytest.mark.parametrize("url", ["http://10.0.0.1/hook", "http://169.254.169.254/latest", "http://[::1]:9000/"])
def test_a_url_inside_the_network_is_refused_and_the_setting_named(client: TestClient, url: str) -> None:
    answer = client.post("/v1/webhook-endpoints", json={"url": url})
    assert answer.status_code == 400
    assert "POSTROAD_WEBHOOK_ALLOWED_HOSTS" in answer.text
    assert client.get("/v1/webhook-endpoints").json()["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://example.com/"},
        {"url": URL, "events": []},
        {"url": URL, "events": ["MAIL_DELIVERD"]},
        {"url": URL, "max_batch": 0},
        {"url": URL, "max_batch": 1001},
        {"url": URL, "max_batch": "5"},
        {"url": URL, "ref_id": "nonsense"},
        {"url": URL, "campaign_id": "a\0b"},
        {"url": "http://127.0.0.1:9000/\0"},
        {"url": URL, "unheard_of": 1},
    ],
)
def test_a_body_that_means_nothing_is_a_400_that_names_the_field(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/v1/webhook-endpoints", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "VALIDATION_ERROR"


def test_an_unknown_event_is_answered_with_those_that_exist(client: TestClient) -> None:
    answer = client.post("/v1/webhook-endpoints", json={"url": URL, "events": ["MAIL_DELIVERD"]})
    assert "MAIL_DELIVERD" in answer.text
    assert "MAIL_DELIVERED" in answer.text


def test_a_deleted_endpoint_is_gone(client: TestClient) -> None:
    one = f"/v1/webhook-endpoints/{register(client)['id']}"
    assert client.delete(one).status_code == 204
    assert client.get(one).status_code == 404
    assert client.delete(one).status_code == 404


def test_endpoints_are_listed_newest_first_in_pages(client: TestClient) -> None:
    made = [register(client)["id"] for _ in range(3)]
    first = client.get("/v1/webhook-endpoints?limit=2").json()
    second = client.get("/v1/webhook-endpoints", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in first["data"] + second["data"]] == made[::-1]
    assert second["next_cursor"] is None
    assert not any("secret" in row for row in first["data"])


def test_a_change_leaves_what_it_does_not_name(client: TestClient) -> None:
    made = register(client, campaign_id="spring", max_batch=7)
    one = f"/v1/webhook-endpoints/{made['id']}"
    changed = client.patch(one, json={"url": URL + "/2", "campaign_id": None}).json()
    assert (changed["url"], changed["campaign_id"], changed["max_batch"]) == (URL + "/2", None, 7)
    assert client.get(one).json() == changed


@pytest.mark.parametrize("body", [{"url": "http://10.0.0.1/"}, {"url": None}, {"status": "gone"}, {"secret": "x"}])
def test_a_change_is_checked_like_a_new_endpoint(client: TestClient, body: dict[str, Any]) -> None:
    one = f"/v1/webhook-endpoints/{register(client)['id']}"
    assert client.patch(one, json=body).status_code == 400
    assert client.get(one).json()["url"] == URL


def test_rotating_gives_another_secret_and_says_until_when_the_old_one_signs(client: TestClient) -> None:
    made = register(client)
    rotated = client.post(f"/v1/webhook-endpoints/{made['id']}/rotate-secret", json={"overlap_hours": 1}).json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"] is not None
    assert client.post(f"/v1/webhook-endpoints/{made['id']}/rotate-secret").status_code == 200


def test_another_workspaces_endpoint_does_not_exist(client: TestClient, other: TestClient) -> None:
    one = f"/v1/webhook-endpoints/{register(client)['id']}"
    answers = [
        other.get(one),
        other.patch(one, json={"max_batch": 2}),
        other.delete(one),
        other.post(one + "/rotate-secret"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert other.get("/v1/webhook-endpoints").json()["data"] == []
    assert client.get(one).json()["max_batch"] == 1
