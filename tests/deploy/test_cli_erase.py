"""`postroad erase` against a running stack: its beat forgets the person while the command waits."""

from pathlib import Path

import pytest

from tests.conftest import Stack
from tests.deploy.shell import run

pytestmark = pytest.mark.stack


def test_s14_a_person_is_forgotten_from_the_shell(stack: Stack, tmp_path: Path) -> None:
    env = {
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    address = "forget.me@example.com"
    sent = run(["send", "--to", address, "--subject", "Hello", "--text-file", "-", "--wait", "20"], env, "Hello").json
    assert sent["messages"][0]["recipients"] == [address]
    done = run(["erase", address, "--yes"], env).json
    assert (done["status"], done["report"]["messages"]) == ("done", 1)
    shown = run(["message", "show", sent["messages"][0]["id"]], env)
    assert shown.code == 0
    assert address not in shown.out
    assert "erased@erased.invalid" in shown.out


def test_without_a_yes_nobody_is_forgotten(stack: Stack, tmp_path: Path) -> None:
    env = {
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    assert run(["erase", "somebody@example.com"], env).code == 2
