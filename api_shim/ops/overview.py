"""The first page: a card per queue, the last hour, and what wants attention."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session
from starlette.responses import Response

from api_shim.ops import charts, figures
from api_shim.ops.attention import matters
from api_shim.ops.pages import Visit, render, templates


def overview(visit: Visit) -> Response:
    """``GET /ops``."""
    session = visit.session
    return render(
        visit,
        "overview.html",
        titles=figures.TITLES,
        live=figures.current(session),
        charts=charts.charts(figures.history(session)),
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
