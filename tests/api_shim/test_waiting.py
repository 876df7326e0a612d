"""Requests that wait for an outcome: who is woken, and when."""

import asyncio

import psycopg

from api_shim.waiting import Announced, Announcements
from models.base import uuid7
from worker.outcome_rows import OUTCOME_CHANNEL


def test_one_who_waits_is_woken_although_another_gave_up_on_the_same_message(database_url: str) -> None:
    message_id = uuid7()

    async def scene() -> tuple[Announced, Announced]:
        announcements = Announcements(database_url)
        await announcements.start()
        patient = asyncio.create_task(announcements.outcome(message_id, 120.0, recorded=False))
        hasty = await announcements.outcome(message_id, 0.3, recorded=False)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("select pg_notify(%s, %s)", [OUTCOME_CHANNEL, f'{message_id} {{"a": 1}}'])
        try:
            return hasty, await asyncio.wait_for(patient, 60.0)
        finally:
            await announcements.stop()

    assert asyncio.run(scene()) == (Announced(None, None), Announced('{"a": 1}', None))
