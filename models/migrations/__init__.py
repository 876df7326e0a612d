"""Schema migrations.

Each works while the previous version's processes still run (add first, remove a release later).
"""

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine

from models.append_only import lay_down
from models.partition import make_parts

HERE = Path(__file__).parent


def config(database_url: str) -> Config:
    """Alembic's configuration for one database; there is no alembic.ini."""
    settings = Config()
    settings.set_main_option("script_location", str(HERE))
    settings.attributes["database_url"] = database_url
    return settings


def migrate(database_url: str, revision: str = "head") -> None:
    """Brings the database to ``revision``, with what no migration holds: the months to come, append-only tables.

    Several processes may call it at once: one does it, the others wait.
    """
    command.upgrade(config(database_url), revision)
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        lay_down(connection)
        make_parts(connection, datetime.now(UTC))
