"""Which server the verbs talk to, and what they say when that goes wrong."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest

from deploy.commands.connection import Connection, connect_to
from tests.deploy.shell import run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder and home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def _write_profiles(folder: Path) -> None:
    path = folder / "config" / "postroad" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        '[default]\nurl = "http://default"\napi_key = "dk"\n[staging]\nurl = "http://staging/"\napi_key = "sk"\n'
    )


def _write_stack(folder: Path) -> None:
    (folder / ".postroad").mkdir()
    (folder / ".postroad" / "stack.json").write_text(json.dumps({"api": "http://stack", "api_key": "tk"}))


def _found(**given: str) -> tuple[str, str]:
    found = connect_to(given.get("url"), given.get("key"), given.get("profile"))
    return found.url, found.key


def test_flags_win_over_the_environment_and_that_over_profiles_and_those_over_the_stack(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_stack(folder)
    assert _found() == ("http://stack", "tk")
    _write_profiles(folder)
    assert _found() == ("http://default", "dk")
    assert _found(profile="staging") == ("http://staging", "sk")
    monkeypatch.setenv("POSTROAD_URL", "http://env")
    monkeypatch.setenv("POSTROAD_API_KEY", "ek")
    assert _found() == ("http://env", "ek")
    assert _found(profile="default") == ("http://default", "dk")
    assert _found(url="http://flag", key="fk") == ("http://flag", "fk")
    assert _found(url="http://flag") == ("http://flag", "ek")


def test_a_key_from_a_file_is_sent_nowhere_but_to_the_url_beside_it(folder: Path) -> None:
    _write_profiles(folder)
    with pytest.raises(click.UsageError, match="No API key for http://elsewhere"):
        _found(url="http://elsewhere")
    assert _found(url="http://default") == ("http://default", "dk")


def test_the_key_is_not_in_the_repr() -> None:
    assert "secret" not in repr(Connection(url="http://x", key="secret"))


@pytest.mark.parametrize(
    ("content", "said"),
    [("[default\n", "cannot be read"), ("default = 1\n", "must be a table"), ("[other]\n", "No server to talk to")],
)
def test_a_profile_file_that_is_wrong_is_a_usage_error(folder: Path, content: str, said: str) -> None:
    path = folder / "config" / "postroad" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    ended = run(["queue"])
    assert ended.code == 2
    assert said in ended.err


def test_a_profile_that_is_not_there_is_a_usage_error(folder: Path) -> None:
    _write_stack(folder)
    ended = run(["queue", "--profile", "nowhere"])
    assert ended.code == 2
    assert "no table [nowhere]" in ended.err


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8025"])
def test_a_url_of_no_api_is_a_usage_error(url: str) -> None:
    assert run(["queue", "--url", url, "--api-key", "k"]).code == 2


class _Answers(BaseHTTPRequestHandler):
    """Answers what the test wants, and keeps what it was sent."""

    status = 200
    body = b"{}"
    headers_to_send: dict[str, str] = {}  # noqa: RUF012 -- replaced, never changed
    busy = 0
    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        type(self).seen.append(self.headers["Authorization"])
        status, headers = self.status, self.headers_to_send
        if type(self).busy:
            type(self).busy -= 1
            status, headers = 429, {"Retry-After": "0"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[tuple[type[_Answers], list[str]]]:
    """A server that is made to answer as a test needs, and the options that lead to it."""
    handler = type("Handler", (_Answers,), {"seen": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield handler, ["--url", f"http://127.0.0.1:{running.server_port}", "--api-key", "given"]
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1), (401, 4), (403, 4), (404, 3), (409, 1), (429, 75), (500, 1), (502, 1), (503, 75)]
)
def test_each_status_has_its_exit_code(server: tuple[type[_Answers], list[str]], status: int, code: int) -> None:
    handler, options = server
    handler.status, handler.body = status, b'{"error": "X", "message": "what happened"}'
    handler.headers_to_send = {"X-Request-ID": "abc-1"}
    ended = run(["queue", *options])
    assert (ended.code, ended.out) == (code, "")
    assert f"{status} X: what happened" in ended.err
    assert "Request abc-1" in ended.err


def test_an_error_says_every_field_what_to_do_and_nothing_that_a_terminal_obeys(
    server: tuple[type[_Answers], list[str]],
) -> None:
    handler, options = server
    handler.status = 400
    handler.body = json.dumps(
        {
            "error": "VALIDATION_ERROR",
            "details": {
                "fields": [{"field": "a", "message": "is bad \x1b[2J\a"}, {"field": "b", "message": "is worse"}],
                "missing_entities": [{"field": "c", "id": "42"}],
                "reason": "because",
            },
        }
    ).encode()
    said = run(["queue", *options]).err
    for part in ("a: is bad", "b: is worse", "c: 42 does not exist", "reason: because", "Correct every field"):
        assert part in said
    assert "\x1b" not in said
    assert "\a" not in said


def test_a_busy_server_is_asked_again_when_it_says_when(server: tuple[type[_Answers], list[str]]) -> None:
    handler, options = server
    handler.body, handler.busy = b'{"queues": {}}', 2
    assert run(["queue", *options]).json == {"queues": {}}
    assert handler.seen == ["Bearer given"] * 3


def test_a_netrc_does_not_replace_the_key(
    server: tuple[type[_Answers], list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, options = server
    handler.body = b'{"queues": {}}'
    (folder / "netrc").write_text("machine 127.0.0.1 login u password p\n")
    (folder / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    assert run(["queue", *options]).code == 0
    assert handler.seen == ["Bearer given"]


@pytest.mark.parametrize(("status", "body", "code"), [(200, b"<html>", 75), (302, b"", 1), (500, b"<html>", 1)])
def test_what_is_not_the_api_is_no_traceback(
    server: tuple[type[_Answers], list[str]], status: int, body: bytes, code: int
) -> None:
    handler, options = server
    handler.status, handler.body = status, body
    assert run(["queue", *options]).code == code


def test_a_server_that_is_away_is_temporary() -> None:
    ended = run(["queue", "--url", "http://127.0.0.1:1", "--api-key", "hush"])
    assert ended.code == os.EX_TEMPFAIL
    assert "hush" not in ended.err
