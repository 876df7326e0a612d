"""What every route shares: request ids, body limits, the caller, a session, the error envelope."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import structlog
from fastapi import Depends, Request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.auth import Caller, authenticate
from api_shim.errors import ApiError, Fault
from api_shim.limits import Standing, key_limits
from api_shim.services import Services
from api_shim.shapes import crm
from api_shim.shapes.outcome import error_details
from api_shim.timing import Timing
from models.base import uuid7

log = structlog.get_logger()

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
READ_HERE = frozenset({b"content-encoding", b"content-length", b"traceparent", b"x-request-id"})
"""Headers of interest to `Front`."""
SMALL_BODY_BYTES = 1024 * 1024
"""Limit of every body that carries no mail."""

MAIL_PATHS = ("/email/send", "/email/reply", "/suppressions/import")
"""Ends of the paths that take large bodies."""
HOOKS_PATH = "/v1/hooks/"
"""Part of the paths at which providers hand over mail that came in."""

UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeout)
"""The database is away or full: nothing was stored, the caller may try again."""


class Json(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, default=str)


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def session(request: Request) -> Iterator[Session]:
    """A database session for one request. Routes commit what they change."""
    with services(request).sessions() as opened:
        yield opened


SessionDep = Annotated[Session, Depends(session)]


@dataclass(frozen=True, slots=True)
class Scoped:
    """Dependency: the authenticated caller, who must have ``scope``. The documentation reads the scope from here."""

    scope: str

    def __call__(self, request: Request, opened: SessionDep) -> Caller:
        caller = identify(request, opened)
        caller.require(self.scope)
        return caller


def identify(request: Request, opened: Session) -> Caller:
    """The authenticated caller; the answer says where the limits stand. Raises UNAUTHORIZED or RATE_LIMITED."""
    held = services(request)
    caller = authenticate(opened, request.headers.get("authorization"), held.peppers)
    opened.rollback()  # no transaction stays open while Redis is asked
    show_standing(request, held.limiter.take(key_limits(caller, held.settings, 0)))
    return caller


def caller_with(scope: str) -> Any:
    """``Annotated[Caller, caller_with("email:read")]``."""
    return Depends(Scoped(scope))


def show_standing(request: Request, standing: Standing | None) -> None:
    """Has the answer say where the caller's limits stand, whatever the answer will be."""
    if standing is not None:
        request.scope["rate_limit_headers"] = standing.headers


def problem(request: Request, error: ApiError, status: int) -> dict[str, Any]:
    """RFC 9457 form of an error."""
    return {
        "type": f"/docs/errors#{error.code.name.lower()}",
        "title": error.code.sentence,
        "status": status,
        "detail": "; ".join(fault.message for fault in error.faults) or error.code.sentence,
        "instance": request.url.path,
        "code": error.code.name,
        "fix": error.code.fix,
        "errors": [{"field": fault.field, "message": fault.message} for fault in error.faults]
        + [{"field": missing.field, "message": f"{missing.id} does not exist"} for missing in error.missing],
        "details": error_details(error) | ({"message_id": error.message_id} if error.message_id else {}),
        "request_id": request.scope.get("request_id"),
    }


def error_response(
    request: Request, error: ApiError, render: Callable[[ApiError], tuple[int, Mapping[str, Any]]]
) -> Response:
    """An error as the shape renders it, or as problem+json where that is asked for."""
    status, body = render(error)
    if "application/problem+json" in request.headers.get("accept", ""):
        return Json(
            problem(request, error, status), status, headers=error.headers, media_type="application/problem+json"
        )
    return Json(body, status, headers=error.headers)


def resource_error(request: Request, error: ApiError) -> Response:
    """All resources but send answer in the crm envelope."""
    return error_response(request, error, crm.render_error)


def unavailable() -> ApiError:
    return ApiError("UNAVAILABLE", headers={"Retry-After": "1"})


def caller_gone(request: Request, _error: Exception) -> Response:
    """A caller that hung up in the middle of a body reads no answer, and is no failure of ours."""
    log.info("caller_gone", path=request.url.path, request_id=request.scope.get("request_id"))
    return Response(status_code=400)


class Front:
    """ASGI middleware: gives each request its id, lets no body in that is too large or encoded, and takes the time."""

    def __init__(self, app: ASGIApp, *, max_send_bytes: int, timing: Timing) -> None:
        self._app = app
        self._timing = timing
        self._max_send_bytes = max_send_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in READ_HERE}
        answered = self._timing.begin(scope, headers.get(b"traceparent"))
        given = headers.get(b"x-request-id")
        scope["request_id"] = given if given and SANE_REQUEST_ID.fullmatch(given) else str(uuid7())
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])  # in the context of this request alone
        large = scope["path"].endswith(MAIL_PATHS) or HOOKS_PATH in scope["path"]
        limit = self._max_send_bytes if large else SMALL_BODY_BYTES

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = {"x-request-id": scope["request_id"], **scope.get("rate_limit_headers", {})}
                message["headers"] += [
                    (name.encode("latin-1"), value.encode("latin-1")) for name, value in added.items()
                ]
                answered(message["status"])
            await send(message)

        if refusal := _refusal(headers, limit):
            await resource_error(Request(scope), refusal)(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, _bounded(receive, limit), send_with_id)
        except _TooLarge:
            await resource_error(Request(scope), _too_large(limit))(scope, receive, send_with_id)


class _TooLarge(BaseException):
    """A body without a length went over the limit. Not an Exception: of these FastAPI makes a 400 while it reads."""


def _refusal(headers: Mapping[bytes, str], limit: int) -> ApiError | None:
    if headers.get(b"content-encoding", "identity") != "identity":
        return ApiError("UNSUPPORTED_MEDIA_TYPE")
    length = headers.get(b"content-length", "0")
    return _too_large(limit) if length.isdigit() and int(length) > limit else None


def _too_large(limit: int) -> ApiError:
    fault = Fault("body", f"the body is larger than {limit} bytes; send less in one request")
    return ApiError("PAYLOAD_TOO_LARGE", faults=[fault], headers={"Connection": "close"})


def _bounded(receive: Receive, limit: int) -> Callable[[], Awaitable[Message]]:
    """Counts the bytes as they come in, for bodies that do not say how long they are."""
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise _TooLarge
        return message

    return bounded
