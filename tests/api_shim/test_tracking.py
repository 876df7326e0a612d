"""Open pixel and click redirect: what is answered, what is counted, and as whom."""

import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from api_shim.visits import Visits
from models.base import uuid7
from models.crm import Contact
from models.event import EventType
from models.mailer import Mailer
from models.message import Message, State, Submission
from models.record import EmailLog
from tests.api_shim.conftest import Tenant
from worker.machines import Visitor, visitor
from worker.tracking import Tracker
from worker.visits import Visit, scanned

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
TARGET = "https://shop.test/a?b=c&d=%7C|^"


@pytest.fixture
def message(session: Session, app_services: Services, tenant: Tenant) -> UUID:
    """A mail sent an hour ago, linked to a contact."""
    return _sent(session, tenant, seconds_ago=3600)


def _sent(
    session: Session, tenant: Tenant, *, seconds_ago: float, recipients: tuple[str, ...] = ("ann@x.test",)
) -> UUID:
    mailer, submission, message, contact = uuid7(), uuid7(), uuid7(), uuid7()
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    workspace = tenant.workspace_id
    session.add_all([
        Mailer(id=mailer, workspace_id=workspace, provider="smtp", name="m", from_addresses=[], domains=[],
               sealed_credentials=b"", hook_token=str(mailer)),
        Contact(id=contact, workspace_id=workspace, email="ann@x.test"),
    ])  # fmt: skip
    session.flush()
    session.add(
        Submission(id=submission, workspace_id=workspace, shape="mailer", priority=0, mailer_id=mailer, campaign_id="NIL",
                   content={}, contact_id=contact, total=1, awaited=False)
    )  # fmt: skip
    session.flush()
    session.add_all([
        Message(id=message, workspace_id=workspace, submission_id=submission, mailer_id=mailer, priority=0,
                state=State.SENT, recipients=list(recipients), rfc_message_id=f"<postroad{message}@x.test>", finished_at=at),
        EmailLog(message_id=message, workspace_id=workspace, submission_id=submission, priority=0, type="single",
                 status="sent", subject="Hello", sender_email="me@x.test", recipient_email=recipients[0],
                 recipients=list(recipients), cc=[], provider="smtp", mailer_id=mailer, contact_id=contact,
                 rfc_message_id=f"<postroad{message}@x.test>", campaign_id="NIL", finished_at=at),
    ])  # fmt: skip
    session.commit()
    return message


def _path(url: str) -> str:
    return url.partition("://")[2].partition("/")[2]


def _open(services: Services, tenant: Tenant, message: UUID) -> str:
    return "/" + _path(services.tracker.open_url(message, tenant.workspace_id))


def _click(services: Services, tenant: Tenant, message: UUID, url: str = TARGET) -> str:
    return "/" + _path(services.tracker.click_url(message, tenant.workspace_id, url))


def _events(api: TestClient, session: Session, message: UUID) -> list[Any]:
    """The events on record, once everything gathered is written."""
    api.app.state.visits.flush(everything=True)  # type: ignore[attr-defined]
    session.rollback()
    return list(session.execute(text("select * from event where message_id = :id order by seq"), {"id": message}))


def _kinds(session: Session, message: UUID) -> list[str]:
    found = session.execute(text("select kind from activity where message_id = :id order by 1"), {"id": message})
    return list(found.scalars())


