"""The look at known vulnerabilities: it fails on one, and only on one."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dependency_audit import LOCK, main, pins

SAFE = {"name": "good", "version": "1.0", "vulns": []}
UNSAFE = {"name": "bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "odd", "skip_reason": "not found"}


def run(directory: Path, answer: str, *, code: int = 0) -> int:
    """Audits two packages with a program that answers so."""
    program, lock = directory / "program.py", directory / "lock.txt"
    program.write_text(f"import sys\nsys.stdout.write({answer!r})\nsys.stderr.write('the reason')\nsys.exit({code})")
    lock.write_text("good==1.0 \\\n    --hash=sha256:00\nbad==1.0 ; python_version < '4' \\\n    --hash=sha256:00\n")
    return main(lock, (sys.executable, str(program)))


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([SAFE, SAFE], 0, "2 of 2 packages looked up, no vulnerability"),
        ([SAFE, UNKNOWN], 0, "1 of 2 packages looked up, no vulnerability"),
        ([SAFE, UNSAFE], 1, "bad 1.0: PYSEC-1, mended in 1.1"),
        ([UNKNOWN, UNKNOWN], 0, "skipped: this package index has no vulnerability data"),
    ],
)
def test_a_known_vulnerability_fails_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: list[Any], code: int, said: str
) -> None:
    assert run(tmp_path, json.dumps({"dependencies": answers}), code=code) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["", "no JSON", "[]", "{}"])
def test_without_an_answer_it_is_skipped_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    assert run(tmp_path, answer, code=1) == 0
    assert capsys.readouterr().out == "dependency audit skipped: the reason\n"


def test_a_program_that_is_not_there_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lock.txt").write_text("good==1.0\n")
    assert main(tmp_path / "lock.txt", (str(tmp_path / "nothing"),)) == 0
    assert capsys.readouterr().out == "dependency audit skipped: FileNotFoundError\n"


def test_every_package_of_the_lock_is_looked_up() -> None:
    packages = [line for line in LOCK.read_text().splitlines() if line and line[0] not in " #-"]
    assert [pin.partition("==")[0] for pin in pins(LOCK.read_text())] == [line.partition("==")[0] for line in packages]
    assert len(packages) > 50
