"""S3 to S6: what hostile input can do through the API, up to the mail that would go out."""

import base64
import gzip
import html
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_mailer
from worker.settings import Settings

BREAKS = ("\r\n", "\n", "\r", "\0", "\u2028", "\u2029", "\x85", "=?utf-8?q?x=0D=0ABcc:_e@evil.test?=")
EVIL = "x{}Bcc: e@evil.test"


@pytest.fixture
def mailer(session: Session, tenant: Tenant) -> UUID:
    return add_mailer(session, tenant)


def body(mailer: UUID, **changes: Any) -> dict[str, Any]:
    return {
        "from": {"email": "hello@mail.test", "name": "Hello"}, "to": [{"email": "ann@example.com", "name": "Ann"}],
        "subject": "Hi", "content": [{"type": "text/html", "value": "<p>Hi {{x}}</p>"}], "mailer_id": str(mailer),
        "settings": {}, "dry_run": True, **changes,
    }  # fmt: skip


def _attachment(**changes: str) -> list[dict[str, str]]:
    data = {"filename": "a.txt", "type": "text/plain", "content": base64.b64encode(b"x").decode()}
    return [data | changes]


PLACES: dict[str, Any] = {
    "subject": lambda evil: {"subject": "x" + evil},
    "sender's name": lambda evil: {"from": {"email": "hello@mail.test", "name": "x" + evil}},
    "sender's address": lambda evil: {"from": {"email": f"hello{evil}@mail.test"}},
    "recipient's name": lambda evil: {"to": [{"email": "ann@example.com", "name": "x" + evil}]},
    "recipient's address": lambda evil: {"to": [{"email": f"ann{evil}@example.com"}]},
    "reply address": lambda evil: {"replyTo": f"ann{evil}@example.com"},
    "header's name": lambda evil: {"headers": {f"X-Fine{evil}": "x"}},
    "header's value": lambda evil: {"headers": {"X-Fine": "x" + evil}},
    "file's name": lambda evil: {"attachments": _attachment(filename=f"x{evil}.txt")},
    "file's type": lambda evil: {"attachments": _attachment(type=f"text/plain{evil}")},
    "content id": lambda evil: {"attachments": _attachment(contentId="x" + evil, disposition="inline")},
    "value for the subject": lambda evil: {
        "subject": "Hi {{x}}", "substitutions": {"ann@example.com": {"x": evil}},
    },
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_s3_a_line_break_in_any_form_is_refused_wherever_it_stands(
    client: TestClient, mailer: UUID, place: str
) -> None:
    fine = client.post("/v1/email/send", json=body(mailer, **PLACES[place]("")))
    assert fine.status_code == 200, fine.text
    answers = {
        line_break: client.post("/v1/email/send", json=body(mailer, **PLACES[place](EVIL.format(line_break))))
        for line_break in BREAKS
    }
    assert {line_break: answer.status_code for line_break, answer in answers.items()} == dict.fromkeys(BREAKS, 400)


HOSTILE_VALUES = (
    "<script>alert(1)</script>", "{{x}}", "{{ x }}{{y}}", "{% for i in range(10**9) %}", "${7*7}", "#{7*7}",
    "{{''.__class__.__mro__}}", "{{> /etc/hostname }}", "\"><img src=x onerror=alert(1)>",
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_s4_a_value_is_escaped_once_and_never_expanded(client: TestClient, mailer: UUID, value: str) -> None:
    values = {"ann@example.com": {"x": value}}
    answer = client.post("/v1/email/send", json=body(mailer, substitutions=values))
    assert answer.status_code == 200, answer.text
    assert answer.json()["mails"][0]["html"] == f"<p>Hi {html.escape(value)}</p>"


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_s4_in_the_subject_a_value_is_text_on_one_line(client: TestClient, mailer: UUID, value: str) -> None:
    mail = body(mailer, subject="Hi {{x}}", substitutions={"ann@example.com": {"x": value}})
    assert client.post("/v1/email/send", json=mail).json()["mails"][0]["subject"] == f"Hi {value}"


def test_s4_a_value_of_a_megabyte_costs_no_more_than_its_length(client: TestClient, mailer: UUID) -> None:
    value = "<{{x}}" * 170_000
    mail = body(mailer, substitutions={"ann@example.com": {"x": value}})
    answer = client.post("/v1/email/send", json=mail)
    assert answer.json()["mails"][0]["html"] == f"<p>Hi {html.escape(value)}</p>"
    assert fastest(lambda: client.post("/v1/email/send", json=mail)) < 0.1


HOSTILE_TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{> /etc/hostname }}", "{% include '/etc/hostname' %}",
    "{{#x}}{{/x}}", "{% for i in range(1000000000) %}x{% endfor %}", "{{ range(10**9) }}", "${7*7}", "<%= 7*7 %>",
    "{{" * 50_000,
)  # fmt: skip


@pytest.mark.parametrize("template", HOSTILE_TEMPLATES)
def test_s5_a_template_is_text_with_names_in_it_and_no_language(
    client: TestClient, mailer: UUID, template: str
) -> None:
    mail = body(mailer, content=[{"type": "text/html", "value": template}], substitutions={"ann@example.com": {}})
    answer = client.post("/v1/email/send", json=mail)
    assert answer.status_code == 200, answer.text
    assert answer.json()["mails"][0]["html"] == template
    with opened_files() as opened:
        assert fastest(lambda: client.post("/v1/email/send", json=mail)) < 0.1
    assert opened == []


