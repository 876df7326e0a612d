"""The client: against the running application, and against a server that loses, refuses and delays on cue."""

import ast
import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import api_shim.client
from api_shim.app import create_app
from api_shim.client import (
    AsyncClient,
    Client,
    ConnectionLost,
    IdempotencyConflict,
    InvalidKey,
    NotDelivered,
    NotFound,
    NotLogged,
    NotPermitted,
    PostroadError,
    RateLimited,
    Retries,
    ServerFailed,
    Unavailable,
    ValidationFailed,
)
from api_shim.services import Services
from deploy.services import free_port
from models.message import Message
from tests.api_shim.conftest import Tenant, new_tenant
from tests.api_shim.test_send import CRM, add_mailer, body
from tests.conftest import wait_until
from worker.settings import Settings

QUICK = Retries(tries=4, seconds=60.0, first_seconds=0.01)

LOST = object()
"""The connection is cut instead of an answer."""


class Awaited:
    """An AsyncClient whose every method is run to its end, so that one test holds for both clients."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def pages(self, path: str, **params: Any) -> list[Any]:
        async def collected() -> list[Any]:
            return [row async for row in self._client.pages(path, **params)]

        return self._runner.run(collected())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))


Make = Callable[..., Any]


@pytest.fixture(params=["waiting", "awaiting"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a client of either kind."""
    made: list[Any] = []

    def built(url: str, key: str = "postroad_live_test", **options: Any) -> Any:
        settings = {"retries": QUICK} | options
        waiting = request.param == "waiting"
        made.append(Client(url, key, **settings) if waiting else Awaited(AsyncClient(url, key, **settings)))
        return made[-1]

    yield built
    for client in made:
        client.close()


@dataclass
class Script:
    """What a server answers, one entry for each request: LOST, or status, headers and body. It notes the requests."""

    answers: list[Any]
    seen: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def scripted() -> Iterator[Callable[..., Script]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: Any) -> Script:
        script = Script(list(answers))
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script))
        servers.append(server)
        script.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.seen.append((self.command, self.path, headers, json.loads(raw) if raw else None))
            answer = script.answers.pop(0)
            self.close_connection = True
            if answer is LOST:
                return
            status, more, content = answer
            encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(encoded)), "X-Request-ID": "req-1", **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 -- names of http.server

        def log_message(self, *_: Any) -> None:
            """Keeps the output clean."""

    return Handler


ACCEPTED: Any = (202, {}, {"success": True, "ref_id": "01JC3BBW8S9YGX2VNKG5MD7BTA"})
LIMITED = {"type": "/docs/errors#rate_limited", "code": "RATE_LIMITED", "detail": "Too many.", "fix": "Wait."}


