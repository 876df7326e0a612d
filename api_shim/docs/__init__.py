"""``/docs``: the API and its errors as two plain pages, made from the same document as ``/openapi.json``.

Nothing on them comes from elsewhere, and no script runs.
"""

from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from api_shim.docs.reading import Reader, as_json, prose
from api_shim.errors import CODES
from api_shim.send_schema import sample
from api_shim.shapes import SHAPES

router = APIRouter(prefix="/docs", include_in_schema=False)

_SAFETY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "public, max-age=300",
}


@router.get("")
def reference(request: Request) -> Response:
    """Every operation, by tag. Written once: the document does not change while the process runs."""
    state = request.app.state
    if not hasattr(state, "reference"):
        document = request.app.openapi()
        state.reference = _page("reference.html", document=document, sections=Reader(document).sections())
    return _html(state.reference)


@router.get("/errors")
def errors() -> Response:
    """Every error code; ``type`` of a problem+json answer leads here."""
    return _html(_errors())


@router.get("/style.css")
def style() -> Response:
    return Response(
        files("api_shim.docs").joinpath("style.css").read_bytes(), media_type="text/css; charset=utf-8", headers=_SAFETY
    )


def _html(page: str) -> Response:
    return Response(page, media_type="text/html; charset=utf-8", headers=_SAFETY)


@cache
def _errors() -> str:
    return _page("errors.html", codes=_codes())


def _page(name: str, **content: Any) -> str:
    return _templates().get_template(name).render(**content)


def _codes() -> list[dict[str, Any]]:
    return [
        {"code": code, "shapes": {shape: as_json(SHAPES[shape].render_error(sample(name))[1]) for shape in SHAPES}}
        for name, code in CODES.items()
    ]


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("api_shim.docs", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters["prose"] = prose
    return found
