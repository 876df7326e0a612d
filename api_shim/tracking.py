"""``/t/o`` and ``/t/c``: the open pixel and the click redirect. Public, and nothing of them waits for the database.

The target of a redirect lies inside the signed token, so there is no way to make one lead elsewhere.
"""

import base64
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from api_shim.http import services
from api_shim.unsubscribe import expired_link, invalid_link
from api_shim.visits import Visits
from models.event import EventType
from worker.machines import visitor
from worker.tracking import Clicked, Opened, made_at
from worker.visits import Visit

router = APIRouter(prefix="/t", include_in_schema=False)

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of one pixel."""

_HEADERS = {
    "Cache-Control": "no-store, max-age=0",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


@router.api_route("/o/{token}", methods=["GET", "HEAD"])
async def opened(token: str, request: Request) -> Response:
    """The pixel. Loading it is an open."""
    found = services(request).tracker.read_open(token)
    if found is None:
        return invalid_link(request)
    if _is_expired(request, found):
        return expired_link(request)
    _count(request, EventType.OPENED, found)
    return Response(PIXEL, media_type="image/gif", headers=_HEADERS | {"Content-Security-Policy": "default-src 'none'"})


@router.api_route("/c/{token}", methods=["GET", "HEAD"])
async def clicked(token: str, request: Request) -> Response:
    """Sends the reader on to where the mail's author wrote."""
    found = services(request).tracker.read_click(token)
    if found is None:
        return invalid_link(request)
    if _is_expired(request, found):
        return expired_link(request)
    _count(request, EventType.CLICKED, found, found.url)
    # Not Starlette's RedirectResponse: it would quote the address once more.
    return Response(status_code=302, headers=_HEADERS | {"Location": found.url})


def _is_expired(request: Request, found: Opened | Clicked) -> bool:
    longest = services(request).settings.link_age
    return longest is not None and datetime.now(UTC) - made_at(found.message_id) > longest


def _count(request: Request, type_: EventType, found: Opened | Clicked, url: str | None = None) -> None:
    """HEAD only asks; it never counts."""
    if request.method == "HEAD":
        return
    visits: Visits = request.app.state.visits
    visits.add(
        Visit(
            type=type_,
            workspace_id=found.workspace,
            message_id=found.message_id,
            at=datetime.now(UTC),
            visitor=visitor(request.headers),
            url=url,
        )
    )
