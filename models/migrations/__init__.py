"""Schema migrations.

Each works while the previous version's processes still run (add first, remove a release later).
"""

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
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

    Several processes may call it at once: one does it, the others wait. What a newer version has made of it stays:
    whoever goes back to this one finds all that it needs.
    """
    if not of_a_newer_version(database_url):
        command.upgrade(config(database_url), revision)
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        lay_down(connection)
        make_parts(connection, datetime.now(UTC))


def of_a_newer_version(database_url: str) -> bool:
    """Whether the database has been through a migration that this version does not know."""
    known = {script.revision for script in ScriptDirectory.from_config(config(database_url)).walk_revisions()}
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        return not known.issuperset(MigrationContext.configure(connection).get_current_heads())
