"""The way in and out: a form takes an API key once and leaves a cookie that does not hold it."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api_shim.auth import authenticate
from api_shim.errors import ApiError
from api_shim.http import UNAVAILABLE, services, unavailable
from api_shim.ops.pages import (
    HEADERS,
    csrf_fault,
    from_elsewhere,
    own_page,
    problem,
    read_form,
    sentence,
    templates,
)
from api_shim.ops.session import COOKIE, PATH, READ, csrf_is_right, end_sessions, start_session


def form(request: Request) -> Response:
    """``GET /ops/login``."""
    return _page(request, own_page(request.query_params.get("next", "")))


async def enter(request: Request) -> Response:
    """``POST /ops/login``: the key is checked as the API checks it, and must have ops:read."""
    fields = await read_form(request)
    target = own_page(fields.get("next", ""))
    if from_elsewhere(request):
        return problem(csrf_fault())
    return await run_in_threadpool(_enter, request, fields.get("key", "").strip(), target)


def _enter(request: Request, key: str, target: str) -> Response:
    held = services(request)
    try:
        with held.sessions() as session:
            caller = authenticate(session, f"Bearer {key}", held.peppers)
        caller.require(READ)
    except ApiError as error:
        said = "This key is unknown, expired or revoked." if error.code.name == "UNAUTHORIZED" else sentence(error)
        return _page(request, target, said, error.status)
    except UNAVAILABLE:
        return problem(unavailable())
    response = RedirectResponse(target, 303, headers=HEADERS)
    if caller.key_id is not None:
        start_session(request, response, caller.key_id, held.peppers)
    return response


async def leave(request: Request) -> Response:
    """``POST /ops/logout``: ends the sessions of the key; works for read-only keys too."""
    fields = await read_form(request)
    if from_elsewhere(request) or not csrf_is_right(request, fields.get("csrf", ""), services(request).peppers):
        return problem(csrf_fault())
    try:
        await run_in_threadpool(_end_sessions, request)
    except UNAVAILABLE:
        return problem(unavailable())
    response = RedirectResponse(f"{PATH}/login", 303, headers=HEADERS)
    response.delete_cookie(COOKIE, path=PATH)
    return response


def _end_sessions(request: Request) -> None:
    held = services(request)
    with held.sessions() as session:
        end_sessions(request, session, held.peppers)


def _page(request: Request, target: str, fault: str = "", status: int = 200) -> Response:
    html = templates.get_template("login.html").render(target=target, fault=fault, path=request.url.path)
    return HTMLResponse(html, status, headers=HEADERS)
