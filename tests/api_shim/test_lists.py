"""Lists of mail end to end: named by a submission, left by a link, kept apart; and being watched, or not."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api_shim.auth import SCOPES, issue_key
from api_shim.services import Services
from models.content import SendSettings
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.conftest import Tenant, as_caller
from tests.api_shim.test_shapes import MAILER, faults, parse
from tests.api_shim.test_tracking import TARGET, _path
from tests.worker.house import House
from worker.settings import Settings

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
NEWS = SendSettings(unsubscribe=True, list_id="news")
OFFERS = SendSettings(unsubscribe=True, list_id="offers")
WATCHED = SendSettings(open_tracking=True, click_tracking=True, unsubscribe=True)
LINKED = '<p><a href="https://shop.demo.test/">Shop</a></p>'


@pytest.fixture
def house(api: TestClient, settings: Settings) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings, server)
        yield opened
        opened.close()


@pytest.fixture
def owner(api: TestClient, app_services: Services, house: House) -> TestClient:
    """Calls as the house's workspace."""
    with app_services.sessions() as session:
        _, key = issue_key(
            session, workspace_id=house.workspace_id, name="test", scopes=SCOPES, pepper=app_services.peppers[0]
        )
        session.commit()
    return as_caller(api, key)


def mails(house: House) -> list[EmailMessage]:
    """What came, oldest first."""
    found = [message_from_bytes(one.data, policy=policy.default) for one in house.server.received]
    assert all(isinstance(mail, EmailMessage) for mail in found)
    return [mail for mail in found if isinstance(mail, EmailMessage)]


def link_of(mail: EmailMessage) -> str:
    return "/" + _path(re.sub(r"\s", "", mail["List-Unsubscribe"]).strip("<>"))


def state_after(house: House, settings: SendSettings, recipient: str = "ann@example.com", **fields: Any) -> str:
    accepted = house.submit(recipient, settings=settings, **fields)
    house.deliver_all()
    return str(house.message(accepted).state)


def test_a_submission_names_its_list() -> None:
    body = MAILER | {"settings": {"unsubscribe": {"enable": True, "list_id": "weekly-news.en"}}}
    assert parse(body).settings == SendSettings(unsubscribe=True, list_id="weekly-news.en")
    for wrong in ("$tracking", "two words", ".news", "a" * 65, 7):
        body = MAILER | {"settings": {"unsubscribe": {"list_id": wrong}}}
        assert list(faults(body)) == ["settings.unsubscribe.list_id"]


def test_a_mail_of_a_list_says_so_and_keeps_an_own_list_id(house: House) -> None:
    state_after(house, NEWS)
    state_after(house, NEWS, headers={"List-Id": "<own.demo.test>"})
    state_after(house, SendSettings(unsubscribe=True))
    assert [mail["List-Id"] for mail in mails(house)] == ["<news.demo.test>", "<own.demo.test>", None]


def test_c20_one_click_leaves_that_list_only_and_resubscribing_returns_to_it(api: TestClient, house: House) -> None:
    state_after(house, NEWS)
    link = link_of(mails(house)[0])
    assert api.post(link, data=ONE_CLICK).status_code == 200
    assert state_after(house, NEWS) == "suppressed"
    assert state_after(house, NEWS, "Ann@Example.com") == "suppressed"
    assert state_after(house, OFFERS) == state_after(house, SendSettings()) == "sent"
    assert api.post(link, data={"action": "resubscribe"}).status_code == 200
    assert state_after(house, NEWS) == "sent"


def test_the_reason_names_the_list(house: House, owner: TestClient) -> None:
    owner.post("/v1/suppressions", json={"address": "ann@example.com", "list_id": "news", "reason": "unsubscribe"})
    accepted = house.submit("ann@example.com", settings=NEWS)
    house.deliver_all()
    assert house.message(accepted).reason == "on the suppression list of news: unsubscribe"


def test_the_page_of_a_list_offers_to_leave_everything_and_takes_it_back(api: TestClient, house: House) -> None:
    state_after(house, NEWS)
    state_after(house, SendSettings(unsubscribe=True))
    listed, unlisted = map(link_of, mails(house))
    assert 'value="unsubscribe_all"' in api.get(listed).text
    assert 'value="unsubscribe_all"' not in api.get(unlisted).text
    assert "mails of this sender" in api.post(listed, data={"action": "unsubscribe_all"}).text
    assert state_after(house, OFFERS) == state_after(house, SendSettings()) == "suppressed"
    api.post(listed, data={"action": "resubscribe"})
    assert state_after(house, NEWS) == state_after(house, OFFERS) == "sent"


def test_what_a_person_or_a_bounce_suppressed_no_link_takes_back(
    api: TestClient, house: House, owner: TestClient
) -> None:
    state_after(house, NEWS)
    owner.post("/v1/suppressions", json={"address": "ann@example.com", "reason": "hard_bounce"})
    api.post(link_of(mails(house)[0]), data={"action": "resubscribe"})
    assert state_after(house, NEWS) == "suppressed"


def test_in_a_shared_mail_only_who_left_the_list_is_left_out(house: House, owner: TestClient) -> None:
    owner.post("/v1/suppressions", json={"address": "bob@example.com", "list_id": "news"})
    accepted = house.submit(
        "ann@example.com", "bob@example.com", individual=False, settings=SendSettings(list_id="news")
    )
    house.deliver_all()
    assert house.message(accepted).state == "sent"
    assert house.server.received[0].recipients == ("ann@example.com",)


