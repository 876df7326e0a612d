"""The dashboard as a person uses it: a real browser on a running stack."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from api_shim.ops.pages import SECTIONS
from api_shim.ops.words import count
from tests.conftest import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.browser]

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
PAGES = ["/queues/send.normal?check=1", "/messages?state=sent&preview=cancel", "?window=24h"]
"""Beside one page of each section."""
FIGURES = ("ready", "scheduled", "in_flight", "uncertain", "failed")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing; the browser tests must run here")
        pytest.skip(f"{CHROMIUM} is missing; install chromium to run the browser tests")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page whose complaints and requests are kept."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.page: Page = context.new_page()
        self.origin = origin
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("dialog", lambda dialog: dialog.accept())

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self.origin):
            self.strangers.append(request.url)

    def log_in(self, key: str, path: str = "/ops") -> Page:
        self.page.goto(self.origin + path)
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("navigation")).to_be_visible()
        return self.page

    def is_clean(self) -> None:
        assert self.complaints == []
        assert self.strangers == []


@pytest.fixture
def watched(chromium: Browser, stack: Stack, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Somebody at a desk; at a phone where the test is given ``PHONE``."""
    viewport: ViewportSize = getattr(request, "param", WIDE)
    context = chromium.new_context(viewport=viewport)
    yield Watched(context, stack.json["api"])
    context.close()


@pytest.fixture
def desk(watched: Watched, stack: Stack) -> Watched:
    """Somebody who is logged in."""
    watched.log_in(stack.json["api_key"])
    return watched


def _send(stack: Stack, to: str, subject: str = "Offer", **more: Any) -> str:
    """Sends one mail; returns its message id."""
    content = stack.json
    body = {
        "from": {"email": content["from"]}, "to": [{"email": to}], "subject": subject, "settings": {},
        "process_email_inbulk": False, "mailer_id": content["mailer_id"],
        "content": [
            {"type": "text/plain", "value": "Good day"},
            {"type": "text/html", "value": "<p>Good <b>day</b></p><script>alert(1)</script><img src='https://t.test/x.png'>"},
        ],
    }  # fmt: skip
    answer = requests.post(f"{content['api']}/v1/email/send", json=body | more, headers=stack.auth, timeout=60)
    assert answer.status_code == 202, answer.text
    listed = requests.get(
        f"{content['api']}/v1/messages", params={"ref_id": answer.json()["ref_id"]}, headers=stack.auth, timeout=60
    )
    return str(listed.json()["data"][0]["id"])


def _state(stack: Stack, message_id: str) -> str:
    answer = requests.get(f"{stack.json['api']}/v1/messages/{message_id}", headers=stack.auth, timeout=60)
    return str(answer.json()["state"])


def _later() -> str:
    return (datetime.now(UTC) + timedelta(hours=2)).isoformat()


def _depths(stack: Stack) -> dict[str, Any]:
    queues: dict[str, Any] = requests.get(f"{stack.json['api']}/v1/ops/queues", headers=stack.auth, timeout=60).json()[
        "queues"
    ]
    return queues


def test_the_cards_show_what_the_api_says(desk: Watched, stack: Stack) -> None:
    _send(stack, "card@example.com", send_at=_later())
    page = desk.page
    expect(page.locator(".card")).to_have_count(4)
    expect(page.locator("#pulse")).to_have_text("live")

    def shown() -> dict[str, list[int]]:
        places = "els => Object.fromEntries(els.map(el => [el.dataset.live, el.textContent]))"
        texts = page.eval_on_selector_all("[data-live]", places)
        numbers = {place: int(re.sub(r"\D", "", text) or 0) for place, text in texts.items()}
        return {queue: [numbers[f"{queue}/{name}"] for name in FIGURES] for queue in _depths(stack)}

    def true() -> dict[str, list[int]]:
        return {queue: [depth[name] for name in FIGURES] for queue, depth in _depths(stack).items()}

    wait_until(lambda: shown() == true(), f"the cards {shown()} show what the API says, {true()}")
    assert true()["send.normal"][1] >= 1
    desk.is_clean()


def test_the_figures_live_without_moving_anything(desk: Watched, stack: Stack) -> None:
    page = desk.page
    scheduled = page.locator('[data-live="send.normal/scheduled"]')
    expect(page.locator("#pulse:not(.wait)")).to_be_visible()
    places = "[...document.querySelectorAll('.card, .card dt, h1')].map(one => Object.values(one.getBoundingClientRect().toJSON()))"
    at_first = page.evaluate(places)
    _send(stack, "live@example.com", send_at=_later())
    wait_until(
        lambda: scheduled.inner_text() == count(_depths(stack)["send.normal"]["scheduled"]),
        "the card shows the new mail",
    )
    page.wait_for_timeout(5500)  # longer than charts and the list of matters wait for their turn
    assert page.evaluate(places) == at_first
    desk.is_clean()


