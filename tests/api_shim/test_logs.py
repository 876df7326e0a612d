"""The log of sent mails: what a row says, how rows are found, and that finding them stays quick."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.base import ulid, uuid7
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.record_rows import add_log

PATH = "/v1/email/logs"


def found(client: TestClient, **query: Any) -> list[str]:
    answer = client.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def test_a44_a_row_says_what_was_sent_and_what_became_of_it(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    submission, thread, contact = uuid7(), uuid4(), uuid4()
    id_ = add_log(
        session, tenant, submission_id=submission, thread_id=thread, contact_id=contact, sender_user_id=tenant.user_id,
        cc=["c@example.com"], status="bounced", error="550 no such user", provider_message_id="p-1",
        rfc_message_id="<a@mail.test>", attachment_filename="offer.pdf", campaign_id="autumn", type="reply",
    )  # fmt: skip
    shown = client.get(f"{PATH}/{id_}").json()
    assert shown.pop("created_at")
    assert shown.pop("mailer_id")
    assert shown == {
        "id": str(id_),
        "ref_id": ulid(submission),
        "message_id": "<a@mail.test>",
        "provider_message_id": "p-1",
        "type": "reply",
        "status": "bounced",
        "subject": "Offer",
        "recipient_email": "grace@example.com",
        "recipients": ["grace@example.com"],
        "cc": ["c@example.com"],
        "sender_email": "hello@mail.test",
        "sender_user_id": str(tenant.user_id),
        "provider": "smtp",
        "thread_id": str(thread),
        "contact_id": str(contact),
        "deal_id": None,
        "customer_id": None,
        "campaign_id": "autumn",
        "priority": 0,
        "has_attachment": True,
        "attachment_filename": "offer.pdf",
        "error": "550 no such user",
        "finished_at": "2026-01-01T00:00:00Z",
    }
    assert [row["id"] for row in client.get(PATH).json()["data"]] == [str(id_)]


NOBODY = UUID("01938f4e-7c1a-7b3e-9d52-6f0a8c4e1b27")
ENTITY = UUID("0193e0a2-9a4b-7c3d-8e5f-0123456789ab")


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ({"status": "failed"}, {"status": "failed"}),
        ({"contact_id": ENTITY}, {"contact_id": ENTITY}),
        ({"deal_id": ENTITY}, {"deal_id": ENTITY}),
        ({"opportunity_id": ENTITY}, {"deal_id": ENTITY}),
        ({"customer_id": ENTITY}, {"customer_id": ENTITY}),
        ({"company_id": ENTITY}, {"customer_id": ENTITY}),
        ({"type": "shared"}, {"type": "shared"}),
        ({"provider": "gmail"}, {"provider": "gmail"}),
        ({"campaign_id": "autumn"}, {"campaign_id": "autumn"}),
        ({"ref_id": ulid(ENTITY)}, {"submission_id": ENTITY}),
        ({"ref_id": ulid(ENTITY).lower()}, {"submission_id": ENTITY}),
        ({"recipient": "GRACE@Example.org"}, {"recipient_email": "Grace@example.org"}),
        ({"recipient": "bob@example.org"}, {"recipients": ["grace@example.com", "bob@example.org"]}),
        ({"type": "reply", "status": "failed"}, {"type": "reply", "status": "failed"}),
    ],
)
def test_a44_c33_a_filter_finds_its_rows_and_no_others(
    client: TestClient, session: Session, tenant: Tenant, query: dict[str, Any], columns: dict[str, Any]
) -> None:
    id_ = add_log(session, tenant, **columns)
    add_log(session, tenant)
    assert found(client, **{name: str(value) for name, value in query.items()}) == [str(id_)]


@pytest.mark.parametrize(
    "query",
    [
        "status=lost", "type=letter", "contact_id=1", "ref_id=1", "recipient=grace", "provider=%00", "campaign_id=%00",
        "ref_id=%00", "limit=0", "cursor=%FF", f"deal_id={NOBODY}&opportunity_id={ENTITY}",
    ],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_a_400(client: TestClient, query: str) -> None:
    answer = client.get(f"{PATH}?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_pages_follow_each_other_while_rows_arrive(client: TestClient, session: Session, tenant: Tenant) -> None:
    ids = [str(add_log(session, tenant)) for _ in range(4)]
    page = client.get(PATH, params={"limit": 2}).json()
    add_log(session, tenant)
    rest = client.get(PATH, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [row["id"] for row in page["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None


def test_another_workspaces_log_is_not_there(
    client: TestClient, other: TestClient, session: Session, tenant: Tenant
) -> None:
    submission = uuid7()
    id_ = add_log(session, tenant, submission_id=submission, contact_id=ENTITY)
    answer = other.get(f"{PATH}/{id_}")
    assert (answer.status_code, answer.json()["error"]) == (404, "NOT_FOUND")
    assert found(other) == found(other, ref_id=ulid(submission)) == found(other, contact_id=str(ENTITY)) == []
    assert found(other, recipient="grace@example.com") == []
    assert client.get(f"{PATH}/{id_}").status_code == 200


def test_a3_the_log_needs_email_read(api: TestClient, app_services: Services) -> None:
    sender = as_caller(api, new_tenant(app_services, ("email:send",)).key)
    assert sender.get(PATH).status_code == sender.get(f"{PATH}/{uuid4()}").status_code == 403


ROWS = 1_000_000
CHUNK = 100_000
"""Rows written by one statement, so that none takes longer than statements may."""
_MANY = text("""
    insert into email_log (message_id, workspace_id, submission_id, priority, type, status, subject, sender_email, recipient_email,
        recipients, cc, provider, mailer_id, rfc_message_id, thread_id, contact_id, deal_id, customer_id, campaign_id, finished_at)
    select cast(lpad(to_hex(cast(1000 * extract(epoch from date_trunc('month', now()) + i * interval '3 seconds') as bigint)), 12, '0')
                || substr(replace(gen_random_uuid()::text, '-', ''), 13) as uuid),
           :workspace_id, case when i % 10 = 0 then gen_random_uuid() else :bulk end, 0,
           case when i % 500 = 0 then 'reply' when i % 100 = 0 then 'shared' when i % 10 = 0 then 'single' else 'campaign' end,
           case when i % 1000 = 0 then 'failed' when i % 2 = 0 then 'sent' else 'delivered' end, 'Offer', 'hello@mail.test',
           'u' || i || '@example.com',
           case when i % 100 = 0 then array['u' || i || '@example.com', 'v' || i || '@example.com']
                else array['u' || i || '@example.com'] end,
           '{}', case when i % 2000 = 0 then 'gmail' else 'smtp' end, gen_random_uuid(), '<' || i || '@mail.test>', null,
           case when i % 50 = 0 then (array[cast(:contact as uuid), gen_random_uuid()])[1 + i / 50 % 2] end,
           case when i % 50 = 1 then gen_random_uuid() end, case when i % 50 = 2 then gen_random_uuid() end,
           case when i % 10 = 0 then 'NIL' else 'c' || i % 7 end, now()
    from generate_series(:first, :last) i
