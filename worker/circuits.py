"""Circuits: which mailers have not got anything through for a while. Kept only for those that name a fallback.

A circuit is open once its mailer has failed `FAILURES` times in a row and for `OPEN_SECONDS` has sent nothing; the next
success closes it.
"""

import time
from collections.abc import Sequence
from uuid import UUID

import redis
import structlog

from providers.base import Result

log = structlog.get_logger()

FAILURES = 5
OPEN_SECONDS = 60.0
FORGOTTEN_SECONDS = 3600
"""A circuit that nobody has tried for so long is closed again."""

FAILED = frozenset({Result.TRANSIENT, Result.THROTTLED, Result.UNCERTAIN})
"""Says nothing good about the provider. A refusal of one mail does: the provider answers."""


class Circuits:
    """Failures in a row of mailers that name a fallback, in Redis, for all workers together."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def note(self, mailer_id: UUID, results: Sequence[Result]) -> None:
        """What became of mails, in the order in which they were sent."""
        failures = 0
        for result in results:
            failures = failures + 1 if result in FAILED else 0
        try:
            with self._redis.pipeline() as pipe:
                if failures < len(results):
                    pipe.delete(_key(mailer_id))
                if failures:
                    pipe.hincrby(_key(mailer_id), "failures", failures)
                    pipe.hsetnx(_key(mailer_id), "since", str(time.time()))
                    pipe.expire(_key(mailer_id), FORGOTTEN_SECONDS)
                pipe.execute()
        except redis.RedisError as error:
            log.warning("circuit_not_noted", error=type(error).__name__)

    def is_open(self, mailer_id: UUID) -> bool:
        """Whether the provider has not been itself for a while. Raises redis.RedisError."""
        failures, since = self._redis.hmget(_key(mailer_id), "failures", "since")
        if failures is None or since is None:
            return False
        return int(failures) >= FAILURES and time.time() - float(since) >= OPEN_SECONDS


def _key(mailer_id: UUID) -> str:
    return f"postroad:circuit:{mailer_id}"
