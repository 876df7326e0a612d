"""For machines: is the process alive, can it work, and what do the numbers say."""

import redis
from fastapi import APIRouter, Request
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from api_shim.http import Json, services
from api_shim.metrics import render

router = APIRouter(include_in_schema=False)


@router.get("/livez")
def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
def readyz(request: Request) -> Response:
    """The database answers: mail can be accepted.

    Redis only delays; its trouble is shown, and is no reason to turn mail away.
    """
    checks = {"database": _database(request), "redis": _redis(request)}
    ready = checks["database"] == "ok"
    return Json({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus text. The numbers are read from PostgreSQL now; no process counts for itself."""
    with services(request).sessions() as session:
        return Response(render(session), media_type="text/plain; version=0.0.4; charset=utf-8")


def _database(request: Request) -> str:
    try:
        with services(request).engine.connect() as connection:
            connection.execute(text("select 1"))
    except SQLAlchemyError as error:
        return f"unreachable ({type(error).__name__})"
    return "ok"


def _redis(request: Request) -> str:
    try:
        policy = services(request).redis.config_get("maxmemory-policy").get("maxmemory-policy")
    except redis.RedisError as error:
        return f"unreachable ({type(error).__name__}); mail is accepted and sent when it is back"
    if policy not in (None, "noeviction"):
        return (
            f"maxmemory-policy is {policy}: bells can be evicted. Run: redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    return "ok"
