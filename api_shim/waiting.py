"""Requests that wait for an outcome: no thread and no polling, one listening connection for all of them.

The worker announces outcomes with the commit that makes them true, and says what they are; who hears nothing of it
reads the row. What was announced a moment before somebody began to wait is remembered.
"""

import asyncio
from collections import OrderedDict, defaultdict
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

import psycopg
import structlog

from models.database import NOTICING_SILENCE
from worker.outcome_rows import OUTCOME_CHANNEL
from worker.record import RECORDED_CHANNEL

log = structlog.get_logger()

REMEMBERED = 5_000
"""Announcements kept for those who come a moment late."""
RECONNECT_SECONDS = 0.5


class Announced(NamedTuple):
    """What was said of a message, and None where nothing was heard."""

    outcome: str | None
    """JSON as in `worker.outcome_rows.TOLD`; empty if only that there is an outcome."""
    record: str | None
    """Whether its log row was written: ``ok`` or ``failed``."""


class Announcements:
    """Wakes the requests of one API process."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._waiting: defaultdict[tuple[str, UUID], set[asyncio.Event]] = defaultdict(set)
        self._heard: OrderedDict[tuple[str, UUID], str] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def outcome(self, message_id: UUID, seconds: float, *, recorded: bool) -> Announced:
        """Waits until the message has an outcome (``recorded``: and its log row was written or refused), or ``seconds``
        passed. Two requests may wait for the same message.
        """
        await self._until((RECORDED_CHANNEL if recorded else OUTCOME_CHANNEL, message_id), seconds)
        heard = self._heard.get
        return Announced(heard((OUTCOME_CHANNEL, message_id)), heard((RECORDED_CHANNEL, message_id)))

    async def _until(self, key: tuple[str, UUID], seconds: float) -> None:
        if key in self._heard:
            return
        waker = asyncio.Event()
        self._waiting[key].add(waker)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waker.wait()
        finally:
            self._waiting[key].discard(waker)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _listen(self) -> None:
        while True:
            try:
                opening = psycopg.AsyncConnection.connect(self._url, autocommit=True, **NOTICING_SILENCE)
                async with await opening as connection:
                    await connection.execute(f"listen {OUTCOME_CHANNEL}; listen {RECORDED_CHANNEL}")
                    async for notification in connection.notifies():
                        self._hear(notification.channel, notification.payload)
            except psycopg.Error as error:
                log.warning("announcements_unheard", error=type(error).__name__, next=f"again in {RECONNECT_SECONDS} s")
            await asyncio.sleep(RECONNECT_SECONDS)

    def _hear(self, channel: str, payload: str) -> None:
        try:
            key = (channel, UUID(payload[:36]))
        except ValueError:
            return  # not one of ours: anybody may notify
        self._heard[key] = payload[37:]
        if len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)
        for waker in self._waiting.get(key, ()):
            waker.set()