_watchers: list[list[str]] = []


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watchers and not str(arguments[0]).endswith((".py", ".pyc")):
        _watchers[-1].append(str(arguments[0]))


sys.addaudithook(_note_opened)  # for the life of the process: there is no way to take one away


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Every file that Python opens meanwhile, in any thread, but for code that is imported late."""
    _watchers.append([])
    try:
        yield _watchers[-1]
    finally:
        _watchers.pop()


def fastest(call: Callable[[], object], times: int = 5) -> float:
    """CPU seconds of the fastest call: what it costs, not what else the machine does."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken)


MALFORMED: dict[str, bytes] = {
    "depth": b'{"to_email": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "open depth": b"[" * 100_000,
    "huge number": b'{"to_email": ' + b"9" * 1_000_000 + b"}",
    "NaN": b'{"to_email": NaN}',
    "Infinity": b'{"to_email": -Infinity}',
    "twice": b'{"to_email": "a@b.de", "to_email": "c@d.de"}',
    "NUL": b'{"to_email": "a\\u0000@b.de"}',
    "surrogate": b'{"to_email": "a\\ud800@b.de"}',
    "not UTF-8": b'{"to_email": "\xff"}',
    "empty": b"",
    "no object": b"7",
}


@pytest.mark.parametrize("path", ["/v1/email/send", "/v1/keys", f"/v1/contacts/{UUID(int=1)}"])
@pytest.mark.parametrize("name", MALFORMED)
def test_s6_malformed_json_is_refused_quickly(client: TestClient, path: str, name: str) -> None:
    method = "PUT" if "contacts" in path else "POST"
    headers = {"Content-Type": "application/json"}

    def send() -> Any:
        return client.request(method, path, content=MALFORMED[name], headers=headers)

    answer = send()
    assert 400 <= answer.status_code < 500, answer.text[:300]
    assert fastest(send) < 0.05


def exchange(port: int, head: str, pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Sends until the other side answers. The answer, and how many bytes of the body were taken."""
    taken, answer = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, suppress(ConnectionError):
        connection.sendall(head.encode() + b"\r\n\r\n")
        for piece in pieces:
            connection.sendall(piece)
            taken += len(piece)
        while read := connection.recv(65536):
            answer += read
            if b"\r\n\r\n" in answer:
                break
    return answer, taken


HEAD = "POST /v1/email/send HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
MEGABYTE = 1 << 20


class Upload:
    """A request whose body never ends, as the application is given it."""

    def __init__(self, app: Any, path: str, headers: dict[str, str], *, patience: int) -> None:
        self.given, self.status = 0, 0
        self._app, self._path, self._patience = app, path, patience
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def run(self) -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": self._path, "raw_path": self._path.encode(), "root_path": "", "query_string": b"",
            "headers": self._headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        assert self.given < self._patience, "it reads on"
        self.given += PIECE
        return {"type": "http.request", "body": b" " * PIECE, "more_body": True}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)


PIECE = 65_536
"""As much as a server hands over in one go."""


@pytest.mark.parametrize(
    ("path", "headers", "status", "limit"),
    [
        ("/v1/email/send", {}, 413, 36 * MEGABYTE),
        ("/v1/keys", {}, 413, MEGABYTE),
        ("/v1/email/send", {"Content-Length": str(60 * MEGABYTE)}, 413, 0),
        ("/v1/keys", {"Content-Length": str(2 * MEGABYTE)}, 413, 0),
        ("/v1/email/send", {"Content-Encoding": "gzip"}, 415, 0),
        ("/v1/keys", {"Content-Encoding": "GZIP"}, 415, 0),
    ],
)
def test_s6_no_more_of_a_body_is_read_than_its_limit_and_a_piece(
    api: TestClient, tenant: Tenant, path: str, headers: dict[str, str], status: int, limit: int
) -> None:
    own = {"Authorization": f"Bearer {tenant.key}", "Content-Type": "application/json"}
    upload = Upload(api.app, path, own | headers, patience=2 * limit + MEGABYTE)
    assert api.portal is not None
    api.portal.call(upload.run)
    assert upload.status == status
    assert upload.given <= (limit + PIECE if limit else 0)


def test_s6_a_body_that_says_it_is_too_large_is_not_read(port: int, tenant: Tenant) -> None:
    head = HEAD.format(key=tenant.key) + f"Content-Length: {60 * MEGABYTE}"
    answer, _ = exchange(port, head, iter(()))
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_s6_a_body_that_does_not_say_is_read_to_the_limit(port: int, tenant: Tenant, settings: Settings) -> None:
    piece = f"{MEGABYTE:x}\r\n".encode() + b" " * MEGABYTE + b"\r\n"
    head = HEAD.format(key=tenant.key) + "Transfer-Encoding: chunked"
    _, taken = exchange(port, head, (piece for _ in range(200)))
    in_buffers = 16 * MEGABYTE
    assert taken < settings.max_body_bytes + in_buffers


def test_s6_a_compressed_body_is_not_unpacked(port: int, tenant: Tenant) -> None:
    bomb = gzip.compress(b" " * 50 * MEGABYTE)
    head = HEAD.format(key=tenant.key) + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    answer, _ = exchange(port, head, iter((bomb,)))
    assert answer.startswith(b"HTTP/1.1 415 ")
