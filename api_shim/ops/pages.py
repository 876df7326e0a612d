"""What every page of the dashboard shares: the visit, the templates, the headers, and how a form acts.

A page is a function of a `Visit` that answers HTML. An action is a function of a `Visit` and the form's fields that
does one thing and returns a sentence about it; the browser is sent back to the page the form stood on.
"""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, quote

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api_shim.errors import ApiError, Fault
from api_shim.http import UNAVAILABLE, services, unavailable
from api_shim.ops import words
from api_shim.ops.session import (
    NOTICE,
    PATH,
    WRITE,
    Operator,
    csrf_is_right,
    current_operator,
    set_cookie,
    sign,
    signed,
)
from api_shim.services import Services

log = structlog.get_logger()

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OWN_PAGE = re.compile(r"/ops(?:[/?][!-\[\]-~]*)?")
"""A path of the dashboard, with its query."""

SECTIONS = (
    ("", "Overview"),
    ("/messages", "Messages"),
    ("/campaigns", "Campaigns"),
    ("/queues", "Queues"),
    ("/mailers", "Mailers"),
    ("/webhooks", "Webhooks"),
    ("/threads", "Threads"),
    ("/stuck", "Stuck"),
    ("/suppressions", "Suppressions"),
    ("/audit", "Audit"),
    ("/settings", "Settings"),
)

templates = Environment(
    loader=PackageLoader("api_shim.ops", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
    auto_reload=False,
)
templates.filters.update(words.FILTERS)


def _version() -> str:
    """Changes with style and script, so that browsers may keep them until they do."""
    static = sorted(files("api_shim.ops").joinpath("static").iterdir(), key=lambda entry: entry.name)
    return hashlib.sha256(b"".join(entry.read_bytes() for entry in static)).hexdigest()[:12]


templates.globals.update(sections=SECTIONS, version=_version())


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request of a person who is logged in."""

    request: Request
    session: Session
    operator: Operator

    @property
    def services(self) -> Services:
        return services(self.request)

    @property
    def path_id(self) -> Any:
        """The ``{id}`` of the path, as its convertor read it."""
        return self.request.path_params["id"]

    def asked(self, name: str) -> str:
        """A query parameter without the blanks around it; empty where it is missing."""
        return self.request.query_params.get(name, "").replace("\0", "").strip()


Form = Mapping[str, str]
View = Callable[[Visit], Response]
Act = Callable[[Visit, Form], str]


def page(view: View) -> Callable[[Request], Response]:
    """The endpoint of a page: for nobody who is not logged in."""

    def endpoint(request: Request) -> Response:
        return _guarded(request, lambda: _visit(request, view))

    return endpoint


def action(act: Act) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a form: needs the session's token and a key that may act; answers with a redirect."""

    async def endpoint(request: Request) -> Response:
        fields = await read_form(request)
        return await run_in_threadpool(
            _guarded, request, lambda: _visit(request, lambda visit: _act(visit, act, fields))
        )

    return endpoint


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form; the last of a name counts."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qsl(body, keep_blank_values=True, max_num_fields=200)
    except ValueError:  # more fields than any form has
        return {}
    return {name: value.replace("\0", "") for name, value in fields}


def _guarded(request: Request, answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except ApiError as error:
        return problem(error)
    except UNAVAILABLE as error:
        log.warning("database_unavailable", error=type(error).__name__, path=request.url.path)
        return problem(unavailable())


def _visit(request: Request, view: View) -> Response:
    held = services(request)
    with held.sessions() as session:
        operator = current_operator(request, session, held.peppers)
        if operator is None:
            return to_login(request)
        return view(Visit(request=request, session=session, operator=operator))


def _act(visit: Visit, act: Act, fields: dict[str, str]) -> Response:
    if from_elsewhere(visit.request) or not csrf_is_right(
        visit.request, fields.get("csrf", ""), visit.services.peppers
    ):
        raise csrf_fault()
    visit.operator.caller.require(WRITE)
    back = own_page(fields.get("back", ""))
    try:
        notice, good = act(visit, fields), True
    except ApiError as error:
        notice, good = sentence(error), False
    except ValidationError as error:
        notice, good = "; ".join(str(item["msg"]) for item in error.errors()), False
    response = RedirectResponse(back, 303, headers=HEADERS)
    leave_notice(visit, response, notice, good=good)
    return response


def from_elsewhere(request: Request) -> bool:
    """The browser says that another site made it send this."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def csrf_fault() -> ApiError:
    fault = Fault("csrf", "This form is out of date or came from another site. Go back, reload the page, try again.")
    return ApiError("FORBIDDEN", faults=[fault])


def own_page(path: str) -> str:
    """``path`` if it is one of the dashboard's, else its first page."""
    return path if OWN_PAGE.fullmatch(path) else PATH


def to_login(request: Request) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = here if request.method == "GET" else PATH
    return RedirectResponse(f"{PATH}/login?next={quote(target, safe='')}", 303, headers=HEADERS)


def render(visit: Visit, name: str, **values: Any) -> Response:
    """A page for somebody who is logged in. Shows the notice that the action before it left."""
    request = visit.request
    notice = _read_notice(request, visit.services.peppers)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    html = templates.get_template(name).render(
        operator=visit.operator, here=here, path=request.url.path, notice=notice, **values
    )
    response = HTMLResponse(html, headers=HEADERS)
    if notice:
        response.delete_cookie(NOTICE, path=PATH)
    return response


def problem(error: ApiError) -> Response:
    """An error as a page of its own."""
    title = HTTPStatus(error.status).phrase
    html = templates.get_template("problem.html").render(title=title, error=error, sentence=sentence(error))
    return HTMLResponse(html, error.status, headers={**HEADERS, **error.headers})


def sentence(error: ApiError) -> str:
    """What went wrong and what to do, for a person."""
    said = [fault.message for fault in error.faults]
    reason = error.details.get("reason")
    if error.code.name == "FORBIDDEN" and error.details:
        said.append(f"Your key lacks the scope {error.details['required_scope']}.")
    elif reason:
        said.append(str(reason))
    return " ".join(said or [error.code.sentence, error.code.fix])


def leave_notice(visit: Visit, response: Response, notice: str, *, good: bool) -> None:
    """Leaves a sentence for the next page."""
    content = base64.urlsafe_b64encode(f"{'good' if good else 'bad'} {notice[:600]}".encode()).decode()
    value = f"{content}.{sign(visit.services.peppers[0], 'notice', content)}"
    set_cookie(visit.request, response, NOTICE, value, 60)


def _read_notice(request: Request, keys: tuple[str, ...]) -> tuple[str, str] | None:
    content, _, signature = request.cookies.get(NOTICE, "").rpartition(".")
    if not content or not signed(keys, "notice", content, signature):
        return None
    kind, _, notice = base64.urlsafe_b64decode(content).decode().partition(" ")
    return kind, notice