""")


@pytest.fixture(scope="module")
def crowd(app_services: Services) -> Tenant:
    """A workspace with many rows in parts of two months, most of them of one big campaign."""
    tenant = new_tenant(app_services)
    parameters = {"workspace_id": tenant.workspace_id, "bulk": ENTITY, "contact": ENTITY}
    with app_services.engine.connect() as connection:
        for first in range(1, ROWS, CHUNK):
            connection.execute(_MANY, parameters | {"first": first, "last": first + CHUNK - 1})
            connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("vacuum analyze email_log"))
    return tenant


@pytest.fixture
def plans(app_services: Services) -> Iterator[list[dict[str, Any]]]:
    """The plan of every query on the log that is made meanwhile."""
    seen: list[dict[str, Any]] = []

    def explain(_c: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM email_log" in statement:
            with cursor.connection.cursor() as beside:
                beside.execute(f"explain (analyze, format json) {statement}", parameters)
                seen.append(beside.fetchone()[0][0])

    event.listen(app_services.engine, "before_cursor_execute", explain)
    yield seen
    event.remove(app_services.engine, "before_cursor_execute", explain)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize(
    "query",
    [
        "", "status=delivered", "status=failed", "status=expired", "type=reply", "type=campaign", "provider=gmail",
        "provider=none", "campaign_id=c3", "campaign_id=unknown", f"ref_id={ulid(ENTITY)}", f"ref_id={ulid(NOBODY)}",
        "recipient=u4711@example.com", "recipient=v4700@example.com", f"contact_id={ENTITY}", f"deal_id={NOBODY}",
        f"customer_id={NOBODY}", "status=failed&type=single", f"contact_id={ENTITY}&status=sent",
        f"ref_id={ulid(ENTITY)}&status=delivered", "provider=gmail&status=failed&type=reply",
    ],
)  # fmt: skip
def test_no_filter_reads_more_than_a_fraction_of_the_log(
    api: TestClient, crowd: Tenant, plans: list[dict[str, Any]], query: str
) -> None:
    answer = as_caller(api, crowd.key).get(f"{PATH}?limit=20&{query}")
    assert answer.status_code == 200
    (plan,) = plans
    used = list(nodes(plan["Plan"]))
    scanned = [
        node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in used if node["Node Type"] == "Seq Scan"
    ]
    assert max(scanned, default=0) == 0, "a month that holds something was read from one end to the other"
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in used) <= ROWS / 50, plan
