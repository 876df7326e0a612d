"""Live figures: one background task computes them once a second for all who look, while there are any.

Each viewer gets ``figures`` (texts by place) every second, and ``parts`` (HTML by place) where they have changed.
A stream ends after a minute and the browser opens it again, so that a key that was revoked does not go on looking.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api_shim.http import Json, services
from api_shim.ops import figures
from api_shim.ops.overview import attention_part, banner_part, charts_part
from api_shim.ops.pages import HEADERS, Visit
from api_shim.ops.session import current_operator
from api_shim.services import Services

log = structlog.get_logger()

SECONDS = 1.0
PARTS_SECONDS = 5.0
STREAM_SECONDS = 60.0
RETRY_MILLISECONDS = 1000


class Hub:
    """What all viewers are shown. Belongs to one event loop; computes in a thread."""

    def __init__(self, held: Services) -> None:
        self._services = held
        self._viewers: Counter[UUID] = Counter()
        self._texts: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._attention: dict[UUID, str] = {}
        self._parts_due = 0.0
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def stream(self, workspace_id: UUID) -> AsyncGenerator[bytes, None]:
        """The events of one viewer."""
        self._join(workspace_id)
        try:
            yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
            sent: dict[str, str] = {}
            end = time.monotonic() + STREAM_SECONDS
            while time.monotonic() < end:
                await self._turn.wait()
                parts = self._parts_of(workspace_id)
                changed = {name: html for name, html in parts.items() if sent.get(name) != html}
                sent = parts
                yield _event("figures", self._texts) + (_event("parts", changed) if changed else b"")
        finally:
            self._leave(workspace_id)

    def _join(self, workspace_id: UUID) -> None:
        if workspace_id not in self._viewers:
            self._parts_due = 0.0
        self._viewers[workspace_id] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def _leave(self, workspace_id: UUID) -> None:
        self._viewers[workspace_id] -= 1
        self._viewers += Counter()  # drops those at zero

    def _parts_of(self, workspace_id: UUID) -> dict[str, str]:
        attention = self._attention.get(workspace_id)
        return self._parts if attention is None else {**self._parts, "attention": attention}

    async def _run(self) -> None:
        while self._viewers:
            started = time.monotonic()
            await run_in_threadpool(self._compute, list(self._viewers))
            self._turn.set()
            self._turn = asyncio.Event()
            await asyncio.sleep(max(0.1, SECONDS - (time.monotonic() - started)))

    def _compute(self, workspaces: list[UUID]) -> None:
        now = time.monotonic()
        try:
            with self._services.sessions() as session:
                self._texts = figures.current(session)
                if now >= self._parts_due:
                    self._parts_due = now + PARTS_SECONDS
                    self._parts = {"charts": charts_part(session), "banner": banner_part(session)}
                    self._attention = {id_: attention_part(session, id_) for id_ in workspaces}
        except SQLAlchemyError as error:
            log.warning("dashboard_figures_failed", error=type(error).__name__, next=f"again in {SECONDS} s")


def _event(name: str, content: dict[str, str]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"


def stream() -> Callable[[Request], Any]:
    """The endpoint of the event stream, with a hub of its own."""
    hubs: list[Hub] = []

    async def endpoint(request: Request) -> Response:
        held = services(request)
        workspace_id = await run_in_threadpool(_workspace, request, held)
        if workspace_id is None:
            return Response(status_code=204, headers=HEADERS)  # the one answer after which browsers do not ask again
        if not hubs:
            hubs.append(Hub(held))
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(hubs[0].stream(workspace_id), media_type="text/event-stream", headers=headers)

    return endpoint


def _workspace(request: Request, held: Services) -> UUID | None:
    with held.sessions() as session:
        operator = current_operator(request, session, held.peppers)
        return operator.caller.workspace_id if operator else None


def poll(visit: Visit) -> Response:
    """``GET /ops/live.json``: the same for browsers that cannot keep a stream."""
    session = visit.session
    parts = {
        "charts": charts_part(session),
        "banner": banner_part(session),
        "attention": attention_part(session, visit.operator.caller.workspace_id),
    }
    return Json({"figures": figures.current(session), "parts": parts}, headers=HEADERS)
