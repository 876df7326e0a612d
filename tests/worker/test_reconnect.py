"""A provider refuses a mailer's credentials: it is said once, the mail waits and drains after new ones."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.base import uuid7
from models.event import EventType
from models.mailer import MailerStatus
from models.webhook import WebhookEndpoint
from providers.base import Outcome, Result
from providers.emulators.smtp import Does, Fault, Offer, SmtpEmulator, Stage
from tests.worker.house import House
from worker.beat import due_lanes
from worker.bell import endpoint_lane, send_lane
from worker.halt import stop
from worker.mailers import mailer_purpose

REFUSED = Fault(Stage.MAIL, Does.REPLY, "530 5.7.0 authentication required")


def events(house: House) -> list[dict[str, Any]]:
    found = house.rows("select type, data, message_id from event where workspace_id = :w order by cursor")
    return [dict(row) for row in found if row["type"] == EventType.MAILER_RECONNECT_REQUIRED]


def listen(house: House) -> UUID:
    endpoint_id = uuid7()
    with house.session() as session:
        endpoint = WebhookEndpoint(
            id=endpoint_id,
            workspace_id=house.workspace_id,
            url="https://example.com/hook",
            events=["mailer.reconnect_required"],
            sealed_secret=b"",
        )
        session.add(endpoint)
        session.commit()
        return endpoint_id


def set_credentials(house: House, **changes: Any) -> None:
    """As PATCH does."""
    credentials = {"host": "127.0.0.1", "port": house.server.port, "security": "none", **changes}
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update mailer set sealed_credentials = :sealed, status = 'active' where id = :id"),
            {"id": house.mailer_id, "sealed": house.runtime.vault.seal(mailer_purpose(house.mailer_id), credentials)},
        )


def test_whoever_listens_is_told_which_mailer_and_why(house: House) -> None:
    endpoint_id = listen(house)
    house.server.fail(REFUSED)
    house.submit("ann@example.com")
    house.deliver()
    [event] = events(house)
    assert event["message_id"] is None
    assert event["data"] == {
        "mailer_id": str(house.mailer_id),
        "name": "test",
        "provider": "smtp",
        "reason": "5.7.0 authentication required",
        "code": "530 5.7.0",
    }
    assert house.scalar("select count(*) from webhook_delivery where endpoint_id = :e", e=endpoint_id) == 1
    assert house.runtime.redis.get(endpoint_lane(endpoint_id).key) is not None


def test_two_workers_that_are_refused_say_it_once(house: House) -> None:
    refused = Outcome(result=Result.CREDENTIALS, detail="no", code="535")
    opened = [house.runtime.providers.mailer(house.mailer_id) for _ in range(2)]
    for mailer in opened:
        assert mailer is not None
        stop(house.runtime, mailer, refused)
    assert len(events(house)) == 1


def test_a_refusal_of_credentials_that_were_replaced_meanwhile_stops_nothing(house: House) -> None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    set_credentials(house)
    stop(house.runtime, mailer, Outcome(result=Result.CREDENTIALS, detail="no"))
    assert house.scalar("select status from mailer where id = :m") == MailerStatus.ACTIVE
    assert events(house) == []


def test_the_mail_waits_and_drains_after_new_credentials(house: House) -> None:
    offer = Offer(passwords={"ann": "new-password"})
    with SmtpEmulator(offer) as strict:
        house.server = strict
        set_credentials(house, username="ann", password="old-password")
        accepted = house.submit(*(f"user{number}@example.com" for number in range(30)))
        house.deliver()
        assert {message.state for message in house.messages(accepted)} == {"queued"}
        with house.runtime.engine.connect() as connection:
            assert send_lane(house.mailer_id, 0) not in set(due_lanes(connection))
        set_credentials(house, username="ann", password="new-password")
        with house.runtime.engine.connect() as connection:
            assert send_lane(house.mailer_id, 0) in set(due_lanes(connection))
        house.deliver_all()
        messages = house.messages(accepted)
        assert {message.state for message in messages} == {"sent"}
        assert strict.delivered_once(message.rfc_message_id for message in messages)
    assert "password" not in json.dumps(events(house))
