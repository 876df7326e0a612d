"""The tables that the migrations make are the tables that the models describe."""

from alembic import command
from sqlalchemy import NullPool, create_engine, inspect, text

from models import Base
from models.migrations import config, migrate, of_a_newer_version
from models.partition import is_part
from tests.conftest import Services


def sqlalchemy_url(services: Services) -> str:
    return services.fresh_database().replace("postgresql://", "postgresql+psycopg://", 1)


def test_the_migrations_lead_to_the_models(services: Services) -> None:
    command.check(config(sqlalchemy_url(services)))


def test_migrating_twice_changes_nothing(services: Services) -> None:
    url = sqlalchemy_url(services)
    assert not of_a_newer_version(url)
    migrate(url)
    tables = {name for name in inspect(create_engine(url, poolclass=NullPool)).get_table_names() if not is_part(name)}
    assert tables == {*Base.metadata.tables, "alembic_version"}


def test_r16_a_database_of_a_newer_version_is_left_as_it_is(services: Services) -> None:
    url = sqlalchemy_url(services)
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("update alembic_version set version_num = 'of the next version'"))
    assert of_a_newer_version(url)
    migrate(url)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        assert connection.execute(text("select version_num from alembic_version")).scalar() == "of the next version"


def test_no_index_of_messages_mentions_the_state() -> None:
    """An index or a predicate that does would make every change of state write to every index (DECISIONS 2)."""
    mentioning = [index.name for index in Base.metadata.tables["message"].indexes if "state" in str(index.expressions)]
    predicates = [
        str(index.dialect_options["postgresql"]["where"]) for index in Base.metadata.tables["message"].indexes
    ]
    assert mentioning == []
    assert not any("state" in predicate for predicate in predicates)
