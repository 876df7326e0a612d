"""``/v1/hooks/{provider}/{token}``: what providers report. The signature is checked here; a worker applies it.

A notice that mail lies at the provider is written down for a worker to fetch it. Below ``/mime`` the same: by the end
of the URL Mailgun tells whether to post a mail as it is.

Answered 200 once the report is stored, so that a provider's patience is no concern of the rest. No answer is 403 or
406, which Postmark and Mailgun take as never to call again.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Request
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from api_shim.errors import ApiError, Fault
from api_shim.http import Json, services
from api_shim.services import Services
from providers.base import BadSignature, HookRequest, ProviderEvent
from worker import pickups, reports
from worker.bell import REPORTS_LANE, Lane, inbox_lane
from worker.mailers import OpenMailer
from worker.vault import SecretUnreadable

log = structlog.get_logger()

router = APIRouter(prefix="/hooks", tags=["hooks"])

LONGEST_TOKEN = 200

_MAILER = text("select id, hook_token, provider from mailer where hook_token = :token and deleted_at is null")

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a body of the wrong shape raises in an adapter."""


def subscription_check(provider: str, request: Request) -> Response | None:
    """Microsoft Graph asks whether the address exists before it makes a subscription; the answer is its own word."""
    if provider != "microsoft365":
        return None
    from providers.microsoft365 import validation_token

    token = validation_token(HookRequest(headers={}, query=dict(request.query_params), body=b""))
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return None if token is None else PlainTextResponse(token, headers=headers)


@router.api_route("/{provider}/{token}/mime", methods=["POST"], include_in_schema=False)
@router.api_route("/{provider}/{token}", methods=["GET", "POST"], include_in_schema=False)
async def hook(provider: str, token: str, request: Request, opened: Annotated[Services, Depends(services)]) -> Response:
    """A provider's call: stored if its signature is good."""
    if check := subscription_check(provider, request):
        return check
    if request.method != "POST":
        raise ApiError("METHOD_NOT_ALLOWED")
    # The token first: nobody else may make us read a body of this size.
    mailer = await run_in_threadpool(_mailer, opened, provider, token)
    call = HookRequest(
        headers={name.lower(): value for name, value in request.headers.items()},
        query=dict(request.query_params),
        body=await request.body(),
    )
    for lane in await run_in_threadpool(_store, opened, mailer, call):
        opened.ringer.ring(lane)
    return Json({"status": "stored"})


def _mailer(opened: Services, provider: str, token: str) -> OpenMailer:
    """The mailer whose hook this is. Raises NOT_FOUND."""
    found = None
    if len(token) <= LONGEST_TOKEN and token.isascii() and token.isprintable():
        with opened.engine.connect() as connection:
            row = connection.execute(_MAILER, {"token": token}).one_or_none()
        if row is not None and secrets.compare_digest(row.provider.encode(), provider.encode("utf-8", "replace")):
            found = _opened(opened, row.id)
    if found is None:
        raise ApiError("NOT_FOUND")
    return found


def _opened(opened: Services, mailer_id: UUID) -> OpenMailer | None:
    """Raises UNAVAILABLE where its credentials do not open: the provider reports again later."""
    try:
        return opened.providers.mailer(mailer_id)
    except SecretUnreadable:
        log.error("hook_credentials_unreadable", mailer_id=str(mailer_id))
        raise ApiError("UNAVAILABLE", headers={"Retry-After": "60"}) from None


def _store(opened: Services, mailer: OpenMailer, call: HookRequest) -> list[Lane]:
    """Stores what the call brings. Returns whom to wake."""
    events = _events(mailer, call)
    notices = [event for event in events if event.locator is not None]
    told = [event for event in events if event.locator is None]
    with opened.engine.begin() as connection:
        if notices:
            pickups.take_notices(connection, mailer, notices)
        if told:
            reports.store(connection, opened.vault, mailer, call, events)
    return [*([inbox_lane(mailer.id)] if notices else []), *([REPORTS_LANE] if told else [])]


def _events(mailer: OpenMailer, call: HookRequest) -> Sequence[ProviderEvent]:
    try:
        return mailer.provider.parse_events(call)
    except BadSignature as error:
        log.warning("hook_refused", mailer_id=str(mailer.id), provider=mailer.provider_name, why=str(error))
        raise ApiError("UNAUTHORIZED", details={"signature": str(error)}) from error
    except _UNREADABLE as error:
        log.warning(
            "hook_unreadable", mailer_id=str(mailer.id), provider=mailer.provider_name, why=type(error).__name__
        )
        fault = Fault("body", f"is no report of {mailer.provider_name} that can be read")
        raise ApiError("VALIDATION_ERROR", faults=[fault]) from error
