"""`postroad up` from outside: what it promises in stack.json, and that it keeps everything running, stops and resumes."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
import requests

from tests.conftest import Stack, run_stack, wait_until

pytestmark = pytest.mark.stack

LASTING = (
    "api_key", "workspace_id", "user_id", "mailer_id", "contact_id", "deal_id", "customer_id", "webhook_secret", "api",
    "inbox", "database_url", "redis_url",
)  # fmt: skip


def _pids(content: dict[str, Any]) -> dict[str, int]:
    workers: dict[str, int] = content["pids"]["workers"]
    return {name: pid for name, pid in content["pids"].items() if name != "workers"} | workers


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _processes(pids: dict[str, int]) -> set[int]:
    """These processes and all their children."""
    parents = [psutil.Process(pid) for pid in pids.values()]
    return set(pids.values()) | {child.pid for parent in parents for child in parent.children(recursive=True)}


def test_stack_json_says_where_everything_is(stack: Stack) -> None:
    content = stack.json
    assert set(content) == {
        "api", "api_key", "workspace_id", "user_id", "database_url", "redis_url", "inbox", "mailer_id", "from",
        "contact_id", "deal_id", "customer_id", "webhook_secret", "ops_url", "pids",
    }  # fmt: skip
    assert set(content["pids"]) == {"postgres", "redis", "api", "beat", "workers"}
    assert set(content["pids"]["workers"]) == {"send.high", "send.normal", "followup", "webhooks"}
    assert content["webhook_secret"].startswith("whsec_")
    assert content["from"] == "hello@demo.test"
    assert stat.S_IMODE((stack.directory / "stack.json").stat().st_mode) == 0o600


def test_everything_in_stack_json_answers(stack: Stack) -> None:
    content = stack.json
    assert requests.get(f"{content['api']}/livez", timeout=60).status_code == 200
    assert requests.get(content["inbox"]["http"], timeout=60).status_code == 200
    assert requests.get(f"{content['api']}/v1/ops/queues", headers=stack.auth, timeout=60).status_code == 200
    with redis.Redis.from_url(content["redis_url"]) as client:
        assert client.ping()
    with psycopg.connect(content["database_url"]) as connection:
        row = connection.execute("select name from workspace where id = %s", (content["workspace_id"],)).fetchone()
    assert row == ("demo",)


def test_a_mail_goes_through_to_the_inbox(stack: Stack) -> None:
    content = stack.json
    body = {"to": "through@example.com", "subject": "Through", "body_text": "all the way"}
    answer = requests.post(f"{content['api']}/v1/email/send", json=body, headers=stack.auth, timeout=60)
    assert answer.status_code == 200, answer.text
    found = requests.get(f"{content['inbox']['http']}/messages?to=through@example.com", timeout=60).json()["data"]
    assert [mail["message_id"] for mail in found] == [answer.json()["message_id"]]


@pytest.mark.parametrize("name", ["send.normal", "beat", "api", "redis", "postgres"])
def test_a_child_that_is_killed_is_started_again(stack: Stack, name: str) -> None:
    before = _pids(stack.json)
    os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: _pids(stack.json)[name] != before[name], f"stack.json names a new {name}")
    after = _pids(stack.json)
    assert psutil.pid_exists(after[name])
    assert {other: pid for other, pid in after.items() if other != name} == {
        other: pid for other, pid in before.items() if other != name
    }
    answer = requests.get(f"{stack.json['api']}/v1/ops/queues", headers=stack.auth, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def own(scratch: Path) -> Path:
    """A folder for stacks that are stopped and killed."""
    return scratch / "own"


def test_a_stopped_stack_leaves_no_process_and_resumes_as_the_same(own: Path) -> None:
    first = run_stack(own, "--no-demo")
    content, processes = first.json, _processes(_pids(first.json))
    assert first.stop() == 0
    assert [pid for pid in processes if not _gone(pid)] == []
    assert not (own / "stack.json").exists()

    second = run_stack(own, "--no-demo")
    assert {name: second.json[name] for name in LASTING} == {name: content[name] for name in LASTING}
    argv = (sys.executable, "-m", "deploy.cli", "up", "--data", str(own), "--no-demo")
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert f"already runs on {own} as process {second.process.pid}" in refused.stderr

    processes = _processes(_pids(second.json))
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait()
    wait_until(lambda: all(_gone(pid) for pid in processes), "no orphan is left of a killed stack")


def test_the_demo_accounts_for_every_mail(scratch: Path) -> None:
    argv = (sys.executable, "-m", "deploy.cli", "up", "--data", str(scratch / "demo"), "--once")
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    numbers = dict(re.findall(r"^ +(\S.*?) {2,}([\d,]+) *$", shown.stdout, re.MULTILINE))
    assert numbers["mails sent"] == "1,012"
    assert numbers["refused by the recipient's server"] == "10"
    assert numbers["activities on the contact"] == "1,012"
    assert int(numbers["webhook events, signature verified"].replace(",", "")) >= 1_022
    assert (numbers["lost"], numbers["sent twice"]) == ("0", "0")


def test_a_taken_port_is_named(stack: Stack, tmp_path: Path) -> None:
    taken = stack.json["api"].rpartition(":")[2]
    argv = (sys.executable, "-m", "deploy.cli", "up", "--data", str(tmp_path / "other"), "--port", taken)
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert f"Port {taken} is taken" in refused.stderr
