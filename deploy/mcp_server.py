"""The tools of `postroad mcp`. Each is one call of the API; what the API answers is what the tool answers, errors too.

A sent mail is no different for having been sent by a tool: ``send_email`` takes the fields of the crm shape and passes
them through, and what the API finds wrong with them comes back with its code and ``details``.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import anyio
import anyio.to_thread
import orjson
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from api_shim.shapes.schemas import SCHEMAS
from api_shim.submission import Shape
from deploy.commands.connection import Connection
from deploy.commands.remote import Refused, Remote, Unreachable, path_of
from models.message import State

Arguments = Mapping[str, Any]

IDEMPOTENCY_KEY: Final = "idempotency_key"
CONFIRM: Final = "confirm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A tool, and the call of the API behind it."""

    description: str
    schema: dict[str, Any]
    call: Callable[[Remote, Arguments], Any]
    sends: bool = False
    passes_all: bool = False
    """Unknown arguments are the API's to refuse."""

    def tool(self, name: str) -> Tool:
        hints = ToolAnnotations(read_only_hint=not self.sends, destructive_hint=self.sends, open_world_hint=self.sends)
        return Tool(name=name, description=self.description, input_schema=self.schema, annotations=hints)


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _send_schema() -> dict[str, Any]:
    """The crm shape's, and the header that makes repeating safe as one more field."""
    crm = SCHEMAS[Shape.CRM]
    key = {"type": "string", "maxLength": 256, "description": "Repeating a call with the same key sends once."}
    return {**crm, "properties": {**crm["properties"], IDEMPOTENCY_KEY: key}}


def _send(remote: Remote, arguments: Arguments) -> Any:
    body = {name: value for name, value in arguments.items() if name != IDEMPOTENCY_KEY}
    # These two are what makes a body one of the crm shape; without both, another shape would answer.
    body = {"to_email": None, "html_body": None} | body
    key = arguments.get(IDEMPOTENCY_KEY)
    return remote.post("/v1/email/send", body, **({} if key is None else {"Idempotency-Key": str(key)}))


def _batch_schema() -> dict[str, Any]:
    """The mailer shape's, without its own dry run: that comes first in any case."""
    mailer = SCHEMAS[Shape.MAILER]
    fields = {name: field for name, field in mailer["properties"].items() if name != "dry_run"}
    told = "The word that the first call answered. Without it nothing is sent."
    return {**mailer, "properties": {**fields, CONFIRM: {"type": "string", "description": told}}}


def _send_batch(remote: Remote, arguments: Arguments) -> Any:
    """The first call renders the batch; the second, with the word that stands for just this batch, sends it.

    The word is also the batch's Idempotency-Key: sent once, however often it is confirmed.
    """
    body = {name: value for name, value in arguments.items() if name != CONFIRM}
    word = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    if arguments.get(CONFIRM) == word:
        return remote.post("/v1/email/send", body, **{"Idempotency-Key": f"batch-{word}"})
    shown = remote.post("/v1/email/send", {**body, "dry_run": True})
    recipients = body.get("to")
    return {
        "sent": False,
        "recipients": len(recipients) if isinstance(recipients, list) else None,
        CONFIRM: word,
        "next": f"Nothing was sent. Show this to the user; to send it, repeat the call with confirm: {word}",
        "dry_run": shown,
    }


def _explain_message(remote: Remote, arguments: Arguments) -> Any:
    return remote.get(path_of("messages", str(arguments["id"]), "explain"))


def _get_message(remote: Remote, arguments: Arguments) -> Any:
    return remote.get(path_of("messages", str(arguments["id"])))


def _list_messages(remote: Remote, arguments: Arguments) -> Any:
    return remote.get("/v1/messages", **arguments)


def _queue_state(remote: Remote, _: Arguments) -> Any:
    return remote.get("/v1/ops/queues")


