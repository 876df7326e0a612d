"""``/t/u``: the unsubscribe page and RFC 8058's one-click POST. No key, no cookie, no redirect.

Link scanners follow every link of a mail, so GET only ever shows the page.
"""

from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api_shim.http import UNAVAILABLE, services
from api_shim.services import Services
from api_shim.unsubscribe_page import Page, page
from worker.bell import endpoint_lane
from worker.tracking import Unsubscribed
from worker.unsubscribe import Method, resubscribe, unsubscribe, untrack
from worker.wishes import EVERYTHING

router = APIRouter(prefix="/t/u", include_in_schema=False)

LONGEST_FORM = 64 * 1024
ONE_CLICK = ("List-Unsubscribe", "One-Click")


def invalid_link(request: Request) -> Response:
    """404 for a token that is not ours."""
    return page(request.headers, Page.INVALID, status=404)


def expired_link(request: Request) -> Response:
    """410 for a token that is older than POSTROAD_LINK_DAYS."""
    return page(request.headers, Page.EXPIRED, status=410)


@router.api_route("/{token}", methods=["GET", "HEAD"])
async def show(token: str, request: Request) -> Response:
    """The page with the button; changes nothing."""
    link = services(request).tracker.read_unsubscribe(token)
    return invalid_link(request) if link is None else _ask(request, link)


@router.post("/{token}")
async def act(token: str, request: Request) -> Response:
    """Acts on one click, or on the page's form: ``action`` is one of `_DONE`."""
    link = services(request).tracker.read_unsubscribe(token)
    if link is None:
        return invalid_link(request)
    form = read_form(request.headers.get("content-type", ""), (await request.body())[:LONGEST_FORM])
    one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
    action = "unsubscribe" if one_click else form.get("action")
    address = link.recipient or form.get("address", "").strip()
    if action not in _DONE or "@" not in address:
        return _ask(request, link, status=400)
    try:
        await run_in_threadpool(_act, services(request), link, action, address, one_click)
    except UNAVAILABLE:
        return page(request.headers, Page.LATER, status=503)
    return page(request.headers, _DONE[action], address=address, asked=not link.recipient)


_DONE = {
    "unsubscribe": Page.DONE,
    "unsubscribe_all": Page.DONE_ALL,
    "resubscribe": Page.BACK,
    "untrack": Page.UNTRACKED,
}
"""What can be asked for, and the page that says that it was done."""


def _ask(request: Request, link: Unsubscribed, status: int = 200) -> Response:
    return page(request.headers, Page.ASK, address=link.recipient, listed=bool(link.list_id), status=status)


def _act(opened: Services, link: Unsubscribed, action: str, address: str, one_click: bool) -> None:
    with opened.engine.begin() as connection:
        if action == "resubscribe":
            resubscribe(connection, link, address)
            return
        if action == "untrack":
            untrack(connection, link, address)
            return
        method = Method.ONE_CLICK if one_click else Method.PAGE
        list_id = EVERYTHING if action == "unsubscribe_all" else link.list_id
        endpoints = unsubscribe(connection, link, address, at=datetime.now(UTC), method=method, list_id=list_id)
    for endpoint_id in endpoints:
        opened.ringer.ring(endpoint_lane(endpoint_id))


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a small form in either of the encodings that RFC 8058 section 3.2 allows; {} for anything else."""
    if content_type.lower().startswith("multipart/form-data"):
        head = f"Content-Type: {content_type}\r\n\r\n".encode("ascii", "replace")
        parts = message_from_bytes(head + body).get_payload()
        return dict(_field(part) for part in parts) if isinstance(parts, list) else {}
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))
    except ValueError:
        return {}


def _field(part: object) -> tuple[str, str]:
    assert isinstance(part, Message)  # noqa: S101 -- a multipart's payload holds nothing else
    name = part.get_param("name", "", "content-disposition")
    value = part.get_payload(decode=True)
    return str(name), value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else ""
