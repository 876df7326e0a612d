"""How processes reach PostgreSQL."""

import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

set_json_loads(orjson.loads)

IDLE_SECONDS = 1.0
"""A connection idle for longer is asked whether it still works."""

NOTICING_SILENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's parameters with which a server that vanished without a word is noticed within about a minute."""


TIMEOUTS = "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"

BY_INDEX = " -c enable_seqscan=off -c plan_cache_mode=force_generic_plan"
"""A statement that is repeated keeps the plan that was made for it, and tables that are empty now may not stay so.
Left to itself PostgreSQL plans each anew whose list is shorter than it supposes, which takes longer than to run it.
"""


def connect(url: str, *, pool_size: int, application: str, by_index: bool = False) -> Engine:
    """An engine with a bounded pool.

    A connection that was idle is checked before use, so that a restarted server costs next to nobody an error;
    statements and idle transactions time out, so that a stuck one holds nobody up for long. by_index: no table is read
    from end to end that has an index for the question, however small it is.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,  # an error's text ends up in logs; parameters are people's addresses
        connect_args={
            **NOTICING_SILENCE,
            "application_name": application,
            "options": TIMEOUTS + (BY_INDEX if by_index else ""),
        },
    )
    event.listen(engine, "handle_error", _as_away, retval=True)
    event.listen(engine, "checkin", _note_idle)
    event.listen(engine, "checkout", _check_if_idle(engine.dialect))
    return engine


def each_by_itself(engine: Engine) -> Connection:
    """A connection on which each statement is a transaction of its own.

    Also the way to read on a path that is often gone: without a transaction none is rolled back at the end, upon which
    psycopg would forget every statement that it had prepared on the connection.
    """
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def fetch(db: Session | Connection, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> list[Any]:
    """The rows of a statement that is asked for every request or slice, as named tuples; none where it returns none.

    In the transaction of ``db``, but past SQLAlchemy, which takes longer to ask than the server to answer.
    ``statement``: with %s or %(name)s. Raises SQLAlchemy's OperationalError where the server is away;
    ``connection_invalidated`` tells that nobody knows what was committed.
    """
    with _driver(db, statement) as connection, connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(statement, parameters, prepare=True)
        # Not cursor.description, which makes an object for each column each time it is asked.
        return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []


@contextmanager
def copying(session: Session, statement: str) -> Iterator[psycopg.Copy]:
    """A COPY in the session's own transaction. Raises as `fetch` does."""
    with _driver(session, statement) as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        yield copy


@contextmanager
def _driver(db: Session | Connection, statement: str) -> Iterator[psycopg.Connection]:
    pooled = db.connection() if isinstance(db, Session) else db
    connection = pooled.connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise TypeError("the session has no connection of psycopg's")
    try:
        yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction) as error:
        is_lost = connection.closed
        if is_lost:
            pooled.invalidate()
        raise OperationalError(statement, None, error, hide_parameters=True, connection_invalidated=is_lost) from error


def _as_away(context: ExceptionContext) -> OperationalError | None:
    """A server that only reads (a failover, a guard against a full disk) is as good as away to whoever must write."""
    original = context.original_exception
    if isinstance(original, ReadOnlySqlTransaction):
        return OperationalError(context.statement, None, original, hide_parameters=True)
    return None


def _has_news(connection: DBAPIConnection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _note_idle(_: object, record: ConnectionPoolEntry) -> None:
    record.info["idle_since"] = time.monotonic()


def _check_if_idle(dialect: Dialect) -> Callable[..., None]:
    """A ping costs as much as a small query, and under load, where that matters, no connection is idle for long.

    One that the server closed meanwhile shows it at once: there is something to read, though nothing was asked.
    """

    def check(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        now = time.monotonic()
        idle = now - record.info.get("idle_since", now)
        if idle < IDLE_SECONDS and not _has_news(connection):
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the connection did not outlive its idle time") from error

    return check
