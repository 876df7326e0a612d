"""Templates: versions, and the preview."""

from typing import Any

import pytest
from starlette.testclient import TestClient

WELCOME = {
    "name": "welcome",
    "subject": "Hello {{name}}",
    "html": "<p>Hello {{name}}</p>",
    "text": "Hello {{name}} of {{city}}",
    "defaults": {"name": "friend"},
}


def make(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/templates", json=WELCOME | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def path(template: dict[str, Any], *parts: str) -> str:
    return "/".join(["/v1/templates", template["id"], *parts])


def test_a_new_template_is_version_1_and_knows_its_variables(client: TestClient) -> None:
    made = make(client)
    assert (made["version"], made["variables"]) == (1, ["city", "name"])
    assert {key: made[key] for key in WELCOME} == WELCOME
    assert client.get(path(made)).json() == made


def test_every_change_is_a_new_version_and_the_old_ones_stay(client: TestClient) -> None:
    made = make(client)
    patched = client.patch(path(made), json={"subject": "Hi {{name}}"}).json()
    assert (patched["version"], patched["subject"], patched["html"]) == (2, "Hi {{name}}", WELCOME["html"])
    replaced = client.put(path(made), json={"name": "hi", "text": "Hi"}).json()
    assert (replaced["version"], replaced["subject"], replaced["html"], replaced["defaults"]) == (3, None, None, {})
    assert (replaced["name"], client.get(path(made)).json()["text"]) == ("hi", "Hi")
    assert client.get(path(made, "versions/1")).json()["subject"] == "Hello {{name}}"
    assert [row["version"] for row in client.get(path(made, "versions")).json()["data"]] == [3, 2, 1]
    first = client.get(path(made, "versions?limit=2")).json()
    rest = client.get(path(made, "versions"), params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["version"] for row in rest["data"]] == [1]


def test_restoring_makes_the_old_words_the_newest_version(client: TestClient) -> None:
    made = make(client)
    client.patch(path(made), json={"text": None, "defaults": {}})
    restored = client.post(path(made, "versions/1/restore")).json()
    assert (restored["version"], restored["text"], restored["defaults"]) == (3, WELCOME["text"], {"name": "friend"})
    assert client.post(path(made, "versions/9/restore")).status_code == 404


def test_a_preview_fills_escapes_and_names_what_is_missing(client: TestClient) -> None:
    made = make(client, text="{{city}} {{name}} {{unsubscribe_url}}")
    shown = client.post(path(made, "preview"), json={"variables": {"name": "<Ann>"}}).json()
    assert shown["html"] == "<p>Hello &lt;Ann&gt;</p>"
    assert shown["text"] == "{{city}} <Ann> {{unsubscribe_url}}"
    assert (shown["subject"], shown["missing"], shown["errors"]) == ("Hello <Ann>", ["city"], [])
    assert client.post(path(made, "preview"), json={}).json()["subject"] == "Hello friend"


def test_a_preview_says_what_could_not_be_composed(client: TestClient) -> None:
    shown = client.post(path(make(client), "preview"), json={"variables": {"name": "a\r\nBcc: b@example.com"}}).json()
    assert shown["subject"] is None
    assert len(shown["errors"]) == 1
    assert "line break" in shown["errors"][0]


@pytest.mark.parametrize(
    "fields",
    [
        {"html": None, "text": None},
        {"name": ""},
        {"subject": "a\nb"},
        {"subject": "a" * 999},
        {"text": "a\0b"},
        {"defaults": {"not a name": "x"}},
        {"defaults": {"name": 5}},
        {"version": 7},
    ],
)
def test_a_template_that_cannot_be_sent_is_a_400(client: TestClient, fields: dict[str, Any]) -> None:
    answer = client.post("/v1/templates", json=WELCOME | fields)
    assert answer.status_code == 400, answer.text


def test_a_change_may_not_leave_a_template_without_content(client: TestClient) -> None:
    made = make(client)
    assert client.patch(path(made), json={"html": None, "text": None}).status_code == 400
    assert client.get(path(made)).json()["version"] == 1


def test_a_name_is_given_once_in_a_workspace(client: TestClient, other: TestClient) -> None:
    make(client)
    second = make(client, name="second")
    assert client.post("/v1/templates", json=WELCOME).status_code == 409
    assert client.patch(path(second), json={"name": "welcome"}).status_code == 409
    assert client.get(path(second)).json()["name"] == "second"
    make(other)


def test_templates_are_listed_newest_first_and_deleted(client: TestClient) -> None:
    made = [make(client, name=name) for name in ("a", "b", "c")]
    first = client.get("/v1/templates?limit=2").json()
    rest = client.get("/v1/templates", params={"cursor": first["next_cursor"]}).json()
    assert first["data"] + rest["data"] == made[::-1]
    assert client.delete(path(made[0])).status_code == 204
    assert client.get(path(made[0])).status_code == 404


def test_another_workspaces_template_does_not_exist(client: TestClient, other: TestClient) -> None:
    made = make(client)
    answers = [
        other.get(path(made)),
        other.put(path(made), json=WELCOME),
        other.patch(path(made), json={}),
        other.delete(path(made)),
        other.get(path(made, "versions")),
        other.get(path(made, "versions/1")),
        other.post(path(made, "versions/1/restore")),
        other.post(path(made, "preview"), json={}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 8
    assert other.get("/v1/templates").json()["data"] == []