def test_the_pixel_is_a_gif_that_nobody_keeps(
    api: TestClient, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    answer = api.get(_open(app_services, tenant, message), headers={"User-Agent": FIREFOX})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/gif"
    assert answer.content.startswith(b"GIF89a")
    assert "no-store" in answer.headers["cache-control"]
    assert "set-cookie" not in answer.headers


def test_c16_an_open_is_an_event_and_an_activity_once(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    path = _open(app_services, tenant, message)
    api.get(path, headers={"User-Agent": FIREFOX})
    first = _events(api, session, message)
    api.get(path, headers={"User-Agent": FIREFOX})
    [event, again] = _events(api, session, message)
    assert [event] == first
    assert (event.type, again.type, event.recipients) == ("opened", "opened", ["ann@x.test"])
    assert event.data == {"user_agent": FIREFOX, "is_bot": False, "bot_reason": None}
    assert _kinds(session, message) == ["email_opened"]


def test_c17_a_click_leads_exactly_where_the_author_wrote_and_counts(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    answer = api.get(_click(app_services, tenant, message), headers={"User-Agent": FIREFOX}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, TARGET)
    assert answer.headers["referrer-policy"] == "no-referrer"
    [event] = _events(api, session, message)
    assert (event.type, event.data["url"], event.data["is_bot"]) == ("clicked", TARGET, False)
    assert _kinds(session, message) == ["email_clicked"]


def test_head_is_answered_and_never_counted(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    click = api.head(_click(app_services, tenant, message), headers={"User-Agent": FIREFOX}, follow_redirects=False)
    assert (click.status_code, click.headers["location"]) == (302, TARGET)
    assert api.head(_open(app_services, tenant, message), headers={"User-Agent": FIREFOX}).status_code == 200
    assert _events(api, session, message) == []


def _changed_target(token: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return base64.urlsafe_b64encode(bytes(raw).replace(b"shop.test", b"evil.test")).decode().rstrip("=")


def _flipped(token: str) -> str:
    return token[:10] + ("A" if token[10] != "A" else "B") + token[11:]


@pytest.mark.parametrize(
    "forge",
    [
        _changed_target,
        _flipped,
        lambda token: token[:-4],
        lambda token: token + "=",
        lambda _: "x",
        lambda _: "https:%2F%2Fevil.test",
        lambda _: "%2F%2Fevil.test",
        lambda _: "javascript:alert(1)",
        lambda _: "%00",
        lambda _: "%ED%A0%80",
        lambda _: "a" * 20_000,
    ],
)
def test_no_forged_link_leads_anywhere(
    api: TestClient, app_services: Services, tenant: Tenant, message: UUID, forge: Any
) -> None:
    token = _click(app_services, tenant, message).removeprefix("/t/c/")
    answer = api.get(f"/t/c/{forge(token)}", follow_redirects=False)
    assert answer.status_code == 404
    assert "location" not in answer.headers


def test_a_token_of_another_purpose_or_another_key_is_404(
    api: TestClient, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    foreign = Tracker("http://x.test", b"another secret of 16 bytes").click_url(message, tenant.workspace_id, TARGET)
    assert api.get("/" + _path(foreign), follow_redirects=False).status_code == 404
    token = _open(app_services, tenant, message).removeprefix("/t/o/")
    answer = api.get(f"/t/c/{token}", headers={"Accept-Language": "de"}, follow_redirects=False)
    assert answer.status_code == 404
    assert "Dieser Link ist ungültig" in answer.text


def test_another_tenants_message_is_not_counted(
    api: TestClient, session: Session, app_services: Services, other_tenant: Tenant, message: UUID
) -> None:
    """Such a token cannot be made from outside; it would still count for nobody."""
    api.get(_open(app_services, other_tenant, message), headers={"User-Agent": FIREFOX})
    assert _events(api, session, message) == []


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"User-Agent": FIREFOX}, None),
        ({"User-Agent": GMAIL}, None),
        ({"User-Agent": "Mozilla/5.0 (Linux; Android 9; CUBOT X19) Chrome/120 Mobile"}, None),
        ({"User-Agent": ""}, "no_user_agent"),
        ({"User-Agent": FIREFOX, "Sec-Purpose": "prefetch;prerender"}, "prefetch"),
        ({"User-Agent": FIREFOX, "Purpose": "prefetch"}, "prefetch"),
        ({"User-Agent": FIREFOX, "X-Moz": "prefetch"}, "prefetch"),
        ({"User-Agent": "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"}, "user_agent"),
        ({"User-Agent": "Barracuda Sentinel (EE)"}, "user_agent"),
        ({"User-Agent": "python-requests/2.34"}, "user_agent"),
        ({"User-Agent": "curl/8.5.0"}, "user_agent"),
        ({"User-Agent": "Mozilla/5.0 HeadlessChrome/120"}, "user_agent"),
        ({"User-Agent": "facebookexternalhit/1.1"}, "user_agent"),
    ],
)
def test_machines_are_told_from_people_by_what_they_say(headers: dict[str, str], reason: str | None) -> None:
    assert visitor({name.lower(): value for name, value in headers.items()}).reason == reason


@pytest.mark.parametrize(("agent", "proxy"), [(GMAIL, "gmail"), ("Mozilla/5.0", "apple_mail_privacy"), (FIREFOX, None)])
def test_an_image_proxy_is_named_and_counts_as_a_person(agent: str, proxy: str | None) -> None:
    found = visitor({"user-agent": agent})
    assert (found.proxy, found.data()["is_bot"]) == (proxy, False)


@pytest.mark.parametrize(("seconds", "is_bot"), [(1.0, True), (60.0, False)])
def test_whoever_opens_right_after_sending_is_a_machine(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, seconds: float, is_bot: bool
) -> None:
    message = _sent(session, tenant, seconds_ago=seconds)
    api.get(_open(app_services, tenant, message), headers={"User-Agent": FIREFOX})
    [event] = _events(api, session, message)
    assert event.data["is_bot"] is is_bot
    assert _kinds(session, message) == ([] if is_bot else ["email_opened"])


def test_whoever_follows_every_link_at_once_is_a_machine_from_the_first_click_on(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    for number in range(4):
        path = _click(app_services, tenant, message, f"https://shop.test/{number}")
        api.get(path, headers={"User-Agent": FIREFOX}, follow_redirects=False)
    events = _events(api, session, message)
    assert [event.data["bot_reason"] for event in events] == ["many_links_at_once"] * 4
    assert _kinds(session, message) == []


def test_clicks_on_links_one_after_another_are_a_persons() -> None:
    first = Visit(
        type=EventType.CLICKED, workspace_id=uuid4(), message_id=uuid4(), at=datetime.now(UTC),
        visitor=Visitor(user_agent=FIREFOX), url="https://a.test/",
    )  # fmt: skip
    slow = [replace(first, at=first.at + timedelta(seconds=3 * n), url=f"https://a.test/{n}") for n in range(5)]
    same = [replace(first, at=first.at + timedelta(seconds=0.1 * n)) for n in range(5)]
    assert scanned(slow) == scanned(same) == set()


def test_an_open_reaches_the_database_by_itself_within_a_second_or_so(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    api.get(_open(app_services, tenant, message), headers={"User-Agent": FIREFOX})
    deadline = time.monotonic() + 60
    while not session.execute(text("select 1 from event where message_id = :id"), {"id": message}).all():
        assert time.monotonic() < deadline
        session.rollback()
        time.sleep(0.05)


def test_many_repeats_of_one_open_are_one_event(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    visits: Visits = api.app.state.visits  # type: ignore[attr-defined]
    visit = Visit(
        type=EventType.OPENED, workspace_id=tenant.workspace_id, message_id=message, at=datetime.now(UTC),
        visitor=Visitor(user_agent=FIREFOX),
    )  # fmt: skip
    for _ in range(100):
        visits.add(visit)
    assert 1 <= len(_events(api, session, message)) <= 2  # the thread may have written in between


@pytest.fixture
def nobody_home() -> Iterator[Visits]:
    """Visits whose database does not answer."""
    engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 1})
    visits = Visits(engine, lambda _: None)
    visits.start()
    yield visits
    visits.close()
    engine.dispose()


def test_a_redirect_works_while_the_database_is_away_and_is_written_when_it_is_back(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID, nobody_home: Visits
) -> None:
    state = api.app.state  # type: ignore[attr-defined]
    kept, state.visits = state.visits, nobody_home
    try:
        started = time.monotonic()
        answer = api.get(_click(app_services, tenant, message), headers={"User-Agent": FIREFOX}, follow_redirects=False)
        assert (answer.status_code, time.monotonic() - started < 30) == (302, True)
        nobody_home.flush(everything=True)
        nobody_home._engine.dispose()
        nobody_home._engine = app_services.engine
        nobody_home.flush(everything=True)
    finally:
        state.visits = kept
    assert [event.type for event in _events(api, session, message)] == ["clicked"]
