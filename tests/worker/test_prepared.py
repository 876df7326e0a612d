"""Statements that are repeated for every batch are prepared once, and stay so."""

from sqlalchemy import text

from models.database import each_by_itself
from tests.worker.house import House
from worker.record import record

MORE_THAN_PSYCOPG_WANTS = 7
"""Times that a statement is run before psycopg has prepared it (`psycopg.Connection.prepare_threshold`)."""


def prepared(house: House) -> str:
    """The statements that are prepared on the worker's one connection, in one text."""
    with each_by_itself(house.runtime.engine) as connection:
        return "\n".join(connection.execute(text("select statement from pg_prepared_statements")).scalars())


def plans_made_anew(house: House) -> int:
    with each_by_itself(house.runtime.engine) as connection:
        return int(connection.execute(text("select sum(custom_plans) from pg_prepared_statements")).scalar_one())


def test_what_every_batch_asks_of_postgresql_is_prepared_and_stays_so(house: House) -> None:
    for _ in range(MORE_THAN_PSYCOPG_WANTS):
        house.submit("ann@example.com")
        house.deliver()
        record(house.runtime)
        record(house.runtime)  # finds nothing
    house.submit("ann@example.com")
    house.deliver()
    statements = prepared(house)
    parts = ("from mailer where", "insert into lease", "insert into followup", "into email_log")
    assert [part for part in parts if part not in statements] == []
    assert plans_made_anew(house) == 0


def test_no_plan_of_a_worker_reads_a_small_table_from_end_to_end(house: House) -> None:
    with each_by_itself(house.runtime.engine) as connection:
        plan = connection.execute(text("explain select from message where id = any(array(select gen_random_uuid()))"))
        assert not any("Seq Scan on message" in line for line in plan.scalars())
