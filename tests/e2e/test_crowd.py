"""Many callers at once: all wait, or all repeat the same request, over several API processes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from deploy.services import free_port
from tests.conftest import Stack, wait_until
from tests.e2e.outside import Client

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Client:
    return Client(stack=stack)


@pytest.fixture(scope="module")
def more_apis(stack: Stack) -> Iterator[list[str]]:
    """Three more API processes on the same database and Redis: the roots of all four."""
    secrets = json.loads((stack.directory / "stack.secrets").read_text())
    environment = os.environ | {
        "POSTROAD_DATABASE_URL": stack.json["database_url"],
        "POSTROAD_REDIS_URL": stack.json["redis_url"],
        "POSTROAD_SECRET_KEYS": secrets["secret_keys"],
        "POSTROAD_POOL_SIZE": "5",
    }
    ports = [free_port() for _ in range(3)]
    processes = [
        subprocess.Popen([sys.executable, "-m", "deploy.cli", "api", "--port", str(port)], env=environment)
        for port in ports
    ]
    roots = [f"http://127.0.0.1:{port}" for port in ports]
    wait_until(lambda: all(map(answers, roots)), "all four answer")
    yield [stack.json["api"], *roots]
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def answers(root: str) -> bool:
    try:
        return httpx2.get(f"{root}/livez").status_code == 200
    except httpx2.TransportError:
        return False


async def send_all(
    roots: list[str], stack: Stack, body: dict[str, Any], count: int, headers: dict[str, str]
) -> list[httpx2.Response]:
    """Sends the same body ``count`` times at once, spread over the API processes."""
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(headers=stack.auth | headers, timeout=60, limits=limits) as session:
        calls = (session.post(f"{roots[number % len(roots)]}/v1/email/send", json=body) for number in range(count))
        return list(await asyncio.gather(*calls))


def test_five_hundred_requests_wait_at_once_and_each_gets_its_answer(client: Client, stack: Stack) -> None:
    body = {"to": "crowd@example.com", "subject": "Hello", "body_text": "Hi"}
    found = asyncio.run(send_all([stack.json["api"]], stack, body, 500, {"Prefer": "wait=30"}))
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.json()["message_id"] for answer in found}) == 500


def test_a_thousand_repeats_over_four_api_processes_send_once(
    client: Client, stack: Stack, more_apis: list[str]
) -> None:
    recipient = f"{uuid4().hex}@example.com"
    body = {"to": recipient, "subject": "Once", "body_text": "Hi"}
    headers = {"Idempotency-Key": str(uuid4()), "Prefer": "wait=30"}
    found = asyncio.run(send_all(more_apis, stack, body, 1_000, headers))
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.text for answer in found}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in found) == 1
    assert len(client.inbox(recipient)) == 1


def test_a_repeat_after_redis_was_flushed_is_still_recognised(client: Client, stack: Stack) -> None:
    import redis

    recipient = f"{uuid4().hex}@example.com"
    body = {"to": recipient, "subject": "Once", "body_text": "Hi"}
    key = str(uuid4())
    first = client.send(body, Idempotency_Key=key)
    with redis.Redis.from_url(stack.json["redis_url"]) as server:
        server.flushall()
    again = client.send(body, Idempotency_Key=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert len(client.inbox(recipient)) == 1
