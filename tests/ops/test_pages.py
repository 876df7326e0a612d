"""What the pages show and what their buttons do, on rows as the workers leave them."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from sqlalchemy.orm import Session

from api_shim.ops.settings import SHOWN
from api_shim.services import Services
from models.base import ulid, uuid7
from models.blob import Blob
from models.content import AttachmentRef, SendSettings
from models.event import Event
from models.mailer import Suppression
from models.message import Campaign, Followup, Message
from models.webhook import WebhookDelivery
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_inbound, add_mailer, add_thread
from tests.ops.conftest import HELD, Browser, add_endpoint, add_failed, add_message, fresh

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_d6_the_overview_has_a_card_for_each_queue_with_its_true_figures(
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
    failed = add_failed(session, tenant)
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
def test_a45_a_filter_finds_its_messages_and_no_others(
    operator: Browser, session: Session, tenant: Tenant, field: str, value: str
) -> None:
    wanted = add_failed(session, tenant, campaign_id="spring", request_id="req-7", provider_message_id="provider-7")
    other = add_message(session, tenant, recipients=["other@example.com"])
    row = fresh(session, wanted)
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
    shared = add_failed(session, tenant, recipients=["bob@example.com", "ada@example.com"])
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
    message_id = add_failed(session, tenant, created_at=datetime.now(UTC) - timedelta(seconds=90))
    event = Event(
        id=uuid7(), workspace_id=tenant.workspace_id, cursor=1, seq=1, type="failed", message_id=message_id, recipients=[],
        data={"reason": "gone"}, at=datetime.now(UTC),
    )  # fmt: skip
    endpoint = add_endpoint(session, tenant)
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
    assert "left out because they come from elsewhere: 4" in operator.get(f"/ops/messages/{message_id}").text


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


def test_files_of_mails_are_saved_from_their_pages_and_never_shown(
    operator: Browser, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    sha256 = hashlib.sha256(EVIL.encode()).hexdigest()
    for owner in (tenant, other_tenant):
        session.add(Blob(workspace_id=owner.workspace_id, sha256=sha256, size=len(EVIL), data=EVIL.encode()))
    session.commit()
    sent = AttachmentRef(sha256=sha256, size=len(EVIL), filename='a"/../b.html', content_type="text/html")
    received = {"sha256": sha256, "name": sent.filename, "mimeType": "text/html", "size": len(EVIL)}
    thread, theirs = add_thread(session, tenant), add_thread(session, other_tenant)
    mail = add_message(session, tenant, content={"attachments": (sent,)})
    inbound = add_inbound(session, tenant, thread, attachments=[received])
    for page, address in (
        (f"/ops/messages/{mail}", f"/ops/messages/{mail}/file?number=0"),
        (f"/ops/threads/{thread}", f"/ops/inbound/{inbound}/file?number=0"),
    ):
        assert f'href="{address}"' in operator.get(page).text
        answer = operator.get(address)
        assert (answer.status_code, answer.text) == (200, EVIL)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''a%22%2F..%2Fb.html"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for number in ("1", "", "-1", "x", "²"):
            assert operator.get(f"{address[:-1]}{number}").status_code == 404
    foreign = add_message(session, other_tenant, content={"attachments": (sent,)})
    strange = add_inbound(session, other_tenant, theirs, attachments=[received])
    assert operator.get(f"/ops/messages/{foreign}/file?number=0").status_code == 404
    assert operator.get(f"/ops/inbound/{strange}/file?number=0").status_code == 404


def test_the_settings_are_shown_without_secrets_and_what_is_inside(operator: Browser, app_services: Services) -> None:
    held = app_services.settings
    page = operator.get("/ops/settings").text
    assert held.retry_seconds in page
    assert held.public_url in page
    hidden = {name for name, field in type(held).model_fields.items() if field.repr is False} | {
        "attachment_root", "webhook_allowed_hosts", "mailer_allowed_hosts", "source_addresses", "dns_servers",
        "inbound_domains", "otel_endpoint", "faults",
    }  # fmt: skip
    shown = {name for names in SHOWN.values() for name in names}
    assert shown.isdisjoint(hidden)
    assert held.keys[0] not in page


def test_hostile_text_is_only_text_on_every_page(operator: Browser, session: Session, tenant: Tenant) -> None:
    message_id = add_message(
        session, tenant, content={"subject": EVIL, "html": None, "text": EVIL}, subject=EVIL, campaign_id=EVIL,
        request_id=EVIL, provider_message_id=EVIL, recipients=[f"{EVIL}@example.com"], **{**HELD, "reason": EVIL},
    )  # fmt: skip
    session.add(Campaign(workspace_id=tenant.workspace_id, id=EVIL))
    mailer_id = add_mailer(session, tenant, name=EVIL, status="reconnect_required", status_reason=EVIL)
    session.add(Suppression(workspace_id=tenant.workspace_id, address=EVIL, reason="manual"))
    endpoint = add_endpoint(session, tenant, url=f"https://x.test/{EVIL}", status_reason=EVIL, status="disabled")
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


def test_overdue_mail_names_what_it_waits_for(operator: Browser, session: Session, tenant: Tenant) -> None:
    mailer_id = add_mailer(session, tenant, name="Slow box", status="paused")
    add_message(session, tenant, mailer_id=mailer_id, due_at=datetime.now(UTC) - timedelta(minutes=7))
    page = operator.get("/ops/stuck").text
    assert "Overdue in the queue" in page
    assert "7 m" in page


def test_nothing_stuck_is_said_calmly(operator: Browser) -> None:
    assert "Nothing is stuck." in operator.get("/ops/stuck").text
    assert "Nothing waits for you." in operator.get("/ops").text
