"""What the documentation shows is done, against a running stack.

```` ```bash run ```` and ```` ```python run ```` blocks of a page are one program in each language, run in order. A
```` ```json answer ```` block is what the block before it prints, but for ids, times and other values.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from api_shim.send import WAIT_SECONDS
from tests.conftest import Stack, wait_until
from tests.docs.pages import BY_NAME, PAGES, Block, Page

pytestmark = pytest.mark.stack

BETWEEN = "\x1e"
"""Printed after each block, to tell their outputs apart."""

BEFORE = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


def _pages(language: str) -> list[str]:
    return [page.name for page in PAGES if _runnable(page, language)]


def _runnable(page: Page, language: str) -> list[Block]:
    return [block for block in page.blocks if (block.language, block.word) == (language, "run")]


@pytest.fixture
def home(stack: Stack, tmp_path: Path) -> Path:
    """A folder in which ``.postroad`` is the stack's."""
    (tmp_path / ".postroad").symlink_to(stack.directory)
    return tmp_path


def _environment(stack: Stack) -> dict[str, str]:
    secrets = json.loads((stack.directory / "stack.secrets").read_text())
    return {
        **os.environ,
        "WORKSPACE_ID": stack.json["workspace_id"],
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "POSTROAD_DATABASE_URL": stack.json["database_url"],
        "POSTROAD_REDIS_URL": stack.json["redis_url"],
        "POSTROAD_SECRET_KEYS": secrets["secret_keys"],
    }


def _run(argv: Sequence[str], home: Path, environment: dict[str, str]) -> str:
    own = f"{Path(sys.executable).parent}:{environment['PATH']}"  # where the `postroad` of these tests is
    environment = environment | {"PATH": own}
    done = subprocess.run(argv, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("name", _pages("bash"))
def test_the_commands_of_a_page_work_and_answer_as_shown(name: str, home: Path) -> None:
    page = BY_NAME[name]
    blocks = _runnable(page, "bash")
    script = BEFORE + "".join(f"{block.text}\nprintf '{BETWEEN}'\n" for block in blocks)
    outputs = dict(zip(blocks, _run(["bash", "-c", script], home, dict(os.environ)).split(BETWEEN), strict=False))
    shown = [
        (before, json.loads(block.text))
        for before, block in zip(page.blocks, page.blocks[1:], strict=False)
        if (block.language, block.word) == ("json", "answer")
    ]
    for before, answer in shown:
        assert _form(json.loads(outputs[before])) == _form(answer), before.text


def _form(value: Any) -> Any:
    """A JSON value with its scalars replaced by their kind; counts and words stay."""
    if isinstance(value, dict):
        return {key: _form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_form(item) for item in value]
    if isinstance(value, str) and (len(value) >= 20 or not value.isascii()):
        return "text"
    return value


@pytest.mark.parametrize("name", _pages("python"))
def test_the_programs_of_a_page_run(name: str, stack: Stack, home: Path) -> None:
    program = "\n".join(block.text for block in _runnable(BY_NAME[name], "python"))
    _run([sys.executable, "-c", program], home, _environment(stack))


def test_what_the_readme_stores_from_python_is_sent(stack: Stack, home: Path) -> None:
    *_, program = _runnable(BY_NAME["README.md"], "python")
    ref_id = _run([sys.executable, "-c", program.text], home, _environment(stack)).split()[0]
    wait_until(lambda: _submission(stack, ref_id)["finished_at"] is not None, "the mail is finished")
    assert _submission(stack, ref_id)["status"] == "sent"


def _submission(stack: Stack, ref_id: str) -> dict[str, Any]:
    answer = requests.get(f"{stack.json['api']}/v1/submissions/{ref_id}", headers=stack.auth, timeout=60)
    shown: dict[str, Any] = answer.json()
    return shown


@pytest.mark.parametrize(
    "body",
    [
        {"to_email": "grace@example.com", "subject": "Waited for", "html_body": "<p>Out, and logged.</p>"},
        {"to": "grace@example.com", "subject": "Waited for", "body_text": "Out."},
    ],
    ids=["crm", "mailbox"],
)
def test_a_request_that_waits_is_answered_when_the_mail_is_out_and_not_when_its_time_is_up(
    body: dict[str, str], stack: Stack
) -> None:
    answer = requests.post(f"{stack.json['api']}/v1/email/send", json=body, headers=stack.auth, timeout=60)
    assert answer.json()["status"] == "sent"
    assert answer.elapsed.total_seconds() < WAIT_SECONDS / 2
