"""The API: routes, and what an error looks like wherever it comes from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api_shim.docs import router as docs
from api_shim.errors import ApiError, Fault
from api_shim.gathering import Gatherer
from api_shim.http import UNAVAILABLE, Front, Json, caller_gone, identify, resource_error, services, unavailable
from api_shim.openapi import Api
from api_shim.ops.app import routes as ops_routes
from api_shim.reception import Reception
from api_shim.resources import ROUTERS
from api_shim.resources.health import router as health
from api_shim.send import send, straight
from api_shim.services import Services
from api_shim.timing import Timing
from api_shim.tracking import router as tracking
from api_shim.unsubscribe import router as unsubscribe
from api_shim.visits import Visits
from worker import logs
from worker.settings import Settings

log = structlog.get_logger()

BASES = ("/v1", "/functions/v1/api/v1")
"""Where the routes answer; the second is source A's own base."""
SEND_PATHS = tuple(f"{base}/email/send" for base in BASES)

INTAKE_THREADS = 4
"""Groups of requests that are stored at once; one is the rule, more while a group is held up."""


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application of one API process."""
    logs.configure(settings.log_level)
    services = Services(settings)
    timing = Timing(services.meter, services.traces, BASES)
    visits = Visits(services.engine, services.ringer.ring)
    reception = Reception(services)
    intake = Gatherer(reception.take, threads=INTAKE_THREADS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.announcements.start()
        visits.start()
        services.flusher.start()
        yield
        await services.announcements.stop()
        await run_in_threadpool(intake.close)
        await run_in_threadpool(visits.close)
        await run_in_threadpool(services.close)

    app = Api(
        title="postroad",
        version=version("postroad"),
        description="Queue-backed email delivery: nothing lost, nothing sent twice.",
        lifespan=lifespan,
        middleware=[Middleware(Front, max_send_bytes=settings.max_body_bytes, timing=timing)],
        default_response_class=Json,
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,  # a JSON body without a Content-Type is read as what it is
    )
    app.state.services = services
    app.state.visits = visits
    app.state.reception = reception
    app.state.intake = intake
    app.include_router(health)
    app.include_router(docs)
    app.include_router(tracking)
    app.include_router(unsubscribe)
    app.router.routes.extend(ops_routes())
    front = Front(straight, max_send_bytes=settings.max_body_bytes, timing=timing)
    for path in SEND_PATHS:
        app.shortcuts["POST", path] = ServerErrorMiddleware(front, handler=_bug)
        app.add_route(path, send, methods=["POST"], include_in_schema=False)
    for base in BASES:
        for router in ROUTERS:
            app.include_router(router, prefix=base, include_in_schema=base == BASES[0])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, _unavailable)
    app.add_exception_handler(ClientDisconnect, caller_gone)
    app.add_exception_handler(Exception, _bug)
    return app


def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 -- Starlette's handlers are typed for any exception
    return resource_error(request, error)


def _invalid(request: Request, error: Exception) -> Response:
    """All that is wrong with parameters and body at once, with the value where it is short."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = ApiError("VALIDATION_ERROR", faults=[_fault(item) for item in error.errors()])
    # FastAPI reads a body before it asks who sent it; what is no JSON would be told to anybody.
    if any(item["type"] == "json_invalid" for item in error.errors()):
        try:
            with services(request).sessions() as opened:
                identify(request, opened)
        except ApiError as refusal:
            found = refusal
        except UNAVAILABLE:
            found = unavailable()
    return resource_error(request, found)


def _fault(item: dict[str, Any]) -> Fault:
    place = [str(part) for part in item["loc"] if part not in ("body", "query", "path", "header")]
    value = item.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) and len(str(value)) <= 100 else ""
    return Fault(".".join(place) or "body", f"{item['msg']}{shown}", item["type"])


STATUS_CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    name = STATUS_CODES.get(error.status_code, "VALIDATION_ERROR")
    return resource_error(request, ApiError(name, headers=dict(error.headers or {})))


def _unavailable(request: Request, error: Exception) -> Response:
    log.warning("database_unavailable", error=type(error).__name__, path=request.url.path)
    return resource_error(request, unavailable())


def _bug(request: Request, error: Exception) -> Response:
    log.error(
        "request_failed",
        error=type(error).__name__,
        path=request.url.path,
        request_id=request.scope.get("request_id"),
        exc_info=error,
    )
    return Json(
        {"error": "INTERNAL_ERROR", "details": {"request_id": request.scope.get("request_id")}},
        500,
        headers={"X-Request-ID": request.scope.get("request_id", "")},
    )
