"""``/openapi.json``: what FastAPI reads from the routes, and what it cannot know: the hot route, scopes, errors."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api_shim.errors import CODES, Code
from api_shim.http import Scoped
from api_shim.resources import ROUTERS
from api_shim.send_schema import DETAILS, SCHEMA_COMPONENTS, operation, sample
from api_shim.shapes import crm

BASE: Final = "/v1"

TAGS: Final[Mapping[str, str]] = {
    "email": "Sending and answering.",
    "submissions": "What became of a send, and of each mail of it.",
    "campaigns": "All mail that shares a `campaign_id`.",
    "templates": "Stored content, in versions.",
    "threads": "Conversations: mail sent and received.",
    "logs": "One row for each mail that reached an outcome.",
    "configs": "Company addresses to write from.",
    "capabilities": "What the caller may send as.",
    "mailers": "Sending identities: providers and their credentials.",
    "domains": "The domains that mail is sent from: DKIM keys, and the DNS records to publish.",
    "crm": "Contacts, deals (= opportunities), customers (= companies) and their timelines.",
    "events": "Everything that happened to mail.",
    "webhooks": "Where events are delivered, and the deliveries.",
    "suppressions": "Addresses that get no mail.",
    "keys": "API keys.",
    "users": "People of the workspace.",
    "ops": "For operators: queues and the audit trail.",
    "hooks": "What providers report.",
    "tracking": "What recipients reach: pixel, links, unsubscribing.",
}
"""Tags in the order of the pages, each in a sentence."""

DESCRIPTION: Final = """Queue-backed email delivery: nothing lost, nothing sent twice.

Send `Authorization: Bearer KEY`; each operation names the scope that the key needs. All paths under `/v1` also answer
under `/functions/v1/api/v1`. Lists take `limit` and `cursor` and answer `{"data": [...], "next_cursor": null}`; give
`next_cursor` back as `cursor` for the rest. With `Accept: application/problem+json` errors come as in RFC 9457."""

_ERROR: Final = {
    "title": "Error",
    "description": "Errors of the crm shape and of every resource.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "One of the codes of /docs/errors."},
        "message": {"type": "string", "description": "What happened and what to do."},
        "message_id": {"type": "string", "description": "With EMAIL_LOG_FAILED: the mail that was sent."},
        "details": DETAILS,
    },
}

_PROBLEM: Final = {
    "title": "Problem",
    "description": "Any error, where application/problem+json is accepted (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "fix", "errors", "details", "request_id"],
    "properties": {
        **{key: {"type": "string"} for key in ("type", "title", "detail", "instance", "code", "fix", "request_id")},
        "status": {"type": "integer"},
        "errors": DETAILS["properties"]["fields"],
        "details": DETAILS,
    },
}

_HEADERS: Final = {
    "X-Request-ID": "The caller's id of the request if it sent a sane one, else ours.",
    "X-RateLimit-Limit": "The cap that is nearest.",
    "X-RateLimit-Remaining": "What is left of it.",
    "X-RateLimit-Reset": "Seconds until it is whole again.",
    "Retry-After": "Seconds to wait before trying again.",
}
_ALWAYS: Final = ("X-Request-ID", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_RETRYABLE: Final = frozenset({"429", "503"})

GENERAL: Final = {
    code.status: code
    for code in map(CODES.__getitem__, (
        "VALIDATION_ERROR", "UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "CONFLICT", "PAYLOAD_TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE", "RATE_LIMITED", "UNAVAILABLE",
    ))
}  # fmt: skip
"""Status -> the code that any resource may answer with it. All others are peculiar to some."""

_TAKEN: Final = "Another one has that name or address."
_TOO_LATE: Final = "Its state does not allow it any more."
_NO_OAUTH: Final = "The provider is not connected by OAuth, or lacks what that takes."
_DISABLED: Final = "The endpoint is disabled."
CONFLICTS: Final[Mapping[str, str]] = {
    "DELETE /v1/mailers/{id}": "The mailer has mail that is not finished.",
    "DELETE /v1/users/{id}": "The user owns mailers.",
    "POST /v1/domains": "The domain has been added before.",
    "POST /v1/domains/{id}/rotate": "Earlier new keys still wait for their records.",
    **dict.fromkeys(("POST /v1/mailers/{id}/connect", "POST /v1/mailers/{id}/disconnect"), _NO_OAUTH),
    **dict.fromkeys(
        (
            "POST /v1/users", "PUT /v1/users/{id}", "POST /v1/email/configs", "PATCH /v1/email/configs/{config_id}",
            "POST /v1/templates", "PUT /v1/templates/{id}", "PATCH /v1/templates/{id}",
        ),
        _TAKEN,
    ),
    **dict.fromkeys(("POST /v1/webhook-endpoints/{id}/test", "POST /v1/webhook-endpoints/{id}/replay"), _DISABLED),
    **dict.fromkeys(
        (
            "PATCH /v1/submissions/{ref_id}", "POST /v1/submissions/{ref_id}/retry-failed",
            "POST /v1/messages/{message_id}/cancel", "POST /v1/messages/{message_id}/retry",
            "POST /v1/messages/{message_id}/mark-sent", "POST /v1/messages/{message_id}/redeliver",
            "GET /v1/messages/{message_id}/raw", "POST /v1/campaigns/{id}/pause",
            "POST /v1/campaigns/{id}/resume", "POST /v1/campaigns/{id}/retry-failed",
        ),
        _TOO_LATE,
    ),
}  # fmt: skip
"""Operation -> why it may answer 409."""


class Api(FastAPI):
    """The application, with the whole of its documentation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shortcuts: dict[tuple[str, str], ASGIApp] = {}
        """Method and path -> what answers such a request, past all other routes. To find its way among them takes a
        request to send as much time as all the rest.
        """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shortcut = self.shortcuts.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if shortcut is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await shortcut(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi(), scopes_of(ROUTERS))
        return self.openapi_schema


