"""What the pages show and what their buttons do, on rows as the workers leave them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.services import Services
from models.access import AuditEntry
from models.base import ulid, uuid7
from models.content import AttachmentRef, SendSettings
from models.event import Event
from models.mailer import Mailer, Suppression
from models.message import UNTIL_SOMEBODY_ACTS, Campaign, Followup, Message, State
from models.record import EmailLog
from models.webhook import WebhookDelivery, WebhookEndpoint
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_log, add_mailer
from tests.ops.conftest import Browser, add_message

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
HELD: dict[str, Any] = {"state": State.UNCERTAIN, "due_at": UNTIL_SOMEBODY_ACTS, "reason": "held: nobody knows"}


def _fresh(session: Session, message_id: UUID) -> Message:
    session.expire_all()
    return session.get_one(Message, message_id)


def _audited(session: Session, tenant: Tenant) -> list[str]:
    query = select(AuditEntry.action).where(AuditEntry.workspace_id == tenant.workspace_id)
    return list(session.scalars(query.order_by(AuditEntry.id)))


def _failed(session: Session, tenant: Tenant, **columns: Any) -> UUID:
    """A refused message and its log row."""
    attempts = [
        {"at": datetime.now(UTC).isoformat(), "outcome": "permanent", "code": "550", "detail": "No such mailbox"}
    ]
    message_id = add_message(
        session,
        tenant,
        **{"state": State.FAILED, "tries": 1, "attempts": attempts, "finished_at": datetime.now(UTC), **columns},
    )
    row = session.get_one(Message, message_id)
    add_log(
        session, tenant, message_id=message_id, submission_id=row.submission_id, status=row.state,
        recipient_email=row.recipients[0], recipients=row.recipients, rfc_message_id=row.rfc_message_id,
        provider_message_id=row.provider_message_id, mailer_id=row.mailer_id,
    )  # fmt: skip
    return message_id


def test_the_overview_has_a_card_for_each_queue_with_its_true_figures(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    before = operator.get("/ops/live.json").json()["figures"]
    add_message(session, tenant, due_at=datetime.now(UTC) - timedelta(minutes=3))
    add_message(session, tenant, due_at=datetime.now(UTC) + timedelta(hours=1))
    page = operator.get("/ops").text
    for queue in ("send.high", "send.normal", "followup", "webhooks"):
        assert f'data-live="{queue}/ready"' in page
    now = operator.get("/ops/live.json").json()["figures"]
    assert int(now["send.normal/ready"]) == int(before["send.normal/ready"]) + 1
    assert int(now["send.normal/scheduled"]) == int(before["send.normal/scheduled"]) + 1
    assert now["send.normal/oldest"].startswith("3 m")
    assert f'data-live="send.normal/ready">{now["send.normal/ready"]}<' in page


def test_the_overview_says_what_wants_attention(operator: Browser, session: Session, tenant: Tenant) -> None:
    add_mailer(session, tenant, name="Old box", status="reconnect_required", status_reason="535 no")
    add_mailer(session, tenant, name="Slow box", throttled_until=datetime.now(UTC) + timedelta(minutes=5))
    add_message(session, tenant, **HELD)
    failed = _failed(session, tenant)
    session.add(Followup(message_ids=[failed], tries=2, error="no table"))
    session.commit()
    page = operator.get("/ops").text
    for words in (
        "Old box must be reconnected", "535 no", "Slow box is throttled", "1 mail with an unknown fate",
        "1 mail without a log row", "no table", "The beat has not been heard of yet", "No worker of send.high",
    ):  # fmt: skip
        assert words in page
    session.query(Followup).delete()
    session.commit()


def test_one_workspace_sees_nothing_of_another(
    operator: Browser, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    theirs = add_message(session, other_tenant, recipients=["secret@example.com"], **HELD)
    mailer_id = add_mailer(session, other_tenant, name="Their box", status="reconnect_required")
    session.add(Campaign(workspace_id=other_tenant.workspace_id, id="their-campaign"))
    session.commit()
    for path in ("", "/messages", "/campaigns", "/mailers", "/webhooks", "/stuck", "/suppressions", "/live.json"):
        page = operator.get(f"/ops{path}").text
        assert not re.search("secret@example.com|Their box|their-campaign|unknown fate", page), path
    for path in (f"messages/{theirs}", f"messages/{theirs}/html", f"messages/{theirs}/source"):
        assert operator.get(f"/ops/{path}").status_code == 404
    assert operator.get(f"/ops/search?q={theirs}").headers["location"] == f"/ops/messages?id={theirs}"
    assert "no such thing" in operator.act(f"/ops/messages/{theirs}/cancel")
    assert "no such thing" in operator.act(f"/ops/mailers/{mailer_id}/resume")
    assert "no such thing" in operator.act("/ops/campaigns/pause", id="their-campaign")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "failed"),
        ("to", "Grace@Example.com"),
        ("campaign", "spring"),
        ("ref_id", "REF"),
        ("request_id", "req-7"),
        ("id", "ID"),
        ("id", "MESSAGE-ID"),
        ("id", "provider-7"),
        ("mailer", "MAILER"),
    ],
)
def test_a_filter_finds_its_messages_and_no_others(
    operator: Browser, session: Session, tenant: Tenant, field: str, value: str
) -> None:
    wanted = _failed(session, tenant, campaign_id="spring", request_id="req-7", provider_message_id="provider-7")
    other = add_message(session, tenant, recipients=["other@example.com"])
    row = _fresh(session, wanted)
    names = {
        "REF": ulid(row.submission_id), "ID": str(wanted), "MESSAGE-ID": row.rfc_message_id, "MAILER": str(row.mailer_id),
    }  # fmt: skip
    page = operator.get(f"/ops/messages?{field}={quote(names.get(value, value))}").text
    assert str(wanted) in page
    assert str(other) not in page
    assert "No such mailbox" in page


def test_a_recipient_is_found_before_there_is_a_log_row_and_among_several(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    waiting = add_message(session, tenant, recipients=["ada@example.com"], due_at=datetime.now(UTC))
    shared = _failed(session, tenant, recipients=["bob@example.com", "ada@example.com"])
    page = operator.get("/ops/messages?to=ada@example.com").text
    assert str(waiting) in page
    assert str(shared) in page


@pytest.mark.parametrize(
    "query", ["state=nonsense", "ref_id=x", "mailer=x", "since=x", "id=%00", "to=%00", "campaign=%00x"]
)
def test_a_filter_that_cannot_be_read_finds_nothing(
    operator: Browser, session: Session, tenant: Tenant, query: str
) -> None:
    add_message(session, tenant)
    answer = operator.get(f"/ops/messages?{query}")
    assert answer.status_code == 200
    if "%00" not in query or "x" in query:
        assert "Nothing matches." in answer.text


def test_the_list_goes_on_where_it_ended(operator: Browser, session: Session, tenant: Tenant) -> None:
    mailer_id = add_mailer(session, tenant)
    ids = [add_message(session, tenant, mailer_id=mailer_id) for _ in range(53)]
    first = operator.get(f"/ops/messages?mailer={mailer_id}").text
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older is not None
    second = operator.get(older[1].replace("&amp;", "&")).text
    for page, shown in ((first, ids[3:]), (second, ids[:3])):
        assert set(re.findall(r"/ops/messages/([0-9a-f-]{36})", page)) == {str(id_) for id_ in shown}
    assert 'rel="next"' not in second


def test_the_search_leads_to_what_an_id_names(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_message(session, tenant, campaign_id="spring")
    row = session.get_one(Message, message_id)
    session.add(Campaign(workspace_id=tenant.workspace_id, id="spring"))
    session.commit()
    for asked, place in (
        (str(message_id), f"/ops/messages/{message_id}"),
        (row.rfc_message_id, f"/ops/messages/{message_id}"),
        (ulid(row.submission_id), f"/ops/messages?ref_id={ulid(row.submission_id)}"),
        ("grace@example.com", "/ops/messages?to=grace%40example.com"),
        ("spring", "/ops/messages?campaign=spring"),
        ("req-9", "/ops/messages?request_id=req-9"),
        ("", "/ops/messages"),
    ):
        assert operator.get(f"/ops/search?q={quote(asked)}").headers["location"] == place


def test_a_message_page_tells_the_whole_story(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = _failed(session, tenant, created_at=datetime.now(UTC) - timedelta(seconds=90))
    event = Event(
        id=uuid7(), workspace_id=tenant.workspace_id, cursor=1, seq=1, type="failed", message_id=message_id, recipients=[],
        data={"reason": "gone"}, at=datetime.now(UTC),
    )  # fmt: skip
    endpoint = _endpoint(session, tenant)
    session.add(event)
    session.add(WebhookDelivery(workspace_id=tenant.workspace_id, endpoint_id=endpoint, event_id=event.id, tries=3))
    session.commit()
    page = operator.get(f"/ops/messages/{message_id}").text
    for words in (
        "550", "No such mailbox", "attempt 1", "event failed", "reason gone", "+1 m 30 s", "MAIL_FAILED",
        "https://hooks.example.com/", "Good day", "Composed again for display",
    ):  # fmt: skip
        assert words in page
    assert f'<iframe sandbox="" src="/ops/messages/{message_id}/html"' in page


def test_the_mail_is_shown_without_anything_that_runs_or_loads(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    html = (
        '<style>@import "https://t.test/a.css"; p { background: url(https://t.test/b.png) }</style><p onclick="x()">Hi'
        '<script>alert(1)</script><img src="https://t.test/c.png" srcset="https://t.test/d.png"><img src="data:image/png;base64,AA==">'
        '<iframe src="https://t.test/"></iframe><a href="javascript:x()">a</a><a href="https://t.test/page">b</a></p>'
    )
    message_id = add_message(session, tenant, content={"html": html})
    answer = operator.get(f"/ops/messages/{message_id}/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith("; sandbox")
    assert "script-src" not in policy
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    for gone in ("<script", "alert", "onclick", "a.css", "b.png", "c.png", "d.png", "<iframe", "javascript"):
        assert gone not in answer.text
    assert 'src="data:image/png;base64,AA=="' in answer.text
    assert 'href="https://t.test/page"' in answer.text
    assert "without 4 pictures, styles or frames from elsewhere" in operator.get(f"/ops/messages/{message_id}").text


def test_looking_at_a_mail_reports_no_open_and_no_click(operator: Browser, session: Session, tenant: Tenant) -> None:
    tracked = SendSettings(open_tracking=True, click_tracking=True)
    message_id = add_message(
        session, tenant, content={"html": '<a href="https://t.test/page">b</a>', "settings": tracked}
    )
    row = session.get_one(Message, message_id)
    source = operator.get(f"/ops/messages/{message_id}/source")
    assert source.headers["content-type"] == "message/rfc822"
    assert source.headers["content-disposition"] == f'attachment; filename="{message_id}.eml"'
    assert "https://t.test/page" in source.text
    assert f"Message-ID: {row.rfc_message_id}" in source.text
    assert not re.search(r"/(o|c)/[A-Za-z0-9_-]{40}", source.text)


def test_a_mail_that_cannot_be_composed_is_a_sentence(operator: Browser, session: Session, tenant: Tenant) -> None:
    lost = AttachmentRef(sha256="0" * 64, size=1, filename="a.txt", content_type="text/plain")
    message_id = add_message(session, tenant, content={"attachments": (lost,)})
    assert "attachments are gone" in operator.get(f"/ops/messages/{message_id}").text
    assert operator.get(f"/ops/messages/{message_id}/source").status_code == 409


def test_hostile_text_is_only_text_on_every_page(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_message(
        session, tenant, content={"subject": EVIL, "html": None, "text": EVIL}, subject=EVIL, campaign_id=EVIL,
        request_id=EVIL, provider_message_id=EVIL, recipients=[f"{EVIL}@example.com"], **{**HELD, "reason": EVIL},
    )  # fmt: skip
    session.add(Campaign(workspace_id=tenant.workspace_id, id=EVIL))
    mailer_id = add_mailer(session, tenant, name=EVIL, status="reconnect_required", status_reason=EVIL)
    session.add(Suppression(workspace_id=tenant.workspace_id, address=EVIL, reason="manual"))
    endpoint = _endpoint(session, tenant, url=f"https://x.test/{EVIL}", status_reason=EVIL, status="disabled")
    session.commit()
    paths = [
        "", "/messages", "/campaigns", "/mailers", "/webhooks", "/stuck", "/suppressions", f"/messages/{message_id}",
        f"/webhooks/{endpoint}", f"/messages?to={quote(EVIL)}&campaign={quote(EVIL)}", f"/suppressions?address={quote('a@b.test')}",
        f"/login?next={quote(EVIL)}",
    ]  # fmt: skip
    for path in paths:
        page = operator.get(f"/ops{path}").text
        assert "<script>" not in page, path
        assert "<img" not in page, path
    assert "<script>" not in operator.get("/ops/live.json").json()["parts"]["attention"]
    assert "&lt;script&gt;" in operator.act(f"/ops/mailers/{mailer_id}/pause", back="/ops/mailers")


def test_a_scheduled_message_is_cancelled(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_message(session, tenant, due_at=datetime.now(UTC) + timedelta(hours=1))
    page = operator.act(f"/ops/messages/{message_id}/cancel", back=f"/ops/messages/{message_id}")
    assert "Cancelled. It will not be sent." in page
    assert "/cancel" not in page
    assert _fresh(session, message_id).state == State.CANCELLED
    assert _audited(session, tenant) == ["message.cancel"]


def test_what_cannot_be_done_any_more_is_said_and_not_done(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = _failed(session, tenant)
    assert "cannot be changed in this way" in operator.act(f"/ops/messages/{message_id}/cancel")
    assert _fresh(session, message_id).state == State.FAILED
    assert _audited(session, tenant) == []


def test_a_notice_is_shown_once(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = _failed(session, tenant)
    assert "Back in the queue" in operator.act(f"/ops/messages/{message_id}/retry")
    assert "Back in the queue" not in operator.get("/ops").text
    assert _fresh(session, message_id).state == State.QUEUED


def test_a_held_message_is_decided_from_the_stuck_page(operator: Browser, session: Session, tenant: Tenant) -> None:
    arrived, lost = add_message(session, tenant, **HELD), add_message(session, tenant, **HELD)
    page = operator.get("/ops/stuck").text
    assert page.count("Mark as sent</button>") == page.count("Send again</button>") == 2
    operator.act(f"/ops/messages/{arrived}/mark-sent", provider_message_id="p-1", back="/ops/stuck")
    assert "uncertain" not in operator.act(f"/ops/messages/{lost}/retry", force="yes", back="/ops/stuck")
    row = _fresh(session, arrived)
    assert (row.state, row.provider_message_id) == (State.SENT, "p-1")
    assert _fresh(session, lost).state == State.QUEUED
    assert "unknown fate" not in operator.get("/ops/stuck").text
    assert _audited(session, tenant) == ["message.mark_sent", "message.retry"]


def test_sending_again_what_may_have_arrived_has_to_be_said(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    message_id = add_message(session, tenant, **HELD)
    assert "may deliver it twice" in operator.act(f"/ops/messages/{message_id}/retry")
    assert _fresh(session, message_id).state == State.UNCERTAIN


def test_a_recipient_of_the_message_is_suppressed_and_nobody_else(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    message_id = _failed(session, tenant)
    assert "no recipient" in operator.act(f"/ops/messages/{message_id}/suppress", address="else@example.com")
    assert "gets no more mail" in operator.act(f"/ops/messages/{message_id}/suppress", address="grace@example.com")
    rows = session.scalars(select(Suppression).where(Suppression.workspace_id == tenant.workspace_id)).all()
    assert [row.address for row in rows] == ["grace@example.com"]
    assert _audited(session, tenant) == ["suppression.added"]


def test_suppressions_are_listed_added_and_removed(operator: Browser, session: Session, tenant: Tenant) -> None:
    page = operator.act("/ops/suppressions/add", address=" Ada@Example.com ", list_id="", back="/ops/suppressions")
    assert "ada@example.com" in page
    assert "not a valid email address" in operator.act("/ops/suppressions/add", address="nonsense")
    assert "No suppressed" not in operator.get("/ops/suppressions?address=ADA@example.com").text
    found = re.search(r'name="id" value="([^"]+)"', page)
    assert found is not None
    assert "No suppressed addresses." in operator.act("/ops/suppressions/remove", id=found[1], back="/ops/suppressions")
    assert "no id of a suppression" in operator.act("/ops/suppressions/remove", id="x")
    assert _audited(session, tenant) == ["suppression.added", "suppression.removed"]


def test_a_campaign_is_paused_resumed_retried_and_cancelled(
    operator: Browser, session: Session, tenant: Tenant
) -> None:
    name = "spring & summer/2026"
    session.add(Campaign(workspace_id=tenant.workspace_id, id=name))
    session.commit()
    waiting = add_message(session, tenant, campaign_id=name, due_at=datetime.now(UTC) + timedelta(hours=1))
    failed = _failed(session, tenant, campaign_id=name)
    page = operator.get("/ops/campaigns").text
    assert 'aria-label="1 queued, 1 failed"' in page
    assert "50 % finished" in page
    back = "/ops/campaigns"
    assert "Held back: 1 mail." in operator.act("/ops/campaigns/pause", id=name, back=back)
    assert _fresh(session, waiting).due_at == UNTIL_SOMEBODY_ACTS
    assert "Due again: 1 mail." in operator.act("/ops/campaigns/resume", id=name, back=back)
    assert "Back in the queue: 1 mail" in operator.act("/ops/campaigns/retry", id=name, back=back)
    assert _fresh(session, failed).state == State.QUEUED
    page = operator.act("/ops/campaigns/cancel", id=name, back=back)
    assert "Cancelled for good: 2 mails." in page
    assert "/ops/campaigns/resume" not in page
    assert _audited(session, tenant) == [
        "campaign.paused",
        "campaign.active",
        "campaign.retry_failed",
        "campaign.cancelled",
    ]


def test_a_mailer_is_paused_resumed_and_tested(
    operator: Browser, session: Session, tenant: Tenant, app_services: Services
) -> None:
    mailer_id = add_mailer(session, tenant, caps={"per_second": 5})
    sealed = app_services.vault.seal(
        f"mailer:{mailer_id}",
        {"host": "127.0.0.1", "port": 9, "security": "none", "username": None, "password": None},
    )
    session.get_one(Mailer, mailer_id).sealed_credentials = sealed
    session.commit()
    assert "per second 5" in operator.get("/ops/mailers").text
    assert "is paused" in operator.act(f"/ops/mailers/{mailer_id}/pause", back="/ops/mailers")
    session.expire_all()
    assert session.get_one(Mailer, mailer_id).status == "paused"
    assert "sends again" in operator.act(f"/ops/mailers/{mailer_id}/resume", back="/ops/mailers")
    assert "The provider refused" in operator.act(f"/ops/mailers/{mailer_id}/test", back="/ops/mailers")
    assert _audited(session, tenant) == ["mailer.paused", "mailer.resumed", "mailer.tested"]


def _endpoint(session: Session, tenant: Tenant, **columns: Any) -> UUID:
    values = {"url": "https://hooks.example.com/", "events": ["*"], "sealed_secret": b""}
    row = WebhookEndpoint(id=uuid7(), workspace_id=tenant.workspace_id, **(values | columns))
    session.add(row)
    session.commit()
    return row.id


def _delivery(session: Session, tenant: Tenant, endpoint: UUID, **columns: Any) -> UUID:
    row = WebhookDelivery(
        id=uuid7(), workspace_id=tenant.workspace_id, endpoint_id=endpoint, event_id=uuid7(), **columns
    )
    session.add(row)
    session.commit()
    return row.id


def _state(session: Session, delivery_id: UUID) -> str:
    session.expire_all()
    return session.get_one(WebhookDelivery, delivery_id).state


def test_webhooks_show_their_deliveries_and_replay_them(operator: Browser, session: Session, tenant: Tenant) -> None:
    endpoint = _endpoint(session, tenant)
    attempt = {
        "at": datetime.now(UTC).isoformat(),
        "status": 503,
        "error": "busy",
        "response": "<b>no</b>",
        "milliseconds": 12,
    }
    dead = [_delivery(session, tenant, endpoint, state="dead", tries=8, attempts=[attempt]) for _ in range(2)]
    done = _delivery(session, tenant, endpoint, state="delivered", delivered_at=datetime.now(UTC), tries=1)
    assert ">2</a>" in operator.get("/ops/webhooks").text
    back = f"/ops/webhooks/{endpoint}"
    page = operator.get(back).text
    for words in ("503", "busy", "12 ms", "&lt;b&gt;no"):
        assert words in page
    assert operator.get(f"{back}?state=delivered").text.count("<details>") == 0
    assert "1 delivery" in operator.act(f"{back}/replay", delivery_id=str(dead[0]), back=back)
    assert (_state(session, dead[0]), _state(session, dead[1])) == ("pending", "dead")
    assert "1 delivery" in operator.act(f"{back}/replay", state="dead", back="/ops/stuck")
    assert "3 deliveries" in operator.act(f"{back}/replay", since="15m", back=back)
    assert _state(session, done) == "pending"
    assert "Say what to replay." in operator.act(f"{back}/replay", back=back)
    assert _audited(session, tenant) == ["webhook_endpoint.replay"] * 3


def test_an_endpoint_is_tested_switched_off_and_on(operator: Browser, session: Session, tenant: Tenant) -> None:
    endpoint = _endpoint(session, tenant)
    back = f"/ops/webhooks/{endpoint}"
    assert "A test event is on its way" in operator.act(f"{back}/test", back=back)
    assert "is disabled." in operator.act(f"{back}/switch", status="disabled", back=back)
    page = operator.get(back).text
    assert "Enable</button>" in page
    assert "Send a test event" not in page
    assert "is disabled" in operator.get("/ops").text
    assert "is active." in operator.act(f"{back}/switch", status="active", back=back)
    assert "Input should be" in operator.act(f"{back}/switch", status="x", back=back)
    assert _audited(session, tenant) == ["webhook_endpoint.test", "webhook_endpoint.change", "webhook_endpoint.change"]


def test_the_follow_up_of_unlogged_mail_is_hurried(
    operator: Browser, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    rows = [
        Followup(message_ids=[_failed(session, who)], tries=3, due_at=later, error="no table")
        for who in (tenant, other_tenant)
    ]
    session.add_all(rows)
    session.commit()
    assert operator.get("/ops/stuck").text.count("no table") == 1
    operator.act("/ops/stuck/log-now", back="/ops/stuck")
    for row in rows:
        session.refresh(row)
    assert rows[0].due_at <= datetime.now(UTC)
    assert rows[1].due_at == later
    assert _audited(session, tenant) == ["followup.retried"]
    session.query(Followup).delete()
    session.query(EmailLog).delete()
    session.commit()


def test_overdue_mail_names_what_it_waits_for(operator: Browser, session: Session, tenant: Tenant) -> None:
    mailer_id = add_mailer(session, tenant, name="Slow box", status="paused")
    add_message(session, tenant, mailer_id=mailer_id, due_at=datetime.now(UTC) - timedelta(minutes=7))
    page = operator.get("/ops/stuck").text
    assert "Overdue in the queue" in page
    assert "7 m" in page


def test_nothing_stuck_is_said_calmly(operator: Browser) -> None:
    assert "Nothing is stuck." in operator.get("/ops/stuck").text
    assert "Nothing waits for you." in operator.get("/ops").text
