"""The suppression list: one address, many, a file of them in and out."""

import csv
import io
import json
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from api_shim.resources import suppressions
from api_shim.services import Services
from tests.api_shim.conftest import as_caller, new_tenant

CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}


def add(client: TestClient, address: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/suppressions", json={"address": address} | more)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def addresses(client: TestClient, query: str = "") -> list[str]:
    return [row["address"] for row in client.get(f"/v1/suppressions{query}").json()["data"]]


def test_an_address_is_kept_in_lower_case(client: TestClient) -> None:
    body = add(client, " Grace@Example.COM ")
    assert (body["address"], body["reason"], body["list_id"]) == ("grace@example.com", "manual", "")
    assert client.get(f"/v1/suppressions/{body['id']}").json() == body


def test_adding_again_changes_nothing(client: TestClient) -> None:
    first = add(client, "grace@example.com", reason="complaint")
    again = client.post("/v1/suppressions", json={"address": "GRACE@example.com", "reason": "manual"})
    assert (again.status_code, again.json()) == (200, first)
    actions = [row["action"] for row in client.get("/v1/ops/audit").json()["data"]]
    assert actions == ["suppression.added"]


def test_many_are_added_at_once(client: TestClient) -> None:
    add(client, "a@example.com")
    body = [{"address": "a@example.com"}, {"address": "B@example.com"}, {"address": "b@example.com"}]
    answer = client.post("/v1/suppressions", json=body)
    assert (answer.status_code, answer.json()) == (201, {"added": 1, "known": 2})
    assert sorted(addresses(client)) == ["a@example.com", "b@example.com"]


def test_the_list_is_filtered_and_paged(client: TestClient) -> None:
    add(client, "a@example.com", reason="hard_bounce")
    add(client, "a@example.com", list_id="news")
    add(client, "b@example.com")
    assert addresses(client) == ["b@example.com", "a@example.com", "a@example.com"]
    assert addresses(client, "?address=A@example.com") == ["a@example.com"] * 2
    assert addresses(client, "?reason=hard_bounce") == ["a@example.com"]
    assert addresses(client, "?list_id=news") == ["a@example.com"]
    assert addresses(client, "?list_id=") == ["b@example.com", "a@example.com"]
    first = client.get("/v1/suppressions?limit=2").json()
    rest = client.get("/v1/suppressions", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (len(first["data"]), len(rest["data"]), rest["next_cursor"]) == (2, 1, None)


@pytest.mark.parametrize("query", ["?reason=boredom", "?address=nobody", "?list_id=%00", "?cursor=x"])
def test_a_bad_filter_is_a_400(client: TestClient, query: str) -> None:
    assert client.get(f"/v1/suppressions{query}").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"address": "nobody"},
        {"address": "a@b.test", "reason": "boredom"},
        {"address": "a@b.test", "list": "x"},
        {"address": "a@b.test", "list_id": "a\0"},
        {},
        [],
        [{"address": "a@b.test"}, {"address": "nobody"}],
    ],
)
def test_a_bad_body_is_a_400_and_stores_nothing(client: TestClient, body: Any) -> None:
    assert client.post("/v1/suppressions", json=body).status_code == 400
    assert addresses(client) == []


def test_an_address_is_removed_by_id(client: TestClient) -> None:
    id_ = add(client, "a@example.com")["id"]
    add(client, "a@example.com", list_id="news")
    assert client.delete(f"/v1/suppressions/{id_}").status_code == 204
    assert addresses(client) == ["a@example.com"]
    assert client.delete(f"/v1/suppressions/{id_}").status_code == 404
    entry = client.get("/v1/ops/audit?action=suppression.removed").json()["data"][0]
    assert (entry["target"], entry["detail"]) == (id_, {"reason": "manual", "list_id": ""})


def test_an_address_is_removed_by_itself_from_one_list_or_from_all(client: TestClient) -> None:
    for list_id in ("", "news", "offers"):
        add(client, "a@example.com", list_id=list_id)
    add(client, "b@example.com")
    assert client.delete("/v1/suppressions?address=A@example.com&list_id=news").status_code == 204
    assert len(addresses(client)) == 3
    assert client.delete("/v1/suppressions?address=A@example.com").status_code == 204
    assert addresses(client) == ["b@example.com"]
    assert client.delete("/v1/suppressions?address=a@example.com").status_code == 404
    assert client.delete("/v1/suppressions").status_code == 400
    assert addresses(client) == ["b@example.com"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("address,reason,list_id\r\nA@example.com,unsubscribe,news\r\nb@example.com,,\r\n", CSV),
        ("\ufeffreason,Email,list_id\nunsubscribe,a@example.com,news\n\n,\"b@example.com\"\n", CSV),
        ("a@example.com,unsubscribe,news\nb@example.com\n", CSV | {"Content-Type": "text/csv; charset=utf-8"}),
        ('[{"address": "a@example.com", "reason": "unsubscribe", "list_id": "news"}, "b@example.com"]', JSON),
    ],
)  # fmt: skip
def test_a_file_is_imported(client: TestClient, body: str, headers: dict[str, str]) -> None:
    answer = client.post("/v1/suppressions/import", content=body.encode(), headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"rows": 2, "added": 2, "known": 0})
    rows = {row["address"]: (row["reason"], row["list_id"]) for row in client.get("/v1/suppressions").json()["data"]}
    assert rows == {"a@example.com": ("unsubscribe", "news"), "b@example.com": ("manual", "")}


