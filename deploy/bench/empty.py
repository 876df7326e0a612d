"""An endpoint that does nothing, on the API's own server settings: what intake is compared with.

Run as ``python -m deploy.bench.empty PORT``.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ANSWER = b'{"success":true,"ref_id":"01JD7Z8Q3M5V9X2B4C6D8F0G1H"}'


async def take(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, 202, media_type="application/json")


def main() -> None:
    app = Starlette(routes=[Route("/v1/email/send", take, methods=["POST"])])
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
