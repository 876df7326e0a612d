"""Run by Alembic: connects, takes a lock, and applies what is missing in one transaction."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from models import Base
from models.partition import is_part

MIGRATION_LOCK = 7_340_021
"""Key of the advisory lock; any number that nothing else uses."""


def run() -> None:
    engine = create_engine(context.config.attributes["database_url"], poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            include_name=lambda name, kind, _: not (kind == "table" and is_part(name or "")),
        )
        with context.begin_transaction():
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            context.run_migrations()


run()
