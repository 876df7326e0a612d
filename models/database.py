"""How processes reach PostgreSQL."""

import orjson
from psycopg.types.json import set_json_loads
from sqlalchemy import Engine, create_engine

set_json_loads(orjson.loads)


def connect(url: str, *, pool_size: int, application: str) -> Engine:
    """An engine with a bounded pool.

    Connections are checked before use, so that a restarted server costs nobody an error; statements and idle
    transactions time out, so that a stuck one holds nobody up for long.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text ends up in logs; parameters are people's addresses
        connect_args={
            "connect_timeout": 5,
            "application_name": application,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "options": "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s",
        },
    )