OFFERS: Final[Mapping[str, Offer]] = {
    "send_email": Offer(
        description="Send an email. Waits up to 10 seconds for the outcome; status queued means it is on its way. "
        "EMAIL_LOG_FAILED means it was sent: do not send it again.",
        schema=_send_schema(),
        call=_send,
        sends=True,
        passes_all=True,
    ),
    "send_batch": Offer(
        description="Send one mail to many, each with its own values. The first call sends nothing: it answers what "
        "the mails look like and a word; show that to the user, then repeat the call with the word as confirm.",
        schema=_batch_schema(),
        call=_send_batch,
        sends=True,
        passes_all=True,
    ),
    "explain_message": Offer(
        description="Find out why a mail has not arrived: what it waits for or what became of it, when it will be "
        "sent, and what to do next.",
        schema=_object({"id": {"type": "string", "format": "uuid", "description": "id of a mail."}}, "id"),
        call=_explain_message,
    ),
    "get_message": Offer(
        description="Get one mail with its state, every attempt and the provider's answers.",
        schema=_object({"id": {"type": "string", "format": "uuid", "description": "id of send_email's answer."}}, "id"),
        call=_get_message,
    ),
    "list_messages": Offer(
        description="List mails, newest first.",
        schema=_object(
            {
                "ref_id": {
                    "type": "string",
                    "description": "Those of one request: ref_id of send_email's answer.",
                },
                "state": {"enum": [state.value for state in State]},
                "recipient": {"type": "string", "description": "To this address."},
                "campaign_id": {"type": "string"},
                "request_id": {"type": "string", "description": "Of the request with this X-Request-ID."},
                "since": {"type": "string", "format": "date-time", "description": "Accepted since then."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
                "cursor": {"type": "string", "description": "next_cursor of the answer before."},
            }
        ),
        call=_list_messages,
    ),
    "queue_state": Offer(
        description="See how much mail waits in each queue, how old the oldest is, and how many workers there are.",
        schema=_object({}),
        call=_queue_state,
    ),
}
"""The tools by name."""


def serve(connection: Connection) -> None:
    """Answers on stdin and stdout until stdin is closed."""
    anyio.run(_serve, connection)


async def _serve(connection: Connection) -> None:
    async def list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[offer.tool(name) for name, offer in OFFERS.items()])

    async def call_tool(_: Any, params: CallToolRequestParams) -> CallToolResult:
        return await anyio.to_thread.run_sync(call, connection, params.name, params.arguments or {})

    server = Server("postroad", version=version("postroad"), on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


def call(connection: Connection, name: str, arguments: Arguments) -> CallToolResult:
    """Calls a tool. Whatever goes wrong is a result that says so, in the envelope of the API's errors."""
    offer = OFFERS.get(name)
    if offer is None:
        return _failed({"error": "NOT_FOUND", "message": f"There is no tool {name!r}; known are {', '.join(OFFERS)}."})
    if faults := _faults(offer, arguments):
        return _failed({"error": "VALIDATION_ERROR", "details": {"fields": faults}})
    try:
        return _result(offer.call(Remote(connection), arguments), is_error=False)
    except Refused as error:
        fallback = {"error": "UNAVAILABLE", "message": error.message}
        return _failed(error.body if isinstance(error.body, dict) else fallback)
    except Unreachable as error:
        return _failed({"error": "UNAVAILABLE", "message": error.message})


def _faults(offer: Offer, arguments: Arguments) -> list[dict[str, str]]:
    if offer.passes_all:
        return []
    unknown = sorted(arguments.keys() - offer.schema["properties"].keys())
    missing = sorted(set(offer.schema["required"]) - {name for name, value in arguments.items() if value is not None})
    faults = [{"field": name, "message": f"{name} is no argument of this tool; leave it out."} for name in unknown]
    return faults + [{"field": name, "message": f"{name} is required."} for name in missing]


def _failed(body: Mapping[str, Any]) -> CallToolResult:
    return _result(body, is_error=True)


def _result(body: Mapping[str, Any], *, is_error: bool) -> CallToolResult:
    """As data, and as text for clients that read nothing else."""
    text = TextContent(type="text", text=orjson.dumps(body).decode())
    return CallToolResult(content=[text], structured_content=dict(body), is_error=is_error)
