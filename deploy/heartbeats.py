"""Asks the database which workers have been heard of."""

from typing import LiteralString

import psycopg

_SEEN: LiteralString = """
    select exists (
        select from worker_heartbeat
        where %s = any(queues) and seen_at > clock_timestamp() - make_interval(secs => %s)
    )
"""


class Heartbeats:
    """Keeps its connection: it asks often while a stack starts."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection | None = None

    def seen(self, queue: str, seconds: float) -> bool:
        """Whether a worker of ``queue`` was heard of within the last ``seconds``. False while the database is away."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=2)
            row = self._connection.execute(_SEEN, (queue, seconds)).fetchone()
        except psycopg.OperationalError:
            self.close()
            return False
        return row == (True,)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