def test_a_send_after_a_lost_answer_repeats_with_the_same_key(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted(LOST, LOST, ACCEPTED)
    sent = make(script.url).send(to_email="a@example.com", subject="Hi", html_body="<p>Hi</p>")
    assert sent.ref_id == "01JC3BBW8S9YGX2VNKG5MD7BTA"
    keys = {headers["idempotency-key"] for _, _, headers, _ in script.seen}
    assert (len(script.seen), len(keys)) == (3, 1)


def test_two_sends_have_two_keys(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted(ACCEPTED, ACCEPTED)
    client = make(script.url)
    client.send(CRM)
    client.send(CRM)
    assert len({headers["idempotency-key"] for _, _, headers, _ in script.seen}) == 2


def test_a_change_after_a_lost_answer_is_not_repeated(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted(LOST, (200, {}, {}))
    with pytest.raises(ConnectionLost) as caught:
        make(script.url).post("mailers", {"provider": "smtp"})
    assert caught.value.sent
    assert isinstance(caught.value.__cause__, httpx2.TransportError)
    assert len(script.seen) == 1


def test_a_read_is_repeated_and_given_up_in_the_end(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted(*[LOST] * 4)
    with pytest.raises(ConnectionLost, match="after 4 tries"):
        make(script.url).get("contacts")
    assert len(script.seen) == 4


def test_a_server_that_is_not_there_was_sent_nothing(make: Make) -> None:
    with pytest.raises(ConnectionLost) as caught:
        make(f"http://127.0.0.1:{free_port()}").post("users", {"email": "a@example.com"})
    assert not caught.value.sent


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for_whatever_the_method(
    make: Make, scripted: Callable[..., Script], status: int
) -> None:
    script = scripted((status, {"Retry-After": "1"}, LIMITED), (201, {}, {"id": "u"}))
    begun = time.monotonic()
    assert make(script.url).post("users", {"email": "a@example.com"}) == {"id": "u"}
    assert 1.0 <= time.monotonic() - begun < 30.0


def test_a_wait_that_is_too_long_is_left_to_the_caller(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted((429, {"Retry-After": "3600"}, LIMITED))
    with pytest.raises(RateLimited, match=r"RATE_LIMITED Too many\. Wait\. \(request req-1\)") as caught:
        make(script.url).get("contacts")
    assert (caught.value.retry_after, caught.value.status, caught.value.fix) == (3600.0, 429, "Wait.")
    assert len(script.seen) == 1


def test_retry_after_may_be_a_date(make: Make, scripted: Callable[..., Script]) -> None:
    dated = {"Date": "Sat, 21 Nov 2026 16:00:00 GMT", "Retry-After": "Sat, 21 Nov 2026 17:00:00 GMT"}
    script = scripted((503, dated, {"error": "UNAVAILABLE"}))
    with pytest.raises(Unavailable) as caught:
        make(script.url).get("contacts")
    assert caught.value.retry_after == 3600.0


def test_a_proxy_that_lost_the_answer_is_asked_again(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted((502, {}, b"<html>bad gateway</html>"), ACCEPTED)
    assert make(script.url).send(CRM).status == "queued"


def test_a_mail_that_the_provider_refused_is_not_sent_again(make: Make, scripted: Callable[..., Script]) -> None:
    refused = {
        "error": {"code": "provider_error", "message": "It did not take the mail.", "details": {"reason": "550"}}
    }
    script = scripted((502, {}, refused))
    with pytest.raises(NotDelivered) as caught:
        make(script.url).send(to="a@example.com", subject="Hi", body_text="Hi")
    assert (caught.value.code, caught.value.details) == ("PROVIDER_ERROR", {"reason": "550"})
    assert len(script.seen) == 1


def test_a_mail_that_is_sent_but_not_logged_names_its_id(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted((422, {}, {"error": "EMAIL_LOG_FAILED", "message_id": "<m@example.com>"}))
    with pytest.raises(NotLogged) as caught:
        make(script.url).send(CRM)
    assert caught.value.message_id == "<m@example.com>"


def test_an_answer_that_is_none_of_ours_is_still_an_error(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted((500, {}, b"oops"))
    with pytest.raises(ServerFailed, match="answered 500"):
        make(script.url).delete("contacts/1")


def test_the_key_goes_to_no_other_address(make: Make, scripted: Callable[..., Script]) -> None:
    elsewhere = scripted((200, {}, {}))
    script = scripted((307, {"Location": elsewhere.url + "/v1/contacts"}, {}))
    client = make(script.url)
    with pytest.raises(ValueError, match="give a path"):
        client.get(elsewhere.url)
    client.get("contacts")
    assert elsewhere.seen == []


def test_from_and_times_are_written_as_the_api_wants_them(make: Make, scripted: Callable[..., Script]) -> None:
    script = scripted(ACCEPTED)
    make(script.url).send(wait=0, idempotency_key="mine", from_={"email": "a@example.com"}, dry_run=False)
    ((_, path, headers, content),) = script.seen
    assert (path, headers["prefer"], headers["idempotency-key"]) == ("/v1/email/send", "respond-async", "mine")
    assert content == {"from": {"email": "a@example.com"}, "dry_run": False}


def test_a_body_and_fields_together_are_refused(make: Make) -> None:
    with pytest.raises(TypeError, match="not both"):
        make("http://127.0.0.1:1").send(CRM, subject="Hi")


@pytest.fixture(scope="module")
def running(settings: Settings) -> Iterator[str]:
    """The application behind a real socket."""
    port = free_port()
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the application answers")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)


class LosesTheFirst(httpx2.HTTPTransport):
    """Brings every request to the server, and loses the first answer."""

    lost = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        if not self.lost:
            self.lost = True
            answer.close()
            raise httpx2.ReadError("the connection broke")
        return answer


def test_a_lost_answer_of_the_application_sends_once(
    running: str, tenant: Tenant, app_services: Services, session: Session
) -> None:
    add_mailer(app_services, tenant)
    with Client(running, tenant.key, retries=QUICK, transport=LosesTheFirst()) as client:
        sent = client.send(CRM, wait=0)
    assert sent.replayed
    count = select(func.count()).where(Message.workspace_id == tenant.workspace_id)
    assert session.scalar(count) == 1


def test_what_was_sent_can_be_followed(make: Make, running: str, tenant: Tenant, app_services: Services) -> None:
    mailer = add_mailer(app_services, tenant)
    client = make(running, tenant.key)
    sent = client.send(body(mailer, "a@example.com", "b@example.com", "c@example.com"))
    assert client.submission(sent.ref_id)["total"] == 3
    rows = list(client.pages("messages", ref_id=sent.ref_id, limit=2))
    assert sorted(row["recipients"][0][0] for row in rows) == ["a", "b", "c"]
    assert client.message(rows[0]["id"]) == rows[0]


def test_a_dry_run_is_no_submission(make: Make, running: str, tenant: Tenant, app_services: Services) -> None:
    sent = make(running, tenant.key).send(body(add_mailer(app_services, tenant), dry_run=True))
    assert (sent.ref_id, sent.status, sent.json["total"]) == ("", "rehearsed", 1)


def test_resources_are_made_changed_and_taken_away(make: Make, running: str, tenant: Tenant) -> None:
    client = make(running, tenant.key)
    template = client.post("templates", {"name": f"welcome {time.time_ns()}", "subject": "Hi", "text": "Hi"})
    assert client.patch(f"templates/{template['id']}", {"subject": "Hello"})["subject"] == "Hello"
    assert client.delete(f"templates/{template['id']}") is None
    with pytest.raises(NotFound) as caught:
        client.get(f"/v1/templates/{template['id']}")
    assert (caught.value.code, caught.value.details) == ("NOT_FOUND", {"id": template["id"]})


@pytest.mark.parametrize("content", [CRM, {"to": "a@example.com", "subject": "Hi", "body_text": "Hi"}])
def test_a_bad_body_says_what_is_missing_in_every_shape(
    make: Make, running: str, tenant: Tenant, app_services: Services, content: dict[str, Any]
) -> None:
    add_mailer(app_services, tenant)
    unknown = "0193e0a2-9a4b-7c3d-8e5f-0123456789ab"
    client = make(running, tenant.key)
    with pytest.raises(ValidationFailed) as caught:
        client.send({**content, "contact_id": unknown})
    assert caught.value.missing_entities == {"contact_id": unknown}
    with pytest.raises(ValidationFailed) as caught:
        client.send({**content, "subject": ""})
    assert caught.value.fields.keys() == {"subject"}
    assert caught.value.request_id
    assert caught.value.fix


def test_a_key_used_for_two_bodies_is_a_conflict(
    make: Make, running: str, tenant: Tenant, app_services: Services
) -> None:
    add_mailer(app_services, tenant)
    client = make(running, tenant.key)
    client.send(CRM, wait=0, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        client.send({**CRM, "subject": "Other"}, wait=0, idempotency_key="k")


def test_wrong_keys_are_told_apart(make: Make, running: str, app_services: Services) -> None:
    with pytest.raises(InvalidKey):
        make(running, "postroad_live_nobody").get("contacts")
    with pytest.raises(NotPermitted) as caught:
        make(running, new_tenant(app_services, ("crm:read",)).key).get("mailers")
    assert caught.value.required_scope == "mailers:read"


def test_a_client_does_not_show_its_key(make: Make, scripted: Callable[..., Script]) -> None:
    client = make(scripted((401, {}, {"error": "UNAUTHORIZED"})).url, "postroad_live_secret")
    with pytest.raises(PostroadError) as caught:
        client.get("contacts")
    assert "secret" not in f"{client!r} {caught.value!r} {vars(caught.value)}"


def test_the_client_needs_nothing_of_the_server() -> None:
    for path in Path(api_shim.client.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in names if name.split(".")[0] in ("api_shim", "worker", "models", "providers")]
            assert [name for name in ours if not name.startswith("api_shim.client")] == [], path.name