def api_routes(routers: tuple[APIRouter, ...]) -> Iterator[APIRoute]:
    """Every route of the resources. Their paths lack the base."""
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise TypeError(f"{route!r} is no route that documents itself")
            yield route


def scopes_of(routers: tuple[APIRouter, ...]) -> dict[tuple[str, str], str]:
    """Method in lower case and whole path -> the scope that it asks for. Public routes are not in it."""
    return {
        (method.lower(), BASE + route.path_format): scope
        for route in api_routes(routers)
        for scope in _scopes(route.dependant)
        for method in route.methods or ()
    }


def _scopes(dependant: Dependant) -> Iterator[str]:
    for below in dependant.dependencies:
        if isinstance(below.call, Scoped):
            yield below.call.scope
        yield from _scopes(below)


def completed(document: dict[str, Any], scopes: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """FastAPI's document with what it lacks."""
    paths = {f"{BASE}/email/send": {"post": operation()}, **document.get("paths", {})}
    for path, methods in paths.items():
        for method, found in methods.items():
            _complete(path, method, found, scopes.get((method, path)))
    used = {tag for methods in paths.values() for found in methods.values() for tag in found.get("tags", [])}
    return {
        **document,
        "info": {**document["info"], "description": DESCRIPTION},
        "servers": [{"url": "/", "description": "This server"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name, "description": TAGS[name]} for name in TAGS if name in used],
        "paths": paths,
        "components": _components(document.get("components", {})),
    }


def _components(found: Mapping[str, Any]) -> dict[str, Any]:
    schemas = {
        name: schema
        for name, schema in found.get("schemas", {}).items()
        if name not in ("HTTPValidationError", "ValidationError")
    }
    return {
        "schemas": {**SCHEMA_COMPONENTS, "Error": _ERROR, "Problem": _PROBLEM, **schemas},
        "responses": {f"Error{status}": _error(code) for status, code in GENERAL.items()},
        "headers": {
            name: {"description": description, "schema": {"type": "string"}} for name, description in _HEADERS.items()
        },
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `postroad_live_...`."}
        },
    }


def _error(code: Code) -> dict[str, Any]:
    """The crm envelope, which all resources share."""
    examples = {code.name: {"value": crm.render_error(sample(code.name))[1]}}
    return {
        "description": code.sentence,
        "headers": _headers(str(code.status)),
        "content": _error_content(examples),
    }


def _error_content(examples: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples},
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    }


def _headers(status: str) -> dict[str, Any]:
    names = (*_ALWAYS, "Retry-After") if status in _RETRYABLE else _ALWAYS
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _complete(path: str, method: str, found: dict[str, Any], scope: str | None) -> None:
    """Scope, operation id, errors, headers and example of one operation."""
    found["operationId"] = "_".join([method, *re.findall(r"[a-z]\w*", path.removeprefix(BASE).replace("-", "_"))])
    if scope:
        found["security"] = [{"bearer": [scope]}]
    security = found.setdefault("security", [])
    note = f"Scope: `{security[0]['bearer'][0]}`." if security else "Public: no key."
    found["description"] = f"{found.get('description', '').strip()}\n\n{note}".strip()
    answers = found["responses"]
    if "HTTPValidationError" in str(answers.get("422", "")):
        del answers["422"]
    for status in _errors_of(path, found, is_public=not security):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    if why := CONFLICTS.get(f"{method.upper()} {path}"):
        answers["409"] = {**_error(GENERAL[409]), "description": why}
    for status, answer in answers.items():
        _complete_answer(f"{method.upper()} {path}", status, answer)
    found["responses"] = dict(sorted(answers.items()))


def _errors_of(path: str, found: Mapping[str, Any], *, is_public: bool) -> Iterator[int]:
    """What any operation of this form may answer; what is peculiar to one stands at its route."""
    if found.get("parameters") or "requestBody" in found:
        yield 400
    if not is_public:
        yield from (401, 403, 429)
    if "{" in path:
        yield 404
    if "requestBody" in found:
        yield from (413, 415)
    yield 503


def _complete_answer(name: str, status: str, answer: dict[str, Any]) -> None:
    if "$ref" in answer:
        return
    answer.setdefault("headers", {}).update(_headers(status))
    if status >= "400":
        answer.setdefault("content", _error_content({}))
    elif status != "204":
        _show_answer(answer, answers().get(name))
    if answer["description"] == "Successful Response":
        answer["description"] = "Success"


def _show_answer(answer: dict[str, Any], example: Any) -> None:
    """Puts a real answer, and its fields as those that are always there, where FastAPI knows nothing."""
    content = answer.setdefault("content", {"application/json": {}}).get("application/json")
    if content is None or "examples" in content:
        return
    content["schema"] = {"type": "object"}
    if isinstance(example, dict):
        content["schema"]["required"] = sorted(example)
        content["example"] = example


@cache
def answers() -> dict[str, Any]:
    """Method and path -> what it answered in a test that makes one of everything."""
    found: dict[str, Any] = orjson.loads(files("api_shim").joinpath("answers.json").read_bytes())
    return found
