"""`postroad webhook listen`: what it prints, and what a program at a local port receives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from standardwebhooks.webhooks import Webhook

from tests.conftest import Stack, wait_until
from tests.deploy.shell import run, run_on_terminal
from tests.worker.receiver import Receiver, receiving, status
from worker.signature import new_secret

pytestmark = pytest.mark.stack


@pytest.fixture
def env(stack: Stack, tmp_path: Path) -> dict[str, str]:
    return {
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "XDG_CONFIG_HOME": str(tmp_path),
    }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def _send(env: dict[str, str]) -> Any:
    arguments = ["send", "--to", "grace@example.com", "--subject", "Hello", "--text-file", "-", "--wait", "20"]
    return run(arguments, env, "Hello").json


def _at_rest(env: dict[str, str]) -> bool:
    queues = run(["queue"], env).json["queues"]
    return all(queue["ready"] == queue["in_flight"] == 0 for queue in queues.values())


def _two_events(env: dict[str, str]) -> str:
    """The cursor behind which two mails' events are."""
    after = str(requests.get(f"{env['POSTROAD_URL']}/v1/events", {"after": "latest"}, headers={
        "Authorization": f"Bearer {env['POSTROAD_API_KEY']}"}, timeout=60).json()["next_cursor"])  # fmt: skip
    _send(env)
    _send(env)
    return after


def test_events_are_printed_and_posted_with_a_signature_that_the_public_library_accepts(
    env: dict[str, str], receiver: Receiver
) -> None:
    after, secret = _two_events(env), new_secret()
    receiver.answers.append(status(500))
    ended = run(["webhook", "listen", receiver.url, "--secret", secret, "--after", after, "--count", "2"], env)
    assert ended.code == 0, ended.err
    assert secret in ended.err
    assert secret not in ended.out
    shown = ended.lines
    assert [line.pop("forwarded") for line in shown] == ["500", "200"]
    for line, call in zip(shown, receiver.calls, strict=True):
        assert Webhook(secret).verify(call.body, call.headers) == line == orjson.loads(call.body)
        assert call.id == line["id"]


def test_it_begins_with_what_comes_next_and_shows_only_the_events_asked_for(env: dict[str, str]) -> None:
    wait_until(lambda: _at_rest(env), "nothing is to be told of mails sent before")
    command = [sys.executable, "-m", "deploy.cli", "webhook", "listen", "--event", "MAIL_DELIVERED", "--count", "1"]
    with subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE) as listening:
        mails: list[str] = []
        while listening.poll() is None and len(mails) < 60:
            mails.append(_send(env)["ref_id"])
            with suppress(subprocess.TimeoutExpired):
                listening.wait(1)
        listening.terminate()
        assert listening.stdout is not None
        line = orjson.loads(listening.stdout.read())
    assert (line["event"], line["details"]["ref_id"] in mails) == ("MAIL_DELIVERED", True)


def test_a_person_sees_a_line_each(env: dict[str, str]) -> None:
    after = _two_events(env)
    code, seen = run_on_terminal(["webhook", "listen", "http://127.0.0.1:1/", "--after", after, "--count", "1"], env)
    assert code == 0
    assert "grace@example.com  -> ConnectionError" in seen


@pytest.mark.parametrize("arguments", [["localhost:8000"], ["http://localhost/", "--secret", "whsec_!"]])
def test_what_cannot_be_forwarded_to_is_a_usage_error(env: dict[str, str], arguments: list[str]) -> None:
    assert run(["webhook", "listen", *arguments], env).code == 2
