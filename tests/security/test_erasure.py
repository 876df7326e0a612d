"""S14: a person who is to be forgotten is nowhere any more, and every count is what it was."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.app import create_app
from api_shim.auth import SCOPES, issue_key
from api_shim.services import Services
from api_shim.submission import Link, NewAttachment
from models.base import Base, uuid7
from models.content import Address
from models.crm import Contact
from models.event import EventType
from models.message import State
from models.partition import is_part
from models.record import InboundMessage
from models.webhook import WebhookEndpoint
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.conftest import as_caller
from tests.worker.house import House, settings_for
from worker.erasure import ERASED, erase_pending
from worker.events import NewEvent, append_events

GRACE, ADA = "Grace.Hopper@example.com", "ada@example.com"
MARKS = ("grace.hopper", "rosebud")
"""What of Grace must not be found: her address in any spelling, and a word that only mails to and from her say."""
PAPER = NewAttachment(field="attachments[0]", filename="rosebud.pdf", content_type="application/pdf", data=b"rosebud")
SHARED = NewAttachment(field="attachments[0]", filename="terms.pdf", content_type="application/pdf", data=b"terms")


@pytest.fixture(scope="module")
def house(database_url: str, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(database_url, redis_url), server)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_app(house.settings), raise_server_exceptions=False) as api:
        services: Services = api.app.state.services  # type: ignore[attr-defined]
        with house.session() as session:
            _, key = issue_key(
                session, workspace_id=house.workspace_id, name="all", scopes=SCOPES, pepper=services.peppers[0]
            )
            session.commit()
        yield as_caller(api, key)


def everything(house: House) -> dict[str, str]:
    """All rows of the database as text, table by table; bytes as the characters they stand for."""
    with house.runtime.engine.connect() as connection:
        return {
            table.name: " ".join(
                str(value)
                for row in connection.execute(text(f"select * from {table.name}")).all()
                for value in (bytes(cell) if isinstance(cell, memoryview) else cell for cell in row)
            ).lower()
            for table in Base.metadata.sorted_tables
            if not is_part(table.name)
        }


def found(house: House) -> set[str]:
    return {table for table, content in everything(house).items() if any(mark in content for mark in MARKS)}


def kept_in_redis(house: House) -> str:
    with redis.Redis.from_url(house.settings.redis_url) as connection:
        keys = list(connection.scan_iter())
        return " ".join(str((key, connection.dump(key))) for key in keys).lower()


def figures(house: House) -> dict[str, Any]:
    counted = {
        name: house.scalar(f"select count(*) from {name} where workspace_id = :w")
        for name in ("message", "submission", "email_log", "event", "activity", "thread", "inbound_message")
    }
    states = house.rows("select state, count(*) as n from message where workspace_id = :w group by 1 order by 1")
    types = house.rows("select type, count(*) as n from event where workspace_id = :w group by 1 order by 1")
    return counted | {"states": states, "types": types}


def live(house: House) -> None:
    """A correspondence with Grace, with everything that leaves a trace."""
    hers = {"subject": "Rosebud", "html": "<p>rosebud</p>", "attachments": (PAPER,), "custom_args": {"a": "rosebud"}}
    with house.session() as session:
        session.add(
            WebhookEndpoint(
                id=uuid7(), workspace_id=house.workspace_id, url="http://127.0.0.1:9/", events=["*"],
                sealed_secret=house.runtime.vault.seal("x", {}),
            )
        )  # fmt: skip
        session.add(Contact(id=uuid7(), workspace_id=house.workspace_id, email=GRACE, name="Rosebud"))
        session.commit()
    linked = (Link(field="contact_id", kind="contact", id=house.contact_id),)
    one = house.submit(GRACE, links=linked, **hers)
    house.submit(GRACE, ADA, individual=True, substitutions={GRACE.lower(): {"x": "rosebud"}, ADA: {"x": "1"}},
                 html="{{x}}", attachments=(SHARED,))  # fmt: skip
    house.submit(ADA, individual=False, cc=(Address(GRACE, "Rosebud"),))
    house.submit(ADA, attachments=(SHARED,))
    house.deliver_all()
    house.record_all()
    with house.runtime.engine.begin() as connection:
        bounce = NewEvent(
            workspace_id=house.workspace_id, type=EventType.BOUNCED, at=datetime.now(UTC), message_id=one.message_id,
            submission_id=one.submission_id, recipients=(GRACE,), data={"reason": f"550 <{GRACE}> rosebud"},
        )  # fmt: skip
        answer = NewEvent(
            workspace_id=house.workspace_id, type=EventType.RECEIVED, at=datetime.now(UTC), recipients=("hello@demo.test",),
            data={"from": f"Grace <{GRACE}>", "subject": "Re: Rosebud", "thread_id": str(one.thread_id)},
        )  # fmt: skip
        append_events(connection, [bounce, answer])
        answered = """update webhook_delivery set attempts = '[{"response": "rosebud"}]'
                      from event where event.id = event_id and :grace = any(recipients)"""
        connection.execute(text(answered), {"grace": GRACE})
        attempts = (
            "update message set attempts = attempts || jsonb_build_object('outcome', 'sent', 'detail', 'rosebud')"
        )
        connection.execute(text(attempts + " where id = :id"), {"id": one.message_id})
    with house.session() as session:
        _answer(session, house, one.thread_id)
        session.commit()


def _answer(session: Session, house: House, thread_id: UUID | None) -> None:
    session.add(
        InboundMessage(
            id=uuid7(), workspace_id=house.workspace_id, mailer_id=house.mailer_id, thread_id=thread_id,
            rfc_message_id="<a@example.com>", from_email=GRACE, from_name="Rosebud", to=["hello@demo.test"],
            subject="Re: Rosebud", text="rosebud", html="rosebud", received_at=datetime.now(UTC),
        )
    )  # fmt: skip


def ask(client: TestClient, **more: Any) -> str:
    answer = client.post("/v1/erasures", json={"address": GRACE, **more})
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert not any(mark in answer.text.lower() for mark in MARKS)
    id_: str = answer.json()["id"]
    return id_


def test_s14_a_person_is_nowhere_any_more_and_all_counts_are_what_they_were(house: House, client: TestClient) -> None:
    live(house)
    tables = found(house)
    assert {"message", "email_log", "event", "activity", "thread", "submission", "inbound_message", "blob"} <= tables
    assert {"contact", "webhook_delivery"} <= tables
    before = figures(house)
    id_ = ask(client, contacts=True)
    assert ask(client, contacts=True) == id_
    assert erase_pending(house.runtime.engine, house.runtime.vault) == 1
    assert found(house) == set()
    assert not any(mark in kept_in_redis(house) for mark in MARKS)
    assert figures(house) == before
    done = client.get(f"/v1/erasures/{id_}").json()
    assert done["status"] == "done"
    events = client.get("/v1/events")
    assert events.status_code == 200
    assert not any(mark in events.text.lower() for mark in MARKS)
    assert (done["report"]["messages"], done["report"]["received"], done["report"]["files"]) == (3, 1, 1)
    actions = client.get(f"/v1/ops/audit?target={id_}").json()["data"]
    assert [entry["action"] for entry in actions] == ["erasure.asked"]


def test_s14_the_others_keep_all_of_theirs(house: House, client: TestClient) -> None:
    logs = client.get("/v1/email/logs", params={"recipient": ADA}).json()["data"]
    assert sorted(log["recipients"] for log in logs) == [[ADA], [ADA], [ADA, ERASED]]
    assert {log["subject"] for log in logs} == {"Hello"}
    assert house.scalar("select data from blob where workspace_id = :w") == SHARED.data
    values = house.scalar("select variables from message where workspace_id = :w and variables is not null")
    assert values == {"x": "1"}


def test_s14_asked_again_it_finds_nothing(house: House, client: TestClient) -> None:
    id_ = ask(client)
    erase_pending(house.runtime.engine, house.runtime.vault)
    assert client.get(f"/v1/erasures/{id_}").json()["report"] == {}


def test_s14_what_was_still_to_be_sent_to_them_is_not(house: House, client: TestClient) -> None:
    later = {"send_at": datetime(2099, 1, 1, tzinfo=UTC)}
    alone, both = house.submit(GRACE, **later), house.submit(GRACE, ADA, individual=False, **later)
    ask(client)
    erase_pending(house.runtime.engine, house.runtime.vault)
    assert (house.message(alone).state, house.message(alone).recipients) == (State.CANCELLED, [ERASED])
    assert (house.message(both).state, house.message(both).recipients) == (State.QUEUED, [ADA])
    house.record_all()
    assert found(house) == set()


def test_s14_what_a_worker_has_in_hand_is_waited_for(house: House, client: TestClient) -> None:
    accepted = house.submit(GRACE)
    with house.runtime.engine.begin() as connection:
        in_hand = text("update message set state = 'sending', due_at = null where id = :id")
        connection.execute(in_hand, {"id": accepted.message_id})
    id_ = ask(client)
    assert erase_pending(house.runtime.engine, house.runtime.vault) == 0
    assert client.get(f"/v1/erasures/{id_}").json()["status"] == "pending"
    with house.runtime.engine.begin() as connection:
        sent = text("update message set state = 'sent', finished_at = now() where id = :id")
        connection.execute(sent, {"id": accepted.message_id})
    assert erase_pending(house.runtime.engine, house.runtime.vault) == 1
    assert found(house) == set()


def test_an_address_that_only_ends_alike_is_somebody_elses(house: House, client: TestClient) -> None:
    accepted = house.submit("mc" + GRACE)
    ask(client)
    erase_pending(house.runtime.engine, house.runtime.vault)
    assert house.message(accepted).recipients == ["mc" + GRACE]


def test_the_suppression_stays_unless_it_is_to_go_too(house: House, client: TestClient) -> None:
    client.post("/v1/suppressions", json={"address": GRACE})
    ask(client)
    erase_pending(house.runtime.engine, house.runtime.vault)
    assert client.get("/v1/suppressions", params={"address": GRACE}).json()["data"] != []
    ask(client, suppressions=True)
    erase_pending(house.runtime.engine, house.runtime.vault)
    assert client.get("/v1/suppressions", params={"address": GRACE}).json()["data"] == []


def test_a_request_that_no_key_opens_holds_up_no_other(house: House, client: TestClient) -> None:
    stuck = ask(client)
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update erasure set sealed_address = 'x' where id = :id"), {"id": stuck})
    answer = client.post("/v1/erasures", json={"address": ADA})
    erase_pending(house.runtime.engine, house.runtime.vault)
    assert client.get(f"/v1/erasures/{answer.json()['id']}").json()["status"] == "done"
    assert client.get(f"/v1/erasures/{stuck}").json()["status"] == "pending"
