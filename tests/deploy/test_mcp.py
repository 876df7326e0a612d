"""`postroad mcp` as a client of the protocol sees it, over stdio and a running stack."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import CallToolResult

from api_shim.shapes.schemas import SCHEMAS
from api_shim.submission import Shape
from deploy.commands.connection import Connection
from deploy.mcp_server import OFFERS, call
from tests.conftest import Stack
from tests.deploy.shell import run

MAIL = {"to_email": "grace@example.com", "subject": "Offer", "html_body": "<p>Here it is.</p>"}


def test_a8_send_email_has_the_fields_of_the_crm_shape_and_the_key_that_makes_repeats_safe() -> None:
    schema = OFFERS["send_email"].schema
    assert schema["properties"].keys() - SCHEMAS[Shape.CRM]["properties"].keys() == {"idempotency_key"}
    assert SCHEMAS[Shape.CRM]["properties"].keys() <= schema["properties"].keys()
    assert schema["required"] == ["to_email", "subject", "html_body"]


NOWHERE = Connection(url="http://127.0.0.1:1", key="hush")


def test_a_server_that_is_away_is_a_result_and_no_crash() -> None:
    result = call(NOWHERE, "queue_state", {})
    assert (result.is_error, _body(result)["error"]) == (True, "UNAVAILABLE")
    assert "hush" not in json.dumps(_body(result))


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("get_message", {}, "VALIDATION_ERROR"),
        ("get_message", {"id": None}, "VALIDATION_ERROR"),
        ("list_messages", {"contact": "x"}, "VALIDATION_ERROR"),
        ("drop_tables", {}, "NOT_FOUND"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_asked(tool: str, arguments: dict[str, Any], code: str) -> None:
    result = call(NOWHERE, tool, arguments)
    assert (result.is_error, _body(result)["error"]) == (True, code)


def test_without_a_server_the_command_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(["mcp"], {"XDG_CONFIG_HOME": str(tmp_path)})
    assert ended.code == 2
    assert "POSTROAD_URL" in ended.err


def _body(result: CallToolResult) -> dict[str, Any]:
    """What the tool answered; text and data say the same."""
    (content,) = result.content
    assert content.type == "text"
    body: dict[str, Any] = json.loads(content.text)
    assert body == result.structured_content
    return body


def _with_client(stack: Stack, use: Callable[[Client], Awaitable[None]]) -> None:
    """Starts the server as a client does, and talks to it."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "deploy.cli", "mcp"],
        env={"POSTROAD_URL": stack.json["api"], "POSTROAD_API_KEY": stack.json["api_key"], "PATH": os.environ["PATH"]},
        cwd=Path(__file__).parents[2],
    )

    async def talk() -> None:
        with anyio.fail_after(60):
            async with Client(server) as client:
                await use(client)

    anyio.run(talk)


@pytest.mark.stack
def test_a8_a_client_finds_the_tools_sends_a_mail_and_follows_it(stack: Stack) -> None:
    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {
            "send_email", "send_batch", "get_message", "explain_message", "list_messages", "queue_state",
        }  # fmt: skip
        sent = await client.call_tool("send_email", {**MAIL, "contact_id": stack.json["contact_id"]})
        assert not sent.is_error
        answer = _body(sent)
        assert answer["status"] == "sent"
        message = _body(await client.call_tool("get_message", {"id": answer["id"]}))
        assert (message["state"], message["recipients"]) == ("sent", ["grace@example.com"])
        told = _body(await client.call_tool("explain_message", {"id": answer["id"]}))
        assert (told["finished"], told["causes"][0]["code"]) == (True, "accepted")
        listed = _body(await client.call_tool("list_messages", {"ref_id": answer["ref_id"], "limit": 5}))
        assert [row["id"] for row in listed["data"]] == [answer["id"]]
        queues = _body(await client.call_tool("queue_state", {}))["queues"]
        assert queues["send.high"]["workers"] == 1

    _with_client(stack, use)


@pytest.mark.stack
def test_a8_a_stale_id_is_named_as_the_api_names_it_and_nothing_is_sent(stack: Stack) -> None:
    stale = str(uuid4())

    async def use(client: Client) -> None:
        result = await client.call_tool("send_email", {**MAIL, "contact_id": stale})
        assert result.is_error
        assert _body(result) == {
            "error": "VALIDATION_ERROR",
            "details": {"missing_entities": [{"field": "contact_id", "id": stale}]},
        }

    _with_client(stack, use)


@pytest.mark.stack
def test_a8_every_code_comes_through(stack: Stack) -> None:
    async def use(client: Client) -> None:
        async def failing(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            return _body(result)

        fields = (await failing("send_email", subject="S", text="?"))["details"]["fields"]
        assert {fault["field"] for fault in fields} == {"to_email", "html_body", "text"}
        refused = await failing("send_email", **{**MAIL, "to_email": "bounce9@example.com"})
        assert refused["error"] == "EMAIL_DELIVERY_FAILED"
        assert (await failing("get_message", id=str(uuid4())))["error"] == "NOT_FOUND"
        assert (await failing("list_messages", state="flying"))["error"] == "VALIDATION_ERROR"

    _with_client(stack, use)


@pytest.mark.stack
def test_a_batch_is_shown_first_and_sent_once_when_it_is_confirmed(stack: Stack) -> None:
    people = [f"{uuid4().hex}@example.com" for _ in range(3)]
    batch = {
        "from": {"email": stack.json["from"]}, "to": [{"email": each} for each in people], "subject": "Hello {{name}}",
        "content": [{"type": "text/plain", "value": "Hi {{name}}"}], "settings": {},
        "mailer_id": stack.json["mailer_id"], "substitutions": {each: {"name": each[:4]} for each in people},
    }  # fmt: skip

    async def use(client: Client) -> None:
        shown = _body(await client.call_tool("send_batch", batch))
        assert (shown["sent"], shown["recipients"], shown["dry_run"]["dry_run"]) == (False, 3, True)
        for wrong in ({**batch, "subject": "Other"}, {**batch, "campaign_id": "spring"}):
            again = _body(await client.call_tool("send_batch", {**wrong, "confirm": shown["confirm"]}))
            assert again["sent"] is False
        assert _body(await client.call_tool("list_messages", {"recipient": people[0]}))["data"] == []
        first, second = [
            _body(await client.call_tool("send_batch", {**batch, "confirm": shown["confirm"]})) for _ in "12"
        ]
        assert first["ref_id"] == second["ref_id"]
        listed = _body(await client.call_tool("list_messages", {"recipient": people[0]}))
        assert len(listed["data"]) == 1
        assert (await client.call_tool("send_batch", {**MAIL})).is_error

    _with_client(stack, use)


@pytest.mark.stack
def test_a_repeated_call_with_a_key_sends_once(stack: Stack) -> None:
    async def use(client: Client) -> None:
        key = str(uuid4())
        first, second = [_body(await client.call_tool("send_email", {**MAIL, "idempotency_key": key})) for _ in "12"]
        assert first == second

    _with_client(stack, use)
