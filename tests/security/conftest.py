"""The API in this process, as `tests/api_shim` sees it, and once more behind the server of a deployment."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from api_shim.app import create_app
from deploy.request_head import BoundedHead
from tests.api_shim.conftest import (  # noqa: F401 -- fixtures
    api,
    app_services,
    client,
    dns,
    other,
    other_tenant,
    session,
    settings,
    tenant,
)
from worker.settings import Settings


@pytest.fixture(scope="module")
def port(settings: Settings) -> Iterator[int]:  # noqa: F811 -- the fixture
    """Where the API answers on loopback, as `postroad api` would have it."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), http=BoundedHead, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(60)
    listening.close()
