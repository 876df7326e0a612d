"""Where everything under ``/ops`` is: the table of contents of the dashboard."""

import mimetypes
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from api_shim.errors import ApiError
from api_shim.ops import (
    attachments,
    campaigns,
    live,
    login,
    mailers,
    message,
    messages,
    queues,
    settings,
    stuck,
    suppressions,
    threads,
    trail,
    webhooks,
)
from api_shim.ops.overview import overview
from api_shim.ops.pages import HEADERS, action, page, problem

_STATIC = files("api_shim.ops").joinpath("static")


def routes() -> list[BaseRoute]:
    """The dashboard's routes, for the application that also serves the API."""
    return [
        Route("/ops", page(overview), methods=["GET"]),
        Route("/ops/login", login.form, methods=["GET"]),
        Route("/ops/login", login.enter, methods=["POST"]),
        Route("/ops/logout", login.leave, methods=["POST"]),
        Route("/ops/live", live.stream(), methods=["GET"]),
        Route("/ops/live.json", page(live.poll), methods=["GET"]),
        Route("/ops/static/{name}", _static, methods=["GET"]),
        Route("/ops/search", page(messages.search), methods=["GET"]),
        Route("/ops/messages", page(messages.messages), methods=["GET"]),
        Route("/ops/messages/many", action(messages.many), methods=["POST"]),
        Route("/ops/messages/{id:uuid}", page(message.message), methods=["GET"]),
        Route("/ops/messages/{id:uuid}/html", page(message.html), methods=["GET"]),
        Route("/ops/messages/{id:uuid}/source", page(message.source), methods=["GET"]),
        Route("/ops/messages/{id:uuid}/file", page(attachments.sent), methods=["GET"]),
        Route("/ops/inbound/{id:uuid}/file", page(attachments.received), methods=["GET"]),
        Route("/ops/messages/{id:uuid}/cancel", action(message.cancel), methods=["POST"]),
        Route("/ops/messages/{id:uuid}/retry", action(message.retry), methods=["POST"]),
        Route("/ops/messages/{id:uuid}/mark-sent", action(message.marked_sent), methods=["POST"]),
        Route("/ops/messages/{id:uuid}/redeliver", action(message.redeliver_it), methods=["POST"]),
        Route("/ops/messages/{id:uuid}/suppress", action(message.suppress), methods=["POST"]),
        Route("/ops/campaigns", page(campaigns.campaigns), methods=["GET"]),
        Route("/ops/campaigns/pause", action(campaigns.pause), methods=["POST"]),
        Route("/ops/campaigns/resume", action(campaigns.resume), methods=["POST"]),
        Route("/ops/campaigns/cancel", action(campaigns.cancel), methods=["POST"]),
        Route("/ops/campaigns/retry", action(campaigns.retry), methods=["POST"]),
        Route("/ops/queues", page(queues.queues), methods=["GET"]),
        Route("/ops/queues/{queue}", page(queues.queue), methods=["GET"]),
        Route("/ops/queues/{queue}/pause", action(queues.pause), methods=["POST"]),
        Route("/ops/queues/{queue}/resume", action(queues.resume), methods=["POST"]),
        Route("/ops/queues/{queue}/requeue", action(queues.requeue), methods=["POST"]),
        Route("/ops/mailers", page(mailers.mailers), methods=["GET"]),
        Route("/ops/mailers/{id:uuid}/pause", action(mailers.pause), methods=["POST"]),
        Route("/ops/mailers/{id:uuid}/resume", action(mailers.resume), methods=["POST"]),
        Route("/ops/mailers/{id:uuid}/test", action(mailers.test), methods=["POST"]),
        Route("/ops/webhooks", page(webhooks.webhooks), methods=["GET"]),
        Route("/ops/webhooks/{id:uuid}", page(webhooks.endpoint), methods=["GET"]),
        Route("/ops/webhooks/{id:uuid}/test", action(webhooks.test), methods=["POST"]),
        Route("/ops/webhooks/{id:uuid}/replay", action(webhooks.replay), methods=["POST"]),
        Route("/ops/webhooks/{id:uuid}/switch", action(webhooks.switch), methods=["POST"]),
        Route("/ops/stuck", page(stuck.stuck), methods=["GET"]),
        Route("/ops/stuck/log-now", action(stuck.log_now), methods=["POST"]),
        Route("/ops/threads", page(threads.threads), methods=["GET"]),
        Route("/ops/threads/{id:uuid}", page(threads.thread), methods=["GET"]),
        Route("/ops/threads/{id:uuid}/change", action(threads.change), methods=["POST"]),
        Route("/ops/audit", page(trail.trail), methods=["GET"]),
        Route("/ops/settings", page(settings.settings), methods=["GET"]),
        Route("/ops/suppressions", page(suppressions.suppressions), methods=["GET"]),
        Route("/ops/suppressions/add", action(suppressions.add), methods=["POST"]),
        Route("/ops/suppressions/remove", action(suppressions.remove), methods=["POST"]),
        Route("/ops/{rest:path}", _nothing, methods=["GET"]),
    ]


def _static(request: Request) -> Response:
    """Style and script. The address carries their version, so they may be kept."""
    name = request.path_params["name"]
    known = {entry.name: entry for entry in _STATIC.iterdir()}
    if name not in known:
        raise HTTPException(404)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(known[name].read_bytes(), media_type=kind, headers={**HEADERS, "Cache-Control": "max-age=31536000"})


def _nothing(_: Request) -> Response:
    return problem(ApiError("NOT_FOUND"))
