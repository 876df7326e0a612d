"""The first page: a card per queue, the last hour, and what wants attention."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session
from starlette.responses import Response

from api_shim.ops import charts, figures
from api_shim.ops.attention import matters
from api_shim.ops.pages import Visit, render, templates
from worker.queues import queue_depths

SHOWN = "1h"
"""The window of the charts where nobody asks for another; the one that lives."""


def overview(visit: Visit) -> Response:
    """``GET /ops``."""
    session = visit.session
    depths = queue_depths(session)
    window = visit.asked("window") if visit.asked("window") in figures.WINDOWS else SHOWN
    return render(
        visit,
        "overview.html",
        titles=figures.TITLES,
        depths=depths,
        live=figures.live_texts(depths),
        charts=charts.charts(figures.history(session, figures.WINDOWS[window])),
        window=window,
        windows=list(figures.WINDOWS),
        live_window=SHOWN,
        matters=matters(session, visit.operator.caller.workspace_id),
        silences=figures.silences(session),
    )


def charts_part(session: Session) -> str:
    """The charts alone, as the live page puts them in place."""
    return _part("charts", charts=charts.charts(figures.history(session)))


def attention_part(session: Session, workspace_id: UUID) -> str:
    return _part("attention", matters=matters(session, workspace_id))


def banner_part(session: Session) -> str:
    return _part("banner", silences=figures.silences(session))


def _part(name: str, **values: Any) -> str:
    return templates.get_template(f"{name}.html").render(**values)
