"""An endpoint that does next to nothing: it reads the JSON and stores the rows of a mail, with those of others at once.

No key, no check, no limit, nothing looked up: what a faster intake could come to with the same database.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg
from starlette.requests import Request

from api_shim.gathering import Gatherer
from api_shim.rows import STORE
from models.base import uuid7

_MAILER = "select id, workspace_id from mailer limit 1"


class Store:
    """Stores mails of the first mailer that is there, due tomorrow."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._kept = threading.local()
        self._gatherer = Gatherer(self._write, threads=1)

    async def take(self, request: Request) -> UUID:
        """The id of the submission."""
        return await self._gatherer.do(orjson.loads(await request.body()))

    def _write(self, contents: Sequence[Mapping[str, Any]]) -> list[UUID]:
        if not hasattr(self._kept, "connection"):
            self._kept.connection = psycopg.connect(self._url, autocommit=True)
            self._kept.mailer = self._kept.connection.execute(_MAILER).fetchone()
        mailer_id, workspace_id = self._kept.mailer
        shared = {"workspace_id": workspace_id, "mailer_id": mailer_id, "priority": 0}
        now = datetime.now(UTC)
        waiting = {"state": "queued", "created_at": now, "due_at": now + timedelta(days=1)}
        ids = [uuid7() for _ in contents]
        submissions = [
            {
                **shared,
                "id": id_,
                "shape": "mailer",
                "campaign_id": "",
                "content": content,
                "total": 1,
                "awaited": False,
            }
            for id_, content in zip(ids, contents, strict=True)
        ]
        messages = [
            {**shared, **waiting, "id": uuid7(), "submission_id": id_, "recipients": [], "rfc_message_id": f"<{id_}>"}
            for id_ in ids
        ]
        rows = [orjson.dumps(each).decode() for each in (submissions, messages)]
        with self._kept.connection.cursor() as cursor:
            cursor.execute(STORE, [[mailer_id], rows[0], 1, rows[1], "[]"], prepare=True)
        return ids
