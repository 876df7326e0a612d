"""What workers count for the metrics, on real mail."""

from tests.worker.house import House
from worker.meter import Cell
from worker.series import DELIVERY, ERRORS, FINISHED, REQUEST


def counted(house: House, name: str) -> dict[tuple[str, ...], float]:
    rows = house.rows("select labels, sum(value) as value from metric_count where name = :n group by labels", n=name)
    return {tuple(row["labels"]): row["value"] for row in rows}


def test_outcomes_are_counted_once_with_their_log_rows(house: House) -> None:
    house.submit("ann@example.com", "bob@example.com", "bounce-550@example.com")
    house.deliver_all()
    assert counted(house, FINISHED.name) == {}
    house.record_all()
    house.record_all()
    assert counted(house, FINISHED.name) == {
        ("send.normal", "smtp", "sent"): 2, ("send.normal", "smtp", "failed"): 1
    }  # fmt: skip


def test_the_time_of_a_delivery_is_that_since_it_was_accepted(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        connection.exec_driver_sql("delete from metric_count")
    accepted = house.submit("ann@example.com")
    with house.runtime.engine.begin() as connection:
        connection.exec_driver_sql(
            "update message set created_at = created_at - interval '45 seconds' where id = %s", (accepted.message_id,)
        )
    house.deliver_all()
    house.record_all()
    buckets = house.rows("select bucket, value from metric_count where name = :n order by bucket", n=DELIVERY.name)
    assert [(row["bucket"], round(row["value"])) for row in buckets] == [(60.0, 1), (None, 45)]


def test_calls_of_a_provider_are_timed_and_its_refusals_counted(house: House) -> None:
    house.runtime.meter.take()
    house.submit("ann@example.com", "bounce-550@example.com")
    house.deliver_all()
    cells = house.runtime.meter.take()
    assert cells[Cell(ERRORS.name, ("smtp", "permanent"))] == 1
    calls = sum(value for cell, value in cells.items() if cell.name == REQUEST.name and cell.bucket is not None)
    assert calls == 1
