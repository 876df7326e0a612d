"""What goes between the adapter and the emulated Graph, read by the models of Microsoft's own SDK (``msgraph-sdk``)."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import providers.oauth
from providers.base import Lookup, Mailbox, Result
from providers.emulators.http import Call, Emulator, Fault, Reply
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.inbox import Watch
from providers.microsoft365 import Microsoft365
from tests.providers.samples import account, fields, file, mail
from tests.providers.vendor_wheels import vendor_wheels

PROGRAM = Path(__file__).with_name("graph_models.py")
MB = 1024 * 1024

ANSWERS = {
    r"POST /me/messages": "message.Message",
    r"GET /me/messages": "message_collection_response.MessageCollectionResponse",
    r"GET /me/messages/[^/]+": "message.Message",
    r"POST /me/messages/[^/]+/send": None,
    r"GET /me/messages/[^/]+/attachments": "attachment_collection_response.AttachmentCollectionResponse",
    r"POST /me/messages/[^/]+/attachments": "attachment.Attachment",
    r"POST /me/messages/[^/]+/attachments/createUploadSession": "upload_session.UploadSession",
    r"GET /me/messages/[^/]+/\$value": None,
    r"DELETE /me/messages/[^/]+": None,
    r"GET /me/mailFolders/drafts": "mail_folder.MailFolder",
    r"GET /me/mailFolders\('inbox'\)/messages": "message_collection_response.MessageCollectionResponse",
    r"POST /subscriptions": "subscription.Subscription",
    r"PATCH /subscriptions/[^/]+": "subscription.Subscription",
    r"DELETE /subscriptions/[^/]+": None,
    r"PUT /upload/session": "upload_session.UploadSession",
}
"""Route -> the model of its answer; None: it has no JSON body. The last one's answer to the last range is empty."""
REQUESTS = {
    "POST /me/messages": "message.Message",
    r"POST /me/messages/[^/]+/attachments": "attachment.Attachment",
    "POST /subscriptions": "subscription.Subscription",
    r"PATCH /subscriptions/[^/]+": "subscription.Subscription",
}
ERROR = "o_data_errors.o_data_error.ODataError"


class NotedGraph(Microsoft365Emulator):
    """Keeps every object that was said, with the model that ought to understand it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, Any]] = []
        self.routes: set[str] = set()

    def answer(self, call: Call) -> Reply:
        reply = super().answer(call)
        if "/oauth2/" not in call.path:
            self._note(f"{call.method} {call.path.removeprefix('/v1.0').replace('%27', chr(39))}", call, reply)
        return reply

    def _note(self, asked: str, call: Call, reply: Reply) -> None:
        [route] = [route for route in ANSWERS if re.fullmatch(route, asked)]
        self.routes.add(route)
        model = ANSWERS[route] if reply.status < 400 else ERROR
        if route in REQUESTS:
            self.said.append((REQUESTS[route], call.json))
        if reply.body is not None and not isinstance(reply.body, bytes):
            assert model is not None, f"a body where {route} has none"
            self.said.append((model, reply.body))


class Echo(Emulator):
    """Where notifications go: repeats the token that Graph wants repeated."""

    def error(self, status: int) -> Reply:
        return Reply(status)

    def answer(self, call: Call) -> Reply:
        return Reply(200, call.argument("validationToken").encode(), {"Content-Type": "text/plain"})


@pytest.fixture(scope="module")
def wheels() -> list[str]:
    return vendor_wheels("msgraph", "microsoft_kiota", "std_uritemplate")


@pytest.fixture
def graph() -> Iterator[NotedGraph]:
    providers.oauth._cache.clear()  # a port, and with it an account, may be that of a test before
    with NotedGraph() as emulator:
        yield emulator


@pytest.fixture
def adapter(graph: NotedGraph) -> Iterator[Microsoft365]:
    opened = Microsoft365(account("microsoft365", graph, **graph.credentials()))
    yield opened
    opened.close()


def complaints(wheels: list[str], said: list[tuple[str, Any]]) -> list[str]:
    program = [sys.executable, str(PROGRAM), *wheels]
    done = subprocess.run(program, input=json.dumps(said), capture_output=True, text=True, timeout=240, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def _send(graph: NotedGraph, adapter: Microsoft365) -> None:
    """A draft whose first sending fails after its attachments; it is looked for in every way and sent again."""
    files = (file(MB, inline=True, content_id="logo"), file(2 * MB), file(3 * MB))
    email = mail(
        fields=fields(
            cc=(Mailbox(email="carl@client.test", name="Carl"),),
            reply_to=(Mailbox(email="desk@demo.test"),),
            headers={"X-Campaign": "spring", "In-Reply-To": "<a@b>"},
            files=files,
        )
    )
    graph.fail(Fault.ERROR_503, path="/send")
    [outcome] = adapter.send([email])
    known = replace(email, draft_id=outcome.provider_message_id)
    assert adapter.lookup(known).answer is Lookup.NOT_ACCEPTED
    assert adapter.send([known])[0].result is Result.ACCEPTED
    assert adapter.lookup(email).answer is Lookup.ACCEPTED
    assert [len(item["data"]) for mail_ in graph.mails.values() for item in mail_.files] == [MB, 2 * MB, 3 * MB]


def _read(graph: NotedGraph, adapter: Microsoft365, url: str) -> None:
    inbox = adapter.inbox()
    made = inbox.watch(Watch(notify_url=url))
    inbox.unwatch(inbox.watch(made))
    graph.receive(b"From: bob@client.test\r\n\r\nHello")
    [locator] = inbox.news(f"{datetime.now(UTC).isoformat()}").locators
    assert inbox.fetch(locator) is not None


def _refused(adapter: Microsoft365, sent: str) -> list[int]:
    """What Graph refuses, each with an error object."""
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "me/messages/nobody", {}),
        ("POST", f"me/messages/{sent}/send", {}),
        ("GET", "me/messages", {"params": {"$filter": "subject eq 'Offer'"}}),
        ("PATCH", "subscriptions/none", {"json": {}}),
        ("POST", "me/messages", {"json": {"internetMessageHeaders": [{"name": "Sender", "value": "x"}]}}),
    ]
    return [adapter._graph.call(method, path, **more).status for method, path, more in asked]


def test_the_models_of_microsofts_sdk_understand_all_that_is_said(
    graph: NotedGraph, adapter: Microsoft365, wheels: list[str]
) -> None:
    assert adapter.check().result is Result.ACCEPTED
    _send(graph, adapter)
    with Echo() as echo:
        _read(graph, adapter, echo.url)
    [sent] = graph.mails
    assert _refused(adapter, sent) == [404, 400, 400, 404, 400]
    assert adapter._graph.call("DELETE", f"me/messages/{sent}").status == 204
    assert graph.routes == set(ANSWERS)
    assert complaints(wheels, graph.said) == []


def test_the_models_do_not_understand_what_graph_would_not_say(wheels: list[str]) -> None:
    wrong: list[tuple[str, Any]] = [
        ("upload_session.UploadSession", {"uploadUrl": "https://demo.test", "nextExpectedRanges": ["0-"]}),
        ("upload_session.UploadSession", {"uploadUrl": 7, "ranges": ["0-"]}),
        (ERROR, {"error": {"code": 404, "message": "gone"}}),
    ]
    assert complaints(wheels, wrong) == [
        "upload_session.UploadSession.ranges: not known",
        "upload_session.UploadSession.uploadUrl: int not understood",
        f"{ERROR}.error.code: int not understood",
    ]
