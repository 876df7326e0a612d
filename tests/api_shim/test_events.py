"""The event log: in order, without gaps, as webhooks carry it."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from api_shim.submission import Accepted
from models.base import ulid
from models.event import EventType
from tests.api_shim.conftest import Tenant
from tests.api_shim.mail_rows import Mailroom
from worker.events import NewEvent, append_events


@pytest.fixture
def mail(app_services: Services, tenant: Tenant) -> Accepted:
    return Mailroom(app_services, tenant).submit(campaign_id="spring")


def append(session: Session, tenant: Tenant, mail: Accepted | None, *types: EventType) -> None:
    append_events(
        session.connection(),
        [
            NewEvent(
                workspace_id=tenant.workspace_id,
                type=type_,
                at=datetime.now(UTC),
                message_id=mail.message_id if mail else None,
                submission_id=mail.submission_id if mail else None,
                recipients=("p0@example.com",),
            )
            for type_ in types
        ],
    )
    session.commit()


def test_a_client_that_polls_sees_every_event_once_and_in_order(
    client: TestClient, tenant: Tenant, session: Session, mail: Accepted
) -> None:
    append(session, tenant, mail, EventType.DELIVERED, EventType.OPENED, EventType.CLICKED)
    seen: list[int] = []
    after = "0"
    for _ in range(3):
        answer = client.get("/v1/events", params={"after": after, "limit": 2}).json()
        seen += [event["cursor"] for event in answer["data"]]
        after = answer["next_cursor"]
    assert (seen, after) == ([1, 2, 3], "3")
    append(session, tenant, mail, EventType.BOUNCED)
    answer = client.get("/v1/events", params={"after": after}).json()
    assert [event["event"] for event in answer["data"]] == ["MAIL_BOUNCED"]


def test_latest_begins_with_what_comes_next(
    client: TestClient, tenant: Tenant, session: Session, mail: Accepted
) -> None:
    append(session, tenant, mail, EventType.DELIVERED)
    begin = client.get("/v1/events", params={"after": "latest"}).json()
    assert begin == {"data": [], "next_cursor": "1"}
    append(session, tenant, mail, EventType.OPENED)
    (event,) = client.get("/v1/events", params={"after": begin["next_cursor"]}).json()["data"]
    assert event["event"] == "MAIL_OPENED"


def test_an_event_is_shown_as_webhooks_carry_it(
    client: TestClient, tenant: Tenant, session: Session, mail: Accepted
) -> None:
    append(session, tenant, mail, EventType.DELIVERED)
    (event,) = client.get("/v1/events").json()["data"]
    assert set(event) == {"event", "details", "type", "id", "timestamp", "sequence", "cursor", "state"}
    assert event["details"]["ref_id"] == ulid(mail.submission_id)
    assert (event["details"]["campaign_id"], event["details"]["email"]) == ("spring", ["p0@example.com"])


def test_events_are_chosen_by_type_submission_and_message(
    client: TestClient, tenant: Tenant, session: Session, mail: Accepted
) -> None:
    append(session, tenant, mail, EventType.DELIVERED, EventType.OPENED)
    append(session, tenant, None, EventType.OPENED)

    def chosen(**parameters: str) -> list[int]:
        return [event["cursor"] for event in client.get("/v1/events", params=parameters).json()["data"]]

    assert chosen(type="MAIL_OPENED") == chosen(type="opened") == [2, 3]
    assert chosen(ref_id=ulid(mail.submission_id)) == chosen(message_id=str(mail.message_id)) == [1, 2]
    assert chosen(type="opened", ref_id=ulid(mail.submission_id)) == [2]


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", f"after={2**63}", "type=nonsense", "ref_id=x", "ref_id=%00", "type=%00", "limit=0"]
)
def test_a_question_that_means_nothing_is_a_400(client: TestClient, query: str) -> None:
    assert client.get(f"/v1/events?{query}").status_code == 400


def test_another_workspace_sees_none_of_it(other: TestClient, tenant: Tenant, session: Session, mail: Accepted) -> None:
    append(session, tenant, mail, EventType.DELIVERED)
    assert other.get("/v1/events").json() == {"data": [], "next_cursor": "0"}
    assert other.get("/v1/events", params={"ref_id": ulid(mail.submission_id)}).json()["data"] == []
