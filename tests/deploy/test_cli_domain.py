"""`postroad domain` against a running stack."""

from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from tests.conftest import Stack
from tests.deploy.shell import run

pytestmark = pytest.mark.stack


def test_a_domain_is_added_shown_rotated_and_removed(stack: Stack, tmp_path: Path) -> None:
    env = {
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    name = f"{uuid4().hex}.test"
    added = run(("domain", "add", name), env).json
    assert (added["domain"], added["status"]) == (name, "pending")
    shown = run(("domain", "dkim", name), env).json
    assert {key["status"] for key in shown["keys"]} == {"pending"}
    zone = run(("domain", "dkim", name, "--zone"), env)
    assert [line.split()[2] for line in zone.out.splitlines()] == ["TXT", "TXT"]
    assert run(("domain", "rotate", name), env).code == 1
    assert run(("domain", "rotate", name, "--force"), env).json["status"] == "signing"
    assert added["id"] in {one["id"] for one in run(("domain", "list"), env).json["data"]}
    checked = run(("domain", "check", name), env)
    assert checked.code == 1
    assert {record["purpose"] for record in orjson.loads(checked.out)["records"] if not record["ok"]} >= {"spf", "dkim"}
    assert run(("domain", "remove", name, "--yes"), env).json["removed"] is True
    gone = run(("domain", "check", name), env)
    assert gone.code == 3
    assert name in gone.err