@pytest.mark.parametrize(
    ("body", "headers", "named"),
    [
        (b"address\na@example.com\nnobody\n", CSV, "row 2.address"),
        (b"name\nAda\n", CSV, "address"),
        (b"address,address\na@example.com,b@example.com\n", CSV, "columns"),
        (b"address\na@example.com,manual\n", CSV, "line 2"),
        (b"address\n\xff@example.com\n", CSV, "UTF-8"),
        (b'address\n"a@example.com\n', CSV, "CSV"),
        (b"", CSV, "address"),
        (b'{"address": "a@example.com"}', JSON, "list"),
        (b"address\na@example.com\n", JSON, "text/csv"),
        (b'["a@example.com", 5]', JSON, "row 2"),
        (b'["a@example.com", "b@example.com\\u0000"]', JSON, "row 2.address"),
        (b'[{"address": "a@example.com", "because": 1}]', JSON, "row 1.because"),
    ],
)
def test_a_bad_file_is_refused_as_a_whole(client: TestClient, body: bytes, headers: dict[str, str], named: str) -> None:
    answer = client.post("/v1/suppressions/import", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert named in answer.text
    assert addresses(client) == []


def test_a_hundred_thousand_rows_are_imported_and_not_one_more(client: TestClient) -> None:
    lines = [f"user{number}@example.com" for number in range(100_001)]
    too_many = client.post("/v1/suppressions/import", content="\n".join(["address", *lines]), headers=CSV)
    assert too_many.status_code == 400
    answer = client.post("/v1/suppressions/import", content="\n".join(["address", *lines[1:]]), headers=CSV)
    assert answer.json() == {"rows": 100_000, "added": 100_000, "known": 0}


def test_what_was_exported_as_csv_can_be_imported(
    client: TestClient, other: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions, "EXPORT_ROWS", 2)
    for number in range(5):
        add(client, f"user{number}@example.com", list_id='a "list", of sorts')
    exported = client.get("/v1/suppressions/export?format=csv")
    assert exported.headers["content-type"].startswith("text/csv")
    assert len(list(csv.DictReader(io.StringIO(exported.text)))) == 5
    answer = other.post("/v1/suppressions/import", content=exported.content, headers=CSV)
    assert answer.json()["added"] == 5
    taken_back = other.get("/v1/suppressions/export?format=csv").text
    assert sorted(taken_back.splitlines()) == sorted(exported.text.splitlines())


def test_an_export_streams_json_lines_oldest_first(client: TestClient) -> None:
    for address in ("a@example.com", "b@example.com"):
        add(client, address)
    add(client, "c@example.com", reason="complaint")
    lines = client.get("/v1/suppressions/export").text.splitlines()
    assert [json.loads(line)["address"] for line in lines] == ["a@example.com", "b@example.com", "c@example.com"]
    assert len(client.get("/v1/suppressions/export?reason=complaint").text.splitlines()) == 1
    assert client.get("/v1/suppressions/export?format=xml").status_code == 400


def test_another_workspaces_list_is_not_seen_or_changed(client: TestClient, other: TestClient) -> None:
    id_ = add(client, "a@example.com")["id"]
    answers = [
        other.get(f"/v1/suppressions/{id_}"),
        other.delete(f"/v1/suppressions/{id_}"),
        other.delete("/v1/suppressions?address=a@example.com"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert addresses(other) == []
    assert other.get("/v1/suppressions/export").text == ""
    add(other, "a@example.com")
    assert addresses(client) == ["a@example.com"]


def test_reading_and_writing_are_different_scopes(api: TestClient, app_services: Services) -> None:
    reader = as_caller(api, new_tenant(app_services, ("suppressions:read",)).key)
    writer = as_caller(api, new_tenant(app_services, ("suppressions:write",)).key)
    allowed = [reader.get("/v1/suppressions"), reader.get("/v1/suppressions/export")]
    refused = [
        reader.post("/v1/suppressions", json={"address": "a@b.test"}),
        reader.post("/v1/suppressions/import", content="address", headers=CSV),
        reader.delete(f"/v1/suppressions/{uuid4()}"),
        reader.delete("/v1/suppressions?address=a@b.test"),
        writer.get("/v1/suppressions"),
        writer.get("/v1/suppressions/export"),
        writer.get(f"/v1/suppressions/{uuid4()}"),
    ]
    assert [answer.status_code for answer in allowed] == [200, 200]
    assert [answer.status_code for answer in refused] == [403] * 7
