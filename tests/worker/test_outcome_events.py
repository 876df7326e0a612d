"""The events of a group of outcomes, those that are alike by one statement and the others one by one."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for


@pytest.fixture
def houses(database_url: str, redis_url: str) -> Iterator[tuple[House, House]]:
    with SmtpEmulator() as server:
        settings = settings_for(database_url, redis_url)
        opened = House(settings, server), House(settings, server)
        yield opened
        for house in opened:
            house.close()


def events(house: House) -> list[tuple[int, str, str, list[str], dict[str, str]]]:
    rows = house.rows("select * from event where workspace_id = :w order by cursor")
    return [(row["cursor"], row["type"], row["state"], row["recipients"], row["data"]) for row in rows]


def test_workspaces_that_are_recorded_together_are_numbered_each_for_itself_and_without_gaps(
    houses: tuple[House, House],
) -> None:
    ours, theirs = houses
    ours.submit("ann@example.com", "bounce-550@example.com", "bob@example.com")
    theirs.submit("eve@example.com")
    ours.deliver_all()
    theirs.deliver_all()
    with theirs.runtime.engine.begin() as connection:  # as if sent by one that reports delivery later
        confirming = text("update mailer set provider = 'postmark' where id = :id")
        connection.execute(confirming, {"id": theirs.mailer_id})
    ours.record_all()
    evidence = {"evidence": "accepted"}
    *alike, other = events(ours)
    assert (
        sorted(alike, key=lambda event: event[3])
        == sorted(alike)
        == [
            (1, "delivered", "sent", ["ann@example.com"], evidence),
            (2, "delivered", "sent", ["bob@example.com"], evidence),
        ]
    )
    assert other[:4] == (3, "failed", "failed", ["bounce-550@example.com"])
    assert events(theirs) == [(1, "accepted", "sent", ["eve@example.com"], {})]
    for house in houses:
        assert house.scalar("select event_cursor from workspace where id = :w") == len(events(house))
