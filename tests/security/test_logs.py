"""S12: of what is secret or personal nothing stands in any log, however much is logged and whatever goes wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from models.base import uuid7
from tests.conftest import Stack, run_stack, wait_until

PLANTED = {
    "password": "planted-password-7391",
    "body": "planted-body-7392",
    "subject": "planted-subject-7393",
    "recipient": "planted.recipient-7394",
    "name": "Planted Name 7395",
    "variable": "planted-variable-7396",
    "file": "planted-file-7397",
    "key": "postroad_live_planted7398",
    "url": "planted-url-7399",
}

pytestmark = pytest.mark.stack


@pytest.fixture
def chatty(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack that logs all it has to say."""
    monkeypatch.setenv("POSTROAD_LOG_LEVEL", "debug")
    running = run_stack(scratch / "chatty", "--no-demo")
    yield running
    if running.process.poll() is None:
        running.stop()


def traffic(stack: Stack) -> None:
    """Mail that goes, mail that does not, and requests that are refused, with something planted in each."""
    with httpx2.Client(base_url=stack.json["api"], headers=stack.auth, timeout=60) as client:
        to = f"{PLANTED['recipient']}@example.com"
        link = f"https://example.com/{PLANTED['url']}"
        mail: dict[str, Any] = {
            "from": {"email": stack.json["from"], "name": PLANTED["name"]}, "to": [{"email": to, "name": PLANTED["name"]}],
            "subject": PLANTED["subject"], "mailer_id": stack.json["mailer_id"],
            "content": [{"type": "text/html", "value": f"<p>{PLANTED['body']} {{{{x}}}} <a href='{link}'>x</a></p>"}],
            "substitutions": {to: {"x": PLANTED["variable"]}}, "settings": {"open_tracking": {"enable": True}, "click_tracking": {"enable": True}},
            "attachments": [{"filename": f"{PLANTED['file']}.txt", "type": "text/plain", "content": "eA=="}],
        }  # fmt: skip
        answer = client.post("/v1/email/send", json=mail)
        assert answer.status_code == 202, answer.text
        sent = [answer.json()["ref_id"]]
        broken = client.post("/v1/mailers", json=_mailer(stack)).json()["id"]
        sent.append(client.post("/v1/email/send", json={**mail, "mailer_id": broken}).json()["ref_id"])
        client.post("/v1/webhook-endpoints", json={"url": f"http://127.0.0.1:9/{PLANTED['url']}", "events": ["*"]})
        client.post("/v1/email/send", content=f'{{"to": "{to}"'.encode(), headers={"Content-Type": "application/json"})
        client.post("/v1/email/send", json={**mail, "surprise": PLANTED["body"]})
        client.get("/v1/email/logs", params={"recipient": to})
        client.get(f"/v1/contacts/{PLANTED['name']}")
        client.put(f"/v1/contacts/{uuid7()}", json={"email": to, "name": PLANTED["name"]})
        client.post("/v1/suppressions", json={"address": f"other{to}"})
        client.post(f"/v1/hooks/postmark/{PLANTED['key']}", json={"Email": to})
        client.get("/v1/keys", headers={"Authorization": f"Bearer {PLANTED['key']}"})
        client.post("/v1/erasures", json={"address": f"erased{to}"})
        wait_until(lambda: _state(client, sent[0]) == "sent", "the mail is sent")
        wait_until(
            lambda: client.get("/v1/email/logs", params={"ref_id": sent[0]}).json()["data"] != [], "it is logged"
        )


def _mailer(stack: Stack) -> dict[str, Any]:
    credentials = {"host": "127.0.0.1", "port": 9, "security": "none", "username": "u", "password": PLANTED["password"]}
    return {
        "provider": "smtp", "name": PLANTED["name"], "from": [stack.json["from"]], "domains": ["demo.test"],
        "credentials": credentials,
    }  # fmt: skip


def _state(client: httpx2.Client, ref_id: str) -> Any:
    return client.get("/v1/messages", params={"ref_id": ref_id}).json()["data"][0]["state"]


def written(stack: Stack) -> dict[str, str]:
    """Every log of every process, by its file."""
    files = [stack.log, *stack.directory.rglob("*.log"), *stack.directory.rglob("*.out")]
    return {path.name: path.read_text(errors="replace") for path in files}


def test_s12_nothing_that_was_planted_is_in_any_log(chatty: Stack) -> None:
    secrets = {**PLANTED, "its own key": chatty.json["api_key"], "its webhook secret": chatty.json["webhook_secret"]}
    traffic(chatty)
    assert chatty.stop() == 0
    logs = written(chatty)
    assert sum(map(len, logs.values())) > 0
    found = {(what, name) for what, value in secrets.items() for name, content in logs.items() if value in content}
    assert found == set()
