"""A workspace whose mail really goes out: the API in this process, and the worker's part done by hand meanwhile."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from httpx2 import Response
from starlette.testclient import TestClient

from api_shim.auth import SCOPES, issue_key
from api_shim.services import Services
from tests.api_shim.conftest import Tenant, as_caller
from tests.worker.house import House


@dataclass(frozen=True)
class Office:
    api: TestClient
    """In whose event loop outcomes are announced; a client of its own would wait in vain."""
    key: str
    house: House

    @property
    def tenant(self) -> Tenant:
        return Tenant(workspace_id=self.house.workspace_id, user_id=uuid4(), key="", key_id=uuid4())

    @property
    def client(self) -> TestClient:
        """For requests that do not wait for an outcome."""
        return as_caller(self.api, self.key)

    def get(self, path: str, **query: str) -> Any:
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any], **headers: str) -> Response:
        """Posts and does the worker's part until it is answered. A worker works in the main thread: it has alarms."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with ThreadPoolExecutor(1) as outside:
            answer = outside.submit(
                self.api.post, path, json=body, headers={"Authorization": f"Bearer {self.key}"} | sent
            )
            while not answer.done():
                self.work()
                time.sleep(0.02)
            return answer.result()

    def send(self, body: dict[str, Any], **headers: str) -> Response:
        return self.post("/v1/email/send", body, **headers)

    def reply(self, **body: Any) -> Response:
        return self.post("/v1/email/reply", body)

    def work(self) -> None:
        """What is due is sent and recorded."""
        self.house.deliver()
        self.house.record_all()


@contextmanager
def open_office(api: TestClient, services: Services, house: House) -> Iterator[Office]:
    """An office of the house's workspace, with a key of every scope. Closes the house."""
    with services.sessions() as session:
        _, key = issue_key(
            session, workspace_id=house.workspace_id, name="test", scopes=SCOPES, pepper=services.peppers[0]
        )
        session.commit()
    yield Office(api, key, house)
    house.close()
