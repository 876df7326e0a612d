"""The look at known vulnerabilities: it fails on one, only on one, and never believes a source that knows nothing."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.dependency_audit import CANARY, LOCK, groups, main, pins

SAFE = {"name": "good", "version": "1.0", "vulns": []}
UNSAFE = {"name": "bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "odd", "skip_reason": "not found"}
KNOWS = {"name": "jinja2", "version": "2.11.0", "vulns": [{"id": "PYSEC-2021-66", "fix_versions": ["2.11.3"]}]}
KNOWS_NOT = {"name": "jinja2", "version": "2.11.0", "vulns": []}

PROGRAM = """
import sys
from pathlib import Path
asked = Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text()
sys.stdout.write({canary!r} if asked == {pin!r} else {answer!r})
sys.stderr.write('the reason')
"""


def run(directory: Path, answer: str, *, canary: str = json.dumps({"dependencies": [KNOWS]})) -> int:
    """Audits two packages with a program that answers so, and ``canary`` when it is asked about the canary."""
    program, lock = directory / "program.py", directory / "lock.txt"
    program.write_text(PROGRAM.format(canary=canary, pin=CANARY, answer=answer))
    lock.write_text("good==1.0 \\\n    --hash=sha256:00\nbad==1.0 ; python_version < '4' \\\n    --hash=sha256:00\n")
    return main(lock, [("-s", "one"), ("-s", "two")], (sys.executable, str(program)))


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([SAFE, SAFE], 0, "2 of 2 packages looked up, no vulnerability"),
        ([SAFE, UNKNOWN], 0, "1 of 2 packages looked up, no vulnerability"),
        ([SAFE, UNSAFE], 1, "bad 1.0: PYSEC-1, mended in 1.1"),
        ([UNKNOWN, UNKNOWN], 0, "NOTHING WAS AUDITED: no data about any package"),
    ],
)
def test_a_known_vulnerability_fails_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: list[Any], code: int, said: str
) -> None:
    assert run(tmp_path, json.dumps({"dependencies": answers})) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["", "no JSON", "[]", "{}"])
def test_without_an_answer_nothing_is_audited_and_it_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    assert run(tmp_path, "", canary=answer) == 0
    assert capsys.readouterr().out == "dependency audit: NOTHING WAS AUDITED: one: the reason; two: the reason\n"


def test_a_source_that_finds_nothing_wrong_with_what_is_known_to_be_is_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = json.dumps({"dependencies": [SAFE, SAFE]})
    assert run(tmp_path, fine, canary=json.dumps({"dependencies": [KNOWS_NOT]})) == 0
    assert f"NOTHING WAS AUDITED: one does not know that {CANARY} is vulnerable" in capsys.readouterr().out


def test_a_program_that_is_not_there_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lock.txt").write_text("good==1.0\n")
    assert main(tmp_path / "lock.txt", [("-s", "one")], (str(tmp_path / "nothing"),)) == 0
    assert capsys.readouterr().out == "dependency audit: NOTHING WAS AUDITED: one: FileNotFoundError\n"


ADVISORY = {
    "id": "PYSEC-2021-66",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}]}],
        }
    ],
}
"""As the Python Packaging Advisory Database has it, in the form of https://ossf.github.io/osv-schema/."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is asked directly, whatever this machine's way to the outside is."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def osv(known: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Answers as OSV's `POST /v1/query` does. known: ``name==version`` -> advisory. Yields how pip-audit asks it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = known.get(f"{asked['package']['name']}=={asked['version']}")
            body = json.dumps({"vulns": [found]} if found else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield ("-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_address[1]}/v1/query")
        finally:
            server.shutdown()


def test_pip_audit_itself_finds_the_vulnerable_pin_and_passes_the_mended_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("jinja2==2.11.3 ; python_version < '3.12'\njinja2==2.11.0 ; python_version >= '3.12'\n")
    with osv({"jinja2==2.11.0": ADVISORY}) as source:
        assert main(lock, [source]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["jinja2 2.11.0: PYSEC-2021-66, mended in 2.11.3"]


def test_pip_audit_itself_without_a_network_audits_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("jinja2==2.11.0\n")
    assert main(lock, [("-s", "osv", "--osv-url", "http://127.0.0.1:9/v1/query")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("dependency audit: NOTHING WAS AUDITED: osv: ")
    assert "ConnectionError" in said


def test_every_package_of_the_lock_is_looked_up() -> None:
    packages = [line for line in LOCK.read_text().splitlines() if line and line[0] not in " #-"]
    assert [pin.partition("==")[0] for pin in pins(LOCK.read_text())] == [line.partition("==")[0] for line in packages]
    assert len(packages) > 50


def test_a_package_with_two_versions_is_looked_up_in_both() -> None:
    assert groups(["a==1", "b==1", "a==2", "c==1", "a==3"]) == [["a==1", "b==1", "c==1"], ["a==2"], ["a==3"]]
    assert sorted(pin for group in groups(pins(LOCK.read_text())) for pin in group) == sorted(pins(LOCK.read_text()))
