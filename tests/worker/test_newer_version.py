"""R16: rows and bells of the next version, which runs beside this one while it is rolled out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from api_shim.app import create_app
from api_shim.auth import SCOPES, issue_key
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from tests.worker.receiver import receiving
from tests.worker.registered import registered
from tests.worker.webhook_rows import World
from tests.worker.webhook_rows import settings_for as webhook_settings
from worker.bell import send_lane


@pytest.fixture(scope="module")
def server() -> Iterator[SmtpEmulator]:
    with SmtpEmulator() as running:
        yield running


@pytest.fixture
def house(database_url: str, redis_url: str, server: SmtpEmulator) -> Iterator[House]:
    opened = House(settings_for(database_url, redis_url), server)
    yield opened
    opened.close()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = create_engine(webhook_settings(database_url).sqlalchemy_url)
    world = World(engine, webhook_settings(database_url))
    yield world
    world.close()
    engine.dispose()


def change(house: House, statement: str, **parameters: Any) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text(statement), {"m": house.mailer_id} | parameters)


@pytest.mark.parametrize("crashes", [0, 1])
def test_r16_a_mail_in_an_unknown_state_is_left_alone_and_holds_up_nobody(house: House, crashes: int) -> None:
    change(house, "alter type message_state add value if not exists 'of_the_next_version'")
    foreign = house.submit("first@example.com")
    change(
        house,
        "update message set state = 'of_the_next_version', crashes = :crashes where submission_id = :id",
        id=foreign.submission_id,
        crashes=crashes,
    )
    ours = house.submit("second@example.com")
    assert house.deliver() == 1
    assert house.message(ours).state == "sent"
    kept = house.rows("select state::text, tries, due_at <= now() as due from message where submission_id = :id",
                      id=foreign.submission_id)  # fmt: skip
    assert kept == [{"state": "of_the_next_version", "tries": 0, "due": True}]
    assert house.deliver() == 0


def test_r16_a_bell_that_says_more_than_we_know_is_heard(house: House) -> None:
    lane = send_lane(house.mailer_id, 0)
    for more, named in (((), {}), (("more",), {"of_the_next_version": {"any": "thing"}})):
        accepted = house.submit("ann@example.com")
        registered(house.runtime)["deliver"](lane.subject, "bell", *more, **named)
        assert house.message(accepted).state == "sent"
    for name, subject in (("record", "all"), ("apply_reports", "reports"), ("notify", str(house.mailer_id)),
                          ("collect", str(house.mailer_id))):  # fmt: skip
        registered(house.runtime)[name](subject, "bell", "more", of_the_next_version=1)


@pytest.mark.parametrize(("ordered", "first"), [(False, {0, 2}), (True, {0})], ids=["any order", "ordered"])
def test_r16_an_event_of_an_unknown_type_waits_for_who_knows_it(world: World, ordered: bool, first: set[int]) -> None:
    with receiving() as receiver:
        endpoint = world.endpoint(receiver.url, ordered=ordered)
        deliveries = world.due(endpoint, 3)
        rename(world, deliveries[1], "of_the_next_version")
        world.notifier().deliver(endpoint.id)
        assert {call.id for call in receiver.calls} == {str(deliveries[number]) for number in first}
        held = world.delivery(deliveries[1])
        assert (held.state, held.tries) == ("pending", 0)
        assert 20 < (held.due_at - datetime.now(UTC)).total_seconds() <= 30
        rename(world, deliveries[1], "delivered")  # now we are the next version
        world.make_due(endpoint)
        world.notifier().deliver(endpoint.id)
    assert world.states(deliveries) == ["delivered"] * 3
    assert len(receiver.calls) == 3


def rename(world: World, delivery: Any, type_: str) -> None:
    statement = "update event set type = :type from webhook_delivery d where d.event_id = event.id and d.id = :id"
    with world.engine.begin() as db:
        db.execute(text(statement), {"type": type_, "id": delivery})


def test_r16_an_event_of_an_unknown_type_is_shown_under_the_name_it_has(house: House) -> None:
    house.submit("ann@example.com")
    house.deliver_all()
    house.record_all()
    change(house, "update event set type = 'of_the_next_version' where message_id is not null")
    with TestClient(create_app(house.settings), raise_server_exceptions=False) as api:
        with house.session() as session:
            pepper = api.app.state.services.peppers[0]  # type: ignore[attr-defined]
            _, key = issue_key(session, workspace_id=house.workspace_id, name="x", scopes=SCOPES, pepper=pepper)
            session.commit()
        answer = api.get("/v1/events", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    assert {event["event"] for event in answer.json()["data"]} == {"of_the_next_version"}


def test_r16_rows_with_more_columns_than_we_know_are_read_and_written(house: House) -> None:
    for table in ("message", "submission", "mailer", "followup", "lease", "email_log", "event"):
        change(house, f"alter table {table} add column of_the_next_version jsonb default '{{}}'")
    accepted = house.submit("ann@example.com")
    house.deliver_all()
    house.record_all()
    assert house.message(accepted).state == "sent"
    assert house.scalar("select count(*) from email_log where submission_id = :id", id=accepted.submission_id) == 1