def test_lists_are_imported_and_exported(house: House, owner: TestClient) -> None:
    rows = b"address,reason,list_id\r\nann@example.com,unsubscribe,news\r\nann@example.com,manual,offers\r\n"
    answer = owner.post("/v1/suppressions/import", content=rows, headers={"Content-Type": "text/csv"})
    assert answer.json()["added"] == 2
    exported = owner.get("/v1/suppressions/export", params={"format": "csv", "list_id": "news"})
    assert exported.content == b"address,reason,list_id\r\nann@example.com,unsubscribe,news\r\n"
    assert (state_after(house, NEWS), state_after(house, OFFERS)) == ("suppressed", "suppressed")
    assert owner.delete("/v1/suppressions", params={"address": "ann@example.com", "list_id": "news"}).status_code == 204
    assert (state_after(house, NEWS), state_after(house, OFFERS)) == ("sent", "suppressed")


def test_a_dry_run_says_who_left_the_list(house: House, owner: TestClient) -> None:
    owner.post("/v1/suppressions", json={"address": "ann@example.com", "list_id": "news"})
    for list_id, expected in (("news", [{"email": "ann@example.com", "reason": "manual"}]), ("offers", [])):
        body = MAILER | {
            "from": {"email": "hello@demo.test"}, "to": [{"email": "Ann@example.com"}], "dry_run": True,
            "mailer_id": str(house.mailer_id), "settings": {"unsubscribe": {"enable": True, "list_id": list_id}},
        }  # fmt: skip
        assert owner.post("/v1/email/send", json=body).json()["suppressed"] == expected


def html_of(mail: EmailMessage) -> str:
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content())


def test_c16_c17_who_does_not_want_to_be_watched_gets_mail_without_pixel_and_tracked_links(
    api: TestClient, house: House
) -> None:
    state_after(house, WATCHED, html=LINKED)
    before = mails(house)[0]
    assert "/t/o/" in html_of(before)
    assert "/t/c/" in html_of(before)
    page = api.get(link_of(before)).text
    assert 'value="untrack"' in page
    assert "no longer measured" in api.post(link_of(before), data={"action": "untrack"}).text
    assert state_after(house, WATCHED, html=LINKED) == "sent"
    after = html_of(mails(house)[1])
    assert ("/t/o/" in after, "/t/c/" in after) == (False, False)
    assert 'href="https://shop.demo.test/"' in after
    assert "/t/u/" in after
    state_after(house, WATCHED, "bob@example.com", html=LINKED)
    assert "/t/o/" in html_of(mails(house)[2])


def test_a_mail_that_several_share_is_watched_only_if_nobody_minds(house: House, owner: TestClient) -> None:
    owner.post("/v1/suppressions", json={"address": "bob@example.com", "list_id": "$tracking"})
    shared = SendSettings(open_tracking=True, click_tracking=True)
    house.submit("ann@example.com", "bob@example.com", individual=False, settings=shared, html=LINKED)
    house.submit("ann@example.com", "cat@example.com", individual=False, settings=shared, html=LINKED)
    house.deliver_all()
    assert ["/t/o/" in html_of(mail) for mail in mails(house)] == [False, True]


def test_not_to_be_watched_is_no_suppression_and_is_only_taken_back_by_name(house: House, owner: TestClient) -> None:
    for list_id in ("$tracking", "news"):
        owner.post("/v1/suppressions", json={"address": "ann@example.com", "list_id": list_id})
    owner.delete("/v1/suppressions", params={"address": "ann@example.com"})
    left = owner.get("/v1/suppressions", params={"address": "ann@example.com"}).json()["data"]
    assert [row["list_id"] for row in left] == ["$tracking"]
    assert state_after(house, NEWS) == "sent"
    wanted = {"address": "ann@example.com", "list_id": "$tracking"}
    assert owner.delete("/v1/suppressions", params=wanted).status_code == 204


@pytest.mark.parametrize("kind", ["open", "click"])
def test_s9_a_link_older_than_links_may_be_is_gone(
    api: TestClient, app_services: Services, settings: Settings, tenant: Tenant, kind: str
) -> None:
    kept, app_services.settings = app_services.settings, settings.model_copy(update={"link_days": 30.0})
    try:
        answers = [api.get(_tracked(app_services, tenant, days, kind), follow_redirects=False) for days in (29, 31)]
    finally:
        app_services.settings = kept
    assert [answer.status_code for answer in answers] == [200 if kind == "open" else 302, 410]
    assert "expired" in answers[1].text
    assert "location" not in answers[1].headers
    assert api.get(_tracked(app_services, tenant, 9999, kind), follow_redirects=False).status_code < 400


def test_a_link_to_unsubscribe_never_expires(
    api: TestClient, app_services: Services, settings: Settings, tenant: Tenant
) -> None:
    kept, app_services.settings = app_services.settings, settings.model_copy(update={"link_days": 1.0})
    try:
        url = app_services.tracker.unsubscribe_url(_made(400), tenant.workspace_id, "ann@example.com")
        assert api.get("/" + _path(url)).status_code == 200
    finally:
        app_services.settings = kept


def _made(days_ago: float) -> UUID:
    """The id of a message so old."""
    millis = int((datetime.now(UTC) - timedelta(days=days_ago)).timestamp() * 1000)
    return UUID(int=(millis << 80) | (0x7 << 76) | (0x2 << 62) | 1)


def _tracked(services: Services, tenant: Tenant, days_ago: float, kind: str) -> str:
    message, workspace = _made(days_ago), tenant.workspace_id
    url = (
        services.tracker.open_url(message, workspace)
        if kind == "open"
        else services.tracker.click_url(message, workspace, TARGET)
    )
    return "/" + _path(url)
