"""Where renewed credentials of a mailer are kept: in its row, one renewal at a time for all processes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from providers.base import NotKept
from worker.vault import SecretUnreadable, Vault

# Held while the token endpoint is asked; the wait for it outlasts that. See providers/oauth_endpoint.py: TIMEOUT.
_PATIENT = text("set lock_timeout = '28s'")
_USUAL = text("reset lock_timeout")
_LOCK = text("select pg_advisory_lock(hashtextextended('credentials of ' || :id, 0))")
_UNLOCK = text("select pg_advisory_unlock(hashtextextended('credentials of ' || :id, 0))")
_READ = text("select sealed_credentials from mailer where id = :id and deleted_at is null")

# Credentials that somebody set in the meantime are worth more than renewed old ones.
_STORE = text("""
    update mailer set sealed_credentials = :sealed
    where id = :id and deleted_at is null and sealed_credentials = :known
""")


class StoredCredentials:
    """The credentials of one mailer, sealed for ``purpose``, as a `providers.base.Keeper`."""

    def __init__(self, engine: Engine, vault: Vault, mailer_id: UUID, purpose: str) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._vault = vault
        self._id = mailer_id
        self._purpose = purpose

    def __call__(self, renew: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        try:
            with self._engine.connect() as connection, self._alone(connection):
                return self._renewed(connection, renew)
        except (SQLAlchemyError, SecretUnreadable) as error:
            raise NotKept(type(error).__name__) from error

    @contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        """Holds the mailer's lock. It is the session's, so that no transaction is open while the network is used."""
        connection.execute(_PATIENT)
        try:
            connection.execute(_LOCK, {"id": str(self._id)})
            try:
                yield
            finally:
                connection.execute(_UNLOCK, {"id": str(self._id)})
        finally:
            connection.execute(_USUAL)

    def _renewed(
        self, connection: Connection, renew: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    ) -> Mapping[str, Any]:
        known = connection.execute(_READ, {"id": self._id}).scalar_one_or_none()
        if known is None:
            raise NotKept("the mailer was deleted")
        stored = self._vault.open(self._purpose, known)
        renewed = renew(stored)
        if renewed is None:
            return stored
        sealed = self._vault.seal(self._purpose, renewed)
        connection.execute(_STORE, {"id": self._id, "sealed": sealed, "known": known})
        return renewed
