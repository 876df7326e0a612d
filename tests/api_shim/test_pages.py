"""A cursor that somebody made up is refused like any other bad value."""

from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api_shim.pages import encode

FORGED: list[Any] = [
    [], [1, 2], [None], ["a\0"], ["\0", str(UUID(int=0))], [2**31], [-(2**31) - 1], [2**63], [10**18], ["x"], [{}],
    ["2026-11-21", 1], ["9999-12-31T23:59:59+99:00", str(UUID(int=0))], {}, "x", 5,
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_cursor_is_never_a_failure(client: TestClient, forged: Any) -> None:
    made = client.post("/v1/templates", json={"name": "t", "subject": "s", "html": "x"}).json()
    for path in ("/v1/campaigns", f"/v1/templates/{made['id']}/versions", "/v1/email/threads", "/v1/messages"):
        answer = client.get(path, params={"cursor": encode(forged)})
        assert answer.status_code in (200, 400), (path, answer.text)


@pytest.mark.parametrize(("path", "forged"), [("campaigns", ["a\0"]), ("templates/{}/versions", [2**31])])
def test_a_cursor_that_no_column_can_hold_is_refused_by_name(client: TestClient, path: str, forged: Any) -> None:
    made = client.post("/v1/templates", json={"name": "t", "subject": "s", "html": "x"}).json()
    answer = client.get("/v1/" + path.format(made["id"]), params={"cursor": encode(forged)})
    assert answer.status_code == 400
    assert [fault["field"] for fault in answer.json()["details"]["fields"]] == ["cursor"]
