"""The two clients. They differ in how they wait, and in nothing else: what to do is told by `exchange`."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, Self, TypeVar, Unpack

import httpx2

from api_shim.client import calls
from api_shim.client.calls import Call, Json, Mail, Reply, Sent
from api_shim.client.exchange import Outcome, Pause, Retries, exchange

T = TypeVar("T")

TIMEOUT: Final = httpx2.Timeout(10.0, read=45.0)
"""A send may be held for 30 seconds until its outcome is known."""


def _headers(key: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {key}",
        "Accept": "application/problem+json, application/json",
        "User-Agent": "postroad-python",
    }


def _request(call: Call[Any]) -> dict[str, Any]:
    """The call as httpx2 takes it."""
    content = {} if call.body is None else {"json": call.body}
    return {"method": call.method, "url": call.target, "params": call.params, "headers": call.headers, **content}


def _reply(answer: httpx2.Response) -> Reply:
    try:
        body = answer.json() if answer.content else None
    except ValueError:
        body = answer.text
    return Reply(status=answer.status_code, headers={k.lower(): v for k, v in answer.headers.items()}, body=body)


class Client:
    """Waits for each answer. Close it, or use it as a context manager.

    Raises PostroadError from every method. ``transport``: httpx2's, for tests and proxies.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retries: Retries = Retries(),  # noqa: B008 -- frozen
        timeout: httpx2.Timeout | float = TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._retries = retries
        self._http = httpx2.Client(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def run(self, call: Call[T]) -> T:
        """Makes a call, again and again as far as its retries go."""
        steps = exchange(call, self._retries)
        step = next(steps)
        while True:
            try:
                step = steps.send(self._do(step))
            except StopIteration as done:
                found: T = done.value
                return found

    def _do(self, step: Call[Any] | Pause) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return _reply(self._http.request(**_request(step)))
        except httpx2.TransportError as error:
            return error

    def send(
        self,
        body: Mapping[str, Any] | None = None,
        /,
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Mail],
    ) -> Sent:
        """Sends a mail: a whole body in any of the three shapes, or its fields by name."""
        return self.run(calls.send(body, fields, wait=wait, idempotency_key=idempotency_key))

    def reply(self, *, wait: float | None = None, idempotency_key: str | None = None, **fields: Unpack[Mail]) -> Sent:
        """Answers into the conversation ``thread_id``."""
        return self.run(calls.send(None, fields, path="email/reply", wait=wait, idempotency_key=idempotency_key))

    def submission(self, ref_id: str) -> Json:
        found: Json = self.run(calls.one("submissions", ref_id))
        return found

    def message(self, id_: str) -> Json:
        found: Json = self.run(calls.one("messages", id_))
        return found

    def messages(self, **filters: Any) -> Iterator[Json]:
        """Messages, newest first; ``ref_id`` and ``state`` narrow them."""
        return self.pages("messages", **filters)

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Every row of a list, fetched page by page as they are asked for."""
        cursor: str | None = None
        while True:
            found = self.run(calls.page(path, params, cursor))
            yield from found["data"]
            cursor = found["next_cursor"]
            if cursor is None:
                return

    def get(self, path: str, **params: Any) -> Any:
        return self.run(calls.plain("GET", path, params=params))

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        return self.run(calls.plain("POST", path, params=params, body=body))

    def put(self, path: str, body: Any = None, **params: Any) -> Any:
        return self.run(calls.plain("PUT", path, params=params, body=body))

    def patch(self, path: str, body: Any = None, **params: Any) -> Any:
        return self.run(calls.plain("PATCH", path, params=params, body=body))

    def delete(self, path: str, **params: Any) -> None:
        self.run(calls.plain("DELETE", path, params=params))


class AsyncClient:
    """Awaits each answer; otherwise as `Client`."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retries: Retries = Retries(),  # noqa: B008 -- frozen
        timeout: httpx2.Timeout | float = TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries = retries
        self._http = httpx2.AsyncClient(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def run(self, call: Call[T]) -> T:
        steps = exchange(call, self._retries)
        step = next(steps)
        while True:
            try:
                step = steps.send(await self._do(step))
            except StopIteration as done:
                found: T = done.value
                return found

    async def _do(self, step: Call[Any] | Pause) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return _reply(await self._http.request(**_request(step)))
        except httpx2.TransportError as error:
            return error

    async def send(
        self,
        body: Mapping[str, Any] | None = None,
        /,
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Mail],
    ) -> Sent:
        return await self.run(calls.send(body, fields, wait=wait, idempotency_key=idempotency_key))

    async def reply(
        self, *, wait: float | None = None, idempotency_key: str | None = None, **fields: Unpack[Mail]
    ) -> Sent:
        return await self.run(calls.send(None, fields, path="email/reply", wait=wait, idempotency_key=idempotency_key))

    async def submission(self, ref_id: str) -> Json:
        found: Json = await self.run(calls.one("submissions", ref_id))
        return found

    async def message(self, id_: str) -> Json:
        found: Json = await self.run(calls.one("messages", id_))
        return found

    def messages(self, **filters: Any) -> AsyncIterator[Json]:
        return self.pages("messages", **filters)

    async def pages(self, path: str, **params: Any) -> AsyncIterator[Json]:
        cursor: str | None = None
        while True:
            found = await self.run(calls.page(path, params, cursor))
            for row in found["data"]:
                yield row
            cursor = found["next_cursor"]
            if cursor is None:
                return

    async def get(self, path: str, **params: Any) -> Any:
        return await self.run(calls.plain("GET", path, params=params))

    async def post(self, path: str, body: Any = None, **params: Any) -> Any:
        return await self.run(calls.plain("POST", path, params=params, body=body))

    async def put(self, path: str, body: Any = None, **params: Any) -> Any:
        return await self.run(calls.plain("PUT", path, params=params, body=body))

    async def patch(self, path: str, body: Any = None, **params: Any) -> Any:
        return await self.run(calls.plain("PATCH", path, params=params, body=body))

    async def delete(self, path: str, **params: Any) -> None:
        await self.run(calls.plain("DELETE", path, params=params))
