"""`postroad bulk run`: everybody in the file gets the mail once, whatever happens in between."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from deploy.bulk import plan, run
from deploy.bulk.journal import state_folder
from deploy.bulk.recipients import BulkError, read_recipients
from tests.conftest import Stack, wait_until
from tests.deploy.shell import Ended, run_on_terminal
from tests.deploy.shell import run as in_shell

Call = Callable[..., Ended]


def _file(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text)
    return path


def test_every_column_is_a_variable_and_blank_lines_are_nobody(tmp_path: Path) -> None:
    rows = read_recipients(
        _file(tmp_path, '\ufeffName,EMAIL,plan\nAda,a@x.test,"Te\nam"\n\n , ,\nBo, b@x.test ,Solo\n')
    )
    assert [(row.line, row.email, row.variables) for row in rows] == [
        (3, "a@x.test", {"name": "Ada", "email": "a@x.test", "plan": "Te\nam"}),
        (6, "b@x.test", {"name": "Bo", "email": "b@x.test", "plan": "Solo"}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must name"),
        ("address\na@x.test\n", "must be email"),
        ("email,a,a\n", "a name of its own"),
        ("email,\n", "a name of its own"),
        ("email\n", "no rows"),
        ("email,name\na@x.test\n", "Line 2 has 1 cells, but there are 2 columns"),
        ("email\na@x.test\nb@x.test\nA@x.test\n", "line 4 repeats line 2"),
        ('email\n"a@x.test\n', "not CSV"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BulkError, match=re.escape(said)):
        read_recipients(_file(tmp_path, text))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template, and a place for the records of runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(plan, "CHUNK", 10)
    monkeypatch.setattr(run, "POLL_SECONDS", 0.05)
    (tmp_path / "t.html").write_text("<p>Dear {{name}}, {{email}} has the plan {{plan}}.</p>")
    return tmp_path


@pytest.fixture
def env(stack: Stack, folder: Path) -> dict[str, str]:
    return {
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "XDG_CONFIG_HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
    }


@pytest.fixture
def bulk(env: dict[str, str], folder: Path, stack: Stack) -> Call:
    def call(*options: str, **changed: str) -> Ended:
        words = ["bulk", "run", str(folder / "people.csv"), "--template", str(folder / "t.html"), *options]
        words += ["--subject", "For {{name}}"] + (
            [] if "--mailer" in options else ["--mailer", stack.json["mailer_id"]]
        )
        return in_shell(words, env | changed)

    return call


def _people(folder: Path, count: int, *others: str) -> Path:
    addresses = [f"{folder.name}-{number}@example.com" for number in range(count)] + list(others)
    lines = [f"{address},Person {number},Plan {number}" for number, address in enumerate(addresses)]
    return _file(folder, "\n".join(["email,name,plan", *lines, ""]))


def _campaign(stack: Stack, id_: str) -> dict[str, Any]:
    answer = requests.get(f"{stack.json['api']}/v1/campaigns/{id_}", headers=stack.auth, timeout=60)
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.stack
def test_each_row_gets_its_mail_and_a_failure_ends_with_5(bulk: Call, folder: Path, stack: Stack) -> None:
    _people(folder, 24, "bounce1@example.com")
    ended = bulk()
    summary = json.loads(ended.out)
    assert (ended.code, ended.err) == (5, "")
    assert {state: count for state, count in summary["counts"].items() if count} == {"sent": 24, "failed": 1}
    assert len(summary["submissions"]) == 3
    assert summary["campaign_id"].startswith("people-")
    assert _campaign(stack, summary["campaign_id"])["total"] == 25


@pytest.mark.stack
def test_repeating_it_sends_to_nobody_twice_even_if_this_machine_forgot(bulk: Call, folder: Path, stack: Stack) -> None:
    _people(folder, 25)
    first = bulk().json
    second = bulk("--resume").json
    for path in state_folder().iterdir():
        path.unlink()
    third = bulk().json
    assert first["submissions"] == second["submissions"] == third["submissions"]
    assert _campaign(stack, first["campaign_id"])["total"] == 25


@pytest.mark.stack
def test_what_the_server_would_refuse_is_found_before_anything_is_sent(bulk: Call, folder: Path, stack: Stack) -> None:
    _people(folder, 24, "no address")
    ended = bulk("--campaign", f"{folder.name}-refused")
    assert ended.code == 1
    assert "line 26: " in ended.err
    assert _campaign(stack, f"{folder.name}-refused")["error"] == "NOT_FOUND"


@pytest.mark.stack
def test_a_variable_without_a_column_is_named(bulk: Call, folder: Path) -> None:
    _file(folder, "email,name\na@example.com,A\n")
    ended = bulk()
    assert ended.code == 1
    assert "No column for plan" in ended.err


@pytest.mark.stack
def test_a_dry_run_shows_the_first_mails_filled_in_and_sends_none(bulk: Call, folder: Path, stack: Stack) -> None:
    _people(folder, 25)
    shown = bulk("--dry-run", "2", "--campaign", f"{folder.name}-dry").json
    assert (shown["dry_run"], shown["total"]) == (True, 2)
    assert shown["mails"][1]["subject"] == "For Person 1"
    assert f"{folder.name}-1@example.com has the plan Plan 1" in shown["mails"][1]["html"]
    assert _campaign(stack, f"{folder.name}-dry")["error"] == "NOT_FOUND"


@pytest.mark.stack
def test_another_template_under_the_same_campaign_is_refused(bulk: Call, folder: Path, stack: Stack) -> None:
    _people(folder, 3)
    campaign = f"{folder.name}-changed"
    assert bulk("--campaign", campaign).code == 0
    (folder / "t.html").write_text("<p>Something else, {{name}}</p>")
    ended = bulk("--campaign", campaign)
    assert ended.code == 1
    assert "another template" in ended.err
    assert _campaign(stack, campaign)["total"] == 3


@pytest.mark.stack
def test_an_old_campaign_of_which_nothing_is_known_here_is_not_sent_again(
    bulk: Call, folder: Path, stack: Stack
) -> None:
    _people(folder, 3)
    campaign = f"{folder.name}-old"
    assert bulk("--campaign", campaign).code == 0
    with psycopg.connect(stack.json["database_url"]) as connection:
        connection.execute("update campaign set created_at = now() - interval '2 days' where id = %s", (campaign,))
    assert bulk("--campaign", campaign).code == 0
    for path in state_folder().iterdir():
        path.unlink()
    ended = bulk("--campaign", campaign)
    assert ended.code == 1
    assert "no record" in ended.err
    assert _campaign(stack, campaign)["total"] == 3


@pytest.mark.stack
def test_a_request_begun_long_ago_whose_answer_never_came_is_not_repeated(
    bulk: Call, folder: Path, stack: Stack
) -> None:
    _people(folder, 3)
    assert bulk().code == 0
    (path,) = state_folder().iterdir()
    journal = json.loads(path.read_text())
    journal["taken"], journal["begun"] = {}, {"0": (datetime.now(UTC) - timedelta(days=2)).isoformat()}
    path.write_text(json.dumps(journal))
    ended = bulk()
    assert ended.code == 1
    assert "is not known" in ended.err


@pytest.mark.stack
def test_a_refused_request_is_not_remembered_as_begun(bulk: Call, folder: Path) -> None:
    _people(folder, 3)
    assert bulk("--from", "hello@elsewhere.example").code == 1
    (path,) = state_folder().iterdir()
    assert json.loads(path.read_text())["begun"] == {}


class _LosesAnswers(BaseHTTPRequestHandler):
    """Passes requests on, and drops the connection instead of the first two answers to a send."""

    target: str
    lost: int

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        names = ("Authorization", "Content-Type", "Idempotency-Key")
        headers = {name: self.headers[name] for name in names if self.headers[name]}
        answer = requests.request(self.command, self.target + self.path, data=body, headers=headers, timeout=60)
        if self.command == "POST" and type(self).lost < 2:
            type(self).lost += 1
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = _pass_on  # noqa: N815 -- the names that http.server calls

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def losing(stack: Stack) -> Iterator[str]:
    handler = type("Handler", (_LosesAnswers,), {"target": stack.json["api"], "lost": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.stack
def test_an_answer_that_is_lost_on_the_way_costs_no_second_mail(
    bulk: Call, folder: Path, stack: Stack, losing: str
) -> None:
    _people(folder, 15)
    summary = bulk(POSTROAD_URL=losing).json
    assert len(summary["submissions"]) == 2
    assert _campaign(stack, summary["campaign_id"])["total"] == 15


@pytest.fixture
def slow_mailer(stack: Stack) -> Iterator[str]:
    """A mailer that sends ten a second."""
    host, _, port = stack.json["inbox"]["smtp"].partition(":")
    body = {
        "provider": "smtp", "name": "slow", "from": ["slow@slow.test"], "caps": {"per_second": 10},
        "credentials": {"host": host, "port": int(port), "security": "none"},
    }  # fmt: skip
    root = f"{stack.json['api']}/v1/mailers"
    made = requests.post(root, json=body, headers=stack.auth, timeout=60).json()
    yield made["id"]
    requests.delete(f"{root}/{made['id']}", headers=stack.auth, timeout=60)


@pytest.mark.stack
def test_ctrl_c_pauses_the_campaign_and_the_printed_line_goes_on(
    env: dict[str, str], folder: Path, stack: Stack, slow_mailer: str
) -> None:
    _people(folder, 60)
    campaign = f"{folder.name} slow"
    words = ["bulk", "run", "people.csv", "--template", "t.html", "--subject", "For {{name}}", "--mailer", slow_mailer]
    command = [sys.executable, "-m", "deploy.cli", *words, "--campaign", campaign]
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **env, "PYTHONPATH": str(root)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: _campaign(stack, campaign).get("counts", {}).get("sent", 0) > 0, "the first mails are sent")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    paused = _campaign(stack, campaign)
    assert paused["status"] == "paused"
    assert 0 < paused["counts"]["sent"] < 60
    assert json.loads(out)["counts"]["sent"] == paused["counts"]["sent"]
    again = subprocess.run([*command, "--json"], cwd=folder, env={**os.environ, **env, "PYTHONPATH": str(root)},
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert again.returncode == 1
    assert "--resume" in again.stderr
    line = err.strip().splitlines()[-1].strip()
    code, seen = run_on_terminal(_words(line, folder), env)
    assert code == 0, seen
    assert "/s" in seen
    assert "0:00:0" in seen
    assert _campaign(stack, campaign)["counts"]["sent"] == _campaign(stack, campaign)["total"] == 60


@pytest.mark.stack
def test_mail_that_waits_for_a_person_is_told_and_not_waited_for(
    bulk: Call, folder: Path, stack: Stack, slow_mailer: str
) -> None:
    _people(folder, 3)
    campaign = f"{folder.name}-held"
    requests.post(f"{stack.json['api']}/v1/mailers/{slow_mailer}/pause", headers=stack.auth, timeout=60)

    def hold() -> None:
        wait_until(lambda: _campaign(stack, campaign).get("total") == 3, "the mail is taken")
        with psycopg.connect(stack.json["database_url"]) as connection:
            connection.execute(
                "update message set state = 'uncertain', due_at = '9999-01-01 00:00:00+00' where mailer_id = %s",
                (slow_mailer,),
            )

    holding = threading.Thread(target=hold)
    holding.start()
    ended = bulk("--campaign", campaign, "--mailer", slow_mailer)
    holding.join()
    assert (ended.code, json.loads(ended.out)["held"]) == (5, 3)
    assert "3 mail(s) may or may not have arrived" in ended.err
    cancel = "update message set state = 'failed', due_at = null, finished_at = now() where mailer_id = %s"
    with psycopg.connect(stack.json["database_url"]) as connection:
        connection.execute(cancel, (slow_mailer,))


def _words(line: str, folder: Path) -> list[str]:
    """The arguments of a printed command, with files named from here."""

    words = shlex.split(line)[1:]
    return [str(folder / word) if (folder / word).is_file() else word for word in words]