def test_without_a_stream_the_page_asks(watched: Watched, stack: Stack) -> None:
    watched.page.route("**/ops/live", lambda route: route.fulfill(status=204))
    page = watched.log_in(stack.json["api_key"])
    expect(page.locator("#pulse:not(.wait)")).to_have_text("live", timeout=60_000)
    watched.is_clean()


def test_a_message_page_is_reached_by_its_search_and_shows_the_mail(desk: Watched, stack: Stack) -> None:
    message_id = _send(stack, "look@example.com", "<b>Offer</b>")
    wait_until(lambda: _state(stack, message_id) == "sent", "the mail is sent")
    page = desk.page
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type(message_id)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="<b>Offer</b>")).to_be_visible()
    expect(page.get_by_text("attempt 1")).to_be_visible()
    mail = page.frame_locator("iframe")
    expect(mail.locator("b")).to_have_text("day")
    assert mail.locator("script").count() == 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the source").click()
    assert "Good day" in Path(download.value.path()).read_text()
    desk.is_clean()


def test_a_scheduled_message_is_cancelled_with_one_button(desk: Watched, stack: Stack) -> None:
    message_id = _send(stack, "cancel@example.com", send_at=_later())
    page = desk.page
    page.goto(f"{desk.origin}/ops/messages?to=cancel@example.com")
    page.get_by_role("link", name="cancel@example.com").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Cancelled. It will not be sent.")
    assert _state(stack, message_id) == "cancelled"
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    desk.is_clean()


def test_a_queue_is_stopped_and_its_mail_explains_itself(desk: Watched, stack: Stack) -> None:
    page = desk.page
    page.goto(f"{desk.origin}/ops/queues/send.normal")
    page.get_by_label("Why it is paused").fill("the relay moves")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("send.normal is paused")
    message_id = _send(stack, "waits@example.com")
    page.goto(f"{desk.origin}/ops/messages/{message_id}")
    expect(page.get_by_text("has been paused for")).to_contain_text("the relay moves")
    page.goto(f"{desk.origin}/ops")
    expect(page.locator('[data-live="send.normal/stands"]')).to_have_text("paused")
    page.goto(f"{desk.origin}/ops/queues")
    page.get_by_role("button", name="Resume").click()
    wait_until(lambda: _state(stack, message_id) == "sent", "the mail is sent after all")
    desk.is_clean()


def test_a_conversation_is_read_from_its_mail(desk: Watched, stack: Stack) -> None:
    message_id = _send(stack, "talk@example.com", "Our talk")
    wait_until(lambda: _state(stack, message_id) == "sent", "the mail is sent")
    page = desk.page
    page.goto(f"{desk.origin}/ops/threads?participant=talk@example.com")
    wait_until(
        lambda: bool(page.reload()) and page.get_by_role("link", name="Our talk").count() > 0, "the log is written"
    )
    page.get_by_role("link", name="Our talk").first.click()
    page.get_by_role("link", name="the mail and its log").click()
    expect(page).to_have_url(re.compile(message_id))
    desk.is_clean()


@pytest.mark.parametrize("watched", [WIDE, PHONE], indirect=True, ids=["desk", "phone"])
def test_no_page_scrolls_sideways_or_complains(desk: Watched, stack: Stack) -> None:
    message_id = _send(stack, f"{'a-long-name-' * 5}@example.com", "A subject that goes on and on " * 8)
    for path in [*(address for address, _ in SECTIONS), *PAGES, f"/messages/{message_id}"]:
        desk.page.goto(f"{desk.origin}/ops{path}")
        expect(desk.page.get_by_role("main")).to_be_visible()
        assert desk.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        expect(desk.page.locator('nav [aria-current="page"]')).to_have_count(1)
    desk.is_clean()


def test_the_pages_are_reached_by_keyboard_and_show_where_one_is(desk: Watched) -> None:
    page = desk.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    messages = page.get_by_role("link", name="Messages", exact=True)
    expect(messages).to_be_focused()
    assert messages.evaluate("el => getComputedStyle(el).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(messages).to_have_attribute("aria-current", "page")
    desk.is_clean()


def test_leaving_ends_the_session(desk: Watched) -> None:
    desk.page.get_by_role("button", name="Log out").click()
    expect(desk.page.get_by_label("API key")).to_be_visible()
    desk.page.goto(f"{desk.origin}/ops/messages")
    expect(desk.page).to_have_url(f"{desk.origin}/ops/login?next=%2Fops%2Fmessages")
    desk.is_clean()
