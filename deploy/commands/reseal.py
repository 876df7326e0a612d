"""`postroad reseal`: after a new key was put first in POSTROAD_SECRET_KEYS, seals every stored secret with it."""

from collections.abc import Iterator

import click
from sqlalchemy import Column, Connection, Table, select, update

from deploy.commands.output import Output, as_json
from models.base import Base
from worker.vault import SecretUnreadable, Vault


@click.command()
@as_json
def reseal(as_json: bool) -> None:
    """Seal all stored secrets with the first of POSTROAD_SECRET_KEYS; then the others can be removed.

    Safe while everything runs: a secret that is changed meanwhile is left to whoever changed it.
    """
    from sqlalchemy import create_engine

    from deploy.commands.processes import settings

    configuration = settings()
    vault = Vault(configuration.secret_keys)
    counted = {"resealed": 0, "unreadable": 0}
    engine = create_engine(configuration.sqlalchemy_url, hide_parameters=True)
    with engine.connect() as connection:
        for table, column in sealed_columns():
            for outcome in _reseal(connection, vault, table, column):
                counted[outcome] += 1
            connection.commit()
    engine.dispose()
    Output(as_json=as_json).one(counted)
    if counted["unreadable"]:
        raise click.ClickException(
            f"{counted['unreadable']} secrets open with none of the keys: put the key back that sealed them."
        )


def sealed_columns() -> Iterator[tuple[Table, Column[bytes]]]:
    """Every column that holds something sealed; they are all called ``sealed_...``."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column.name.startswith("sealed_"):
                yield table, column


def _reseal(connection: Connection, vault: Vault, table: Table, column: Column[bytes]) -> Iterator[str]:
    [key] = table.primary_key.columns
    rows = connection.execute(select(key, column).where(column.is_not(None), column != b"")).all()
    for identity, sealed in rows:
        try:
            fresh = vault.rotate(bytes(sealed))
        except SecretUnreadable:
            yield "unreadable"
            continue
        unchanged = (key == identity) & (column == sealed)
        connection.execute(update(table).where(unchanged).values({column.name: fresh}))
        yield "resealed"
