"""The verbs against a running stack, as a script would call them: what they print and how they end."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.services import free_port
from tests.conftest import Stack, wait_until
from tests.deploy.shell import Ended, run, run_on_terminal

pytestmark = pytest.mark.stack

Call = Callable[..., Ended]
REF_ID_OF_NOTHING = "01" + "0" * 24


NOBODY = "01938f4e-7c1a-7b3e-9d52-6f0a8c4e1b27"
"""An id that nothing has."""


@pytest.fixture
def env(stack: Stack, tmp_path: Path) -> dict[str, str]:
    return {
        "POSTROAD_URL": stack.json["api"],
        "POSTROAD_API_KEY": stack.json["api_key"],
        "XDG_CONFIG_HOME": str(tmp_path),
    }


@pytest.fixture
def postroad(env: dict[str, str]) -> Call:
    return lambda *arguments, stdin="": run(arguments, env, stdin)


def _send(postroad: Call, *arguments: str, to: str = "grace@example.com", text: str = "Hello") -> Ended:
    return postroad("send", "--to", to, "--subject", "Hello", "--text-file", "-", *arguments, stdin=text)


def test_a_mail_is_sent_from_stdin_and_waited_for(postroad: Call) -> None:
    found = _send(postroad, "--wait", "20", to="Grace <grace@example.com>").json
    (message,) = found["messages"]
    assert found["status"] == message["state"] == "sent"
    assert (message["recipients"], message["recipient_name"]) == (["grace@example.com"], "Grace")


def test_without_waiting_the_answer_is_printed_at_once(postroad: Call) -> None:
    assert _send(postroad, "--priority", "high").json["success"] is True


def test_what_fails_for_all_ends_with_1_and_for_some_with_5(postroad: Call) -> None:
    assert _send(postroad, "--wait", "20", to="bounce1@example.com").code == 1
    assert _send(postroad, "--to", "bounce2@example.com", "--wait", "20").code == 5


def test_with_cc_all_share_one_mail(postroad: Call) -> None:
    found = _send(postroad, "--cc", "ada@example.com", "--wait", "20").json
    assert [message["recipients"] for message in found["messages"]] == [["grace@example.com", "ada@example.com"]]


def test_a_repeat_under_the_same_key_is_the_same_mail(postroad: Call) -> None:
    key = str(uuid4())
    first, second = (_send(postroad, "--idempotency-key", key).json for _ in range(2))
    assert first["ref_id"] == second["ref_id"]
    other = _send(postroad, "--idempotency-key", key, text="Other")
    assert other.code == 1
    assert "409" in other.err


def test_a_dry_run_shows_the_mail_and_sends_nothing(postroad: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>Grüße</p>")
    before = len(postroad("message", "list", "--limit", "500").json["data"])
    found = postroad("send", "--to", "a@example.com", "--subject", "S", "--html-file", str(page), "--dry-run").json
    assert (found["dry_run"], found["total"]) == (True, 1)
    assert "Grüße" in found["mails"][0]["html"]
    assert len(postroad("message", "list", "--limit", "500").json["data"]) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "--to", "a@example.com", "--subject", "S"],
        ["send", "--subject", "S", "--text-file", "-"],
        ["send", "--to", "a@example.com", "--subject", "S", "--text-file", "-", "--html-file", "-"],
        ["send", "--to", "a@example.com", "--subject", "S", "--text-file", "-", "--from", "x@elsewhere.example"],
        ["campaign", "cancel", "x"],
        ["message", "cancel", REF_ID_OF_NOTHING],
        ["mailer", "delete", NOBODY],
        ["mailer", "add", "smtp", "--credential", "port"],
        ["suppression", "remove", "a@example.com"],
        ["key", "revoke", NOBODY],
        ["key", "create", "x"],
        ["webhook", "rotate", NOBODY],
        ["webhook", "delete", NOBODY],
        ["webhook", "replay", NOBODY],
        ["webhook", "replay", NOBODY, "--since", "yesterday"],
        ["webhook", "replay", NOBODY, "--since", "2026-11-21T12:00:00"],
        ["message", "retry", REF_ID_OF_NOTHING, "--force"],
        ["nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_before_anything_happens(postroad: Call, arguments: list[str]) -> None:
    ended = postroad(*arguments, stdin="text")
    assert (ended.code, ended.out) == (2, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["message", "show", REF_ID_OF_NOTHING],
        ["message", "show", NOBODY],
        ["message", "cancel", NOBODY, "--yes"],
        ["campaign", "show", "no such/campaign"],
        ["campaign", "export", "no-such"],
        ["mailer", "pause", NOBODY],
        ["webhook", "test", NOBODY],
        ["suppression", "remove", "nobody@example.com", "--yes"],
        ["key", "revoke", NOBODY, "--yes"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_3(postroad: Call, arguments: list[str]) -> None:
    ended = postroad(*arguments)
    assert ended.code == 3
    assert "404 NOT_FOUND" in ended.err
    assert "Request " in ended.err


def test_a_wrong_key_and_a_missing_scope_end_with_4(postroad: Call) -> None:
    assert postroad("queue", "--api-key", "wrong").code == 4
    made = postroad("key", "create", "reader", "--scope", "email:read").json
    ended = postroad("queue", "--api-key", made["key"])
    assert ended.code == 4
    assert "required_scope: ops:read" in ended.err


def test_keys_are_made_listed_and_revoked(postroad: Call) -> None:
    made = postroad("key", "create", "shop", "--scope", "ops:read", "--scope", "keys:read").json
    assert postroad("queue", "--api-key", made["key"]).code == 0
    assert made["id"] in [row["id"] for row in postroad("key", "list").json["data"]]
    assert postroad("key", "revoke", made["id"], "--yes").json["revoked"] is True
    assert postroad("queue", "--api-key", made["key"]).code == 4


def test_messages_are_listed_page_by_page_and_shown(postroad: Call) -> None:
    found = _send(postroad, "--to", "ada@example.com", "--wait", "20").json
    first = postroad("message", "list", "--ref-id", found["ref_id"], "--limit", "1").json
    second = postroad(
        "message", "list", "--ref-id", found["ref_id"], "--limit", "1", "--cursor", first["next_cursor"]
    ).json
    ids = [row["id"] for page in (first, second) for row in page["data"]]
    assert sorted(ids) == sorted(message["id"] for message in found["messages"])
    assert postroad("message", "show", ids[0]).json["attempts"][0]["outcome"] == "accepted"
    assert len(postroad("message", "show", found["ref_id"]).json["messages"]) == 2
    assert postroad("message", "list", "--ref-id", found["ref_id"], "--state", "failed").json["data"] == []


def test_a_scheduled_mail_can_be_cancelled_by_either_id_and_then_no_more(postroad: Call) -> None:
    ref_id = _send(postroad, "--send-at", _in_an_hour()).json["ref_id"]
    assert postroad("message", "cancel", ref_id, "--yes").json["cancelled"] == 1
    (message,) = postroad("message", "show", ref_id).json["messages"]
    ended = postroad("message", "cancel", message["id"], "--yes")
    assert ended.code == 1
    assert "409 CONFLICT" in ended.err
    assert "cancelled" in ended.err
    ended = postroad("message", "mark-sent", message["id"], "--yes")
    assert ended.code == 1


def test_failed_mail_is_retried(postroad: Call) -> None:
    ref_id = json.loads(_send(postroad, "--wait", "20", to="bounce3@example.com").out)["ref_id"]
    assert "retried" in postroad("message", "retry", ref_id).json


def test_what_failed_is_found_counted_and_retried_by_a_filter(postroad: Call) -> None:
    ref_id = json.loads(_send(postroad, "--wait", "20", to="bounce4@example.com").out)["ref_id"]
    which = ("--ref-id", ref_id, "--status", "failed", "--since", "1h")
    (row,) = postroad("message", "list", *which).json["data"]
    assert row["recipients"] == ["bounce4@example.com"]
    assert postroad("message", "retry", "--filter", *which).code == 2  # nobody is there to be asked
    assert postroad("message", "retry", "--filter", "--yes", *which).json["updated"] == 1
    assert postroad("message", "retry", row["id"], *which).code == 2
    assert postroad("message", "retry").code == 2


def test_a_mail_is_explained_printed_and_sent_anew(postroad: Call) -> None:
    (mail,) = _send(postroad, "--wait", "20").json["messages"]
    found = postroad("message", "explain", mail["id"]).json
    assert found["causes"][0]["code"] == "accepted"
    raw = postroad("message", "raw", mail["id"]).out
    assert f"Message-ID: {mail['message_id']}" in raw
    assert postroad("message", "raw", str(uuid4())).code == 3
    copy = postroad("message", "redeliver", mail["id"], "--yes").json
    assert copy["recipients"] == mail["recipients"]
    assert copy["message_id"] != mail["message_id"]
    wait_until(lambda: postroad("message", "show", copy["id"]).json["state"] == "sent", "the copy is sent")


def test_a_queue_is_drained_stands_still_and_goes_on(postroad: Call) -> None:
    drained = postroad("queue", "drain", "send.normal", "--reason", "the relay moves").json
    assert (drained["paused"], drained["in_flight"]) == (True, 0)
    ref_id = _send(postroad).json["ref_id"]
    (mail,) = postroad("message", "list", "--ref-id", ref_id).json["data"]
    said = postroad("message", "explain", mail["id"]).json
    assert (said["causes"][0]["code"], said["next_step"]) == ("queue_paused", "postroad queue resume send.normal")
    assert postroad("queue", "reconcile", "send.normal").json["adds_up"] is True
    assert postroad("queue", "requeue", "send.normal").json["requeued"] == 0
    assert postroad("queue", "resume", "send.normal").json["paused"] is False
    wait_until(lambda: postroad("message", "show", mail["id"]).json["state"] == "sent", "it is sent after all")
    assert {worker["pid"] for worker in postroad("queue", "workers").json["data"]}


def test_the_description_of_the_api_and_the_settings_need_no_server() -> None:
    assert run(["openapi"]).json["openapi"].startswith("3.1")
    assert "POSTROAD_SECRET_KEYS" in run(["settings", "docs"]).out
    assert "POSTROAD_DATABASE_URL" in run(["settings", "validate"]).err
    given = {"POSTROAD_DATABASE_URL": "postgresql://u:hush@h/d", "POSTROAD_SECRET_KEYS": f"{'A' * 43}="}
    shown = run(["settings", "show"], given)
    assert "hush" not in shown.out
    assert shown.json["POSTROAD_LOG_LEVEL"] == "info"
    assert run(["settings", "validate"], given).json["ok"] is True
    assert run(["settings", "validate"], given | {"POSTROAD_SECRET_KEYS": "short"}).code == 1


def _in_an_hour() -> str:
    return datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()


def test_the_queues_are_shown_once_and_watched(postroad: Call, env: dict[str, str]) -> None:
    assert set(postroad("queue").json["queues"]) == {"send.high", "send.normal", "followup", "webhooks"}
    command = [sys.executable, "-m", "deploy.cli", "queue", "--watch", "--interval", "0.1"]
    child = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [json.loads(child.stdout.readline()) for _ in range(3)]
    child.send_signal(signal.SIGINT)
    rest = child.stdout.read()
    child.stdout.close()
    assert child.wait(60) == 0
    assert all(set(line["queues"]["followup"]) >= {"ready", "workers"} for line in lines)
    assert "Traceback" not in rest


def test_people_see_tables_without_colour_where_they_want_none(env: dict[str, str]) -> None:
    code, seen = run_on_terminal(["queue"], env)
    assert code == 0
    assert "send.normal" in seen
    assert "{" not in seen
    assert "\x1b[" in seen
    assert "\x1b[3" not in run_on_terminal(["queue"], env | {"NO_COLOR": "1"})[1]
    assert json.loads(run_on_terminal(["queue", "--json"], env)[1])["queues"]


def test_campaigns_are_paused_resumed_exported_and_cancelled(postroad: Call) -> None:
    campaign = f"spring/{uuid4()}"
    found = _send(postroad, "--to", "bounce4@example.com", "--campaign", campaign, "--wait", "20")
    assert found.code == 5
    assert campaign in [row["id"] for row in postroad("campaign", "list", "--limit", "500").json["data"]]
    assert postroad("campaign", "show", campaign).json["total"] == 2
    assert postroad("campaign", "pause", campaign).json["status"] == "paused"
    assert postroad("campaign", "resume", campaign).json["status"] == "active"
    wait_until(lambda: len(postroad("campaign", "export", campaign).lines) == 2, "both are logged")
    table = postroad("campaign", "export", campaign, "--state", "failed", "--format", "csv").out
    (row,) = csv.DictReader(io.StringIO(table))
    assert (row["recipient_email"], row["status"]) == ("bounce4@example.com", "failed")
    assert postroad("campaign", "retry-failed", campaign).json["retried"] == 1
    assert postroad("campaign", "cancel", campaign, "--yes").json["status"] == "cancelled"
    assert postroad("campaign", "resume", campaign).code == 1


def test_mailers_are_made_tested_paused_and_deleted(postroad: Call, stack: Stack) -> None:
    host, _, port = stack.json["inbox"]["smtp"].partition(":")
    made = postroad(
        "mailer", "add", "smtp", "--name", "relay", "--domain", "shell.test", "--credentials-file", "-",
        "--credential", f"host={host}", "--credential", f"port={port}", "--connections", "2",
        stdin='{"security": "none", "host": "replaced"}',
    ).json  # fmt: skip
    assert (made["domains"], made["caps"]["connections"]) == (["shell.test"], 2)
    assert postroad("mailer", "test", made["id"]).json["ok"] is True
    assert postroad("mailer", "pause", made["id"]).json["status"] == "paused"
    assert postroad("mailer", "resume", made["id"]).json["status"] == "active"
    sent = _send(postroad, "--from", "me@shell.test", "--wait", "20").json
    assert sent["mailer_id"] == made["id"]
    assert postroad("mailer", "delete", made["id"], "--yes").json["deleted"] is True
    assert made["id"] not in [row["id"] for row in postroad("mailer", "list").json["data"]]


def test_a_mailbox_is_connected_in_a_browser_and_its_limits_are_shown(postroad: Call) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    made = postroad(
        "mailer", "add", "gmail", "--from", "me@shell.test", "--base-url", nowhere, "--per-second", "3",
        "--credential", "client_id=c", "--credential", "client_secret=s", "--credential", "refresh_token=r",
    ).json  # fmt: skip
    assert postroad("mailer", "connect", made["id"]).json["authorization_url"].startswith("http")
    limits = {limit["name"]: limit["limit"] for limit in postroad("mailer", "budget", made["id"]).json["limits"]}
    assert limits["per_second"] == 3
    postroad("mailer", "delete", made["id"], "--yes")


def test_a_mailer_that_cannot_connect_fails_its_test(postroad: Call) -> None:
    made = postroad(
        "mailer", "add", "smtp", "--domain", "shell.test", "--credential", "host=127.0.0.1",
        "--credential", f"port={free_port()}", "--credential", "security=none",
    ).json  # fmt: skip
    ended = postroad("mailer", "test", made["id"])
    assert (ended.code, json.loads(ended.out)["ok"]) == (1, False)
    postroad("mailer", "delete", made["id"], "--yes")


def test_suppressions_are_added_imported_and_removed(postroad: Call, tmp_path: Path) -> None:
    assert postroad("suppression", "add", "No@example.com").json["address"] == "no@example.com"
    assert postroad("suppression", "import", "-", stdin="address,reason\nn1@example.com,complaint\n").json["added"] == 1
    listed = tmp_path / "list.json"
    listed.write_text('["n2@example.com", "n1@example.com"]')
    assert postroad("suppression", "import", str(listed)).json == {"rows": 2, "added": 1, "known": 1}
    found = postroad("suppression", "list", "--reason", "complaint").json["data"]
    assert [row["address"] for row in found] == ["n1@example.com"]
    for address in ("no@example.com", "n1@example.com", "n2@example.com"):
        assert postroad("suppression", "remove", address, "--yes").json["removed"] is True


class _Endpoint(BaseHTTPRequestHandler):
    came: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.came.append(self.headers["webhook-id"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[str]]]:
    came: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Endpoint,), {"came": came}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", came
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhooks_are_added_tested_replayed_rotated_and_deleted(
    postroad: Call, endpoint: tuple[str, list[str]]
) -> None:
    url, came = endpoint
    made = postroad("webhook", "add", url, "--event", "MAIL_BOUNCED").json
    assert made["secret"].startswith("whsec_")
    delivery = postroad("webhook", "test", made["id"]).json["delivery_id"]
    wait_until(lambda: came == [delivery], "the test event arrives")
    wait_until(
        lambda: [row["state"] for row in postroad("webhook", "deliveries", made["id"]).json["data"]] == ["delivered"],
        "the delivery is on record",
    )
    assert postroad("webhook", "replay", made["id"], "--since", "2h").json == {"replayed": 1}
    wait_until(lambda: came == [delivery] * 2, "it arrives again under its id")
    wait_until(
        lambda: [row["state"] for row in postroad("webhook", "deliveries", made["id"]).json["data"]] == ["delivered"],
        "the second is on record",
    )
    assert postroad("webhook", "replay", made["id"], "--delivery", delivery).json == {"replayed": 1}
    assert postroad("webhook", "rotate", made["id"], "--yes").json["secret"] != made["secret"]
    assert made["id"] in [row["id"] for row in postroad("webhook", "list").json["data"]]
    assert postroad("webhook", "delete", made["id"], "--yes").json["deleted"] is True


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_postroad(postroad: Call, shell: str) -> None:
    assert "_POSTROAD_COMPLETE" in postroad("completion", shell).out


def test_the_completion_knows_the_verbs(env: dict[str, str]) -> None:
    words: dict[str, Any] = {"_POSTROAD_COMPLETE": "bash_complete", "COMP_WORDS": "postroad camp", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "deploy.cli"]
    seen = subprocess.run(command, env={**os.environ, **env, **words}, capture_output=True, text=True, check=False)
    assert seen.stdout.strip() == "plain,campaign"
