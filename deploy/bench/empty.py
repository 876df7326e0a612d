"""Endpoints that do nothing or little, on the API's own server program: what intake is compared with.

Run as ``python -m deploy.bench.empty KIND PORT``. KIND is one of `KINDS`; all but ``bare`` need the API's environment.
"""

import sys
from collections.abc import Callable
from typing import Annotated

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.request_head import BoundedHead

PATH = "/v1/nothing"
ANSWER = b'{"success":true,"ref_id":"01JD7Z8Q3M5V9X2B4C6D8F0G1H"}'


async def take(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, 202, media_type="application/json")


def bare() -> Starlette:
    """Starlette with one route and nothing around it."""
    return Starlette(routes=[Route(PATH, take, methods=["POST"])])


def in_app() -> Starlette:
    """Our own application with a handler of FastAPI's that does nothing: same middleware, same authentication."""
    from api_shim.app import create_app
    from api_shim.auth import Caller
    from api_shim.http import caller_with
    from worker.settings import Settings

    app = create_app(Settings())

    @app.post(PATH)
    async def nothing(request: Request, _caller: Annotated[Caller, caller_with("email:send")]) -> Response:
        return await take(request)

    return app


def storing() -> Starlette:
    """Starlette with one route that stores what comes, and does nothing else."""
    from deploy.bench.storing import Store
    from worker.settings import Settings

    store = Store(Settings().database_url)

    async def stored(request: Request) -> Response:
        await store.take(request)
        return Response(ANSWER, 202, media_type="application/json")

    return Starlette(routes=[Route(PATH, stored, methods=["POST"])])


KINDS: dict[str, Callable[[], Starlette]] = {"bare": bare, "in-app": in_app, "storing": storing}


def main() -> None:
    uvicorn.run(
        KINDS[sys.argv[1]](),
        port=int(sys.argv[2]),
        loop="uvloop",
        http=BoundedHead,
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
