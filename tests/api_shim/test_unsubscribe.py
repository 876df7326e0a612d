"""The unsubscribe page and one click: what acts, what does not, and in which language."""

import base64
import hashlib
import re
from email import message_from_bytes, policy
from html.parser import HTMLParser
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.app import create_app
from api_shim.services import Services
from api_shim.unsubscribe_page import WORDS, language_of
from models.content import SendSettings
from models.mailer import Suppression
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.conftest import Tenant
from tests.api_shim.test_tracking import _path, _sent
from tests.worker.house import House
from worker.settings import Settings

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def message(session: Session, tenant: Tenant) -> UUID:
    return _sent(session, tenant, seconds_ago=3600, recipients=("Ann@x.test",))


@pytest.fixture
def path(app_services: Services, tenant: Tenant, message: UUID) -> str:
    return "/" + _path(app_services.tracker.unsubscribe_url(message, tenant.workspace_id, "Ann@x.test"))


def _listed(session: Session, tenant: Tenant) -> dict[str, str]:
    session.rollback()
    found = session.query(Suppression).filter_by(workspace_id=tenant.workspace_id)
    return {f"{row.address}{'@' + row.list_id if row.list_id else ''}": row.reason for row in found}


def _events(session: Session, message: UUID) -> list[str]:
    session.rollback()
    return list(session.execute(text("select type from event where message_id = :id"), {"id": message}).scalars())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_at_the_page_changes_nothing(
    api: TestClient, session: Session, tenant: Tenant, message: UUID, path: str, method: str
) -> None:
    answer = api.request(method, path, params={"action": "unsubscribe", **ONE_CLICK})
    assert answer.status_code == 200
    assert (_listed(session, tenant), _events(session, message)) == ({}, [])


@pytest.mark.parametrize("multipart", [False, True])
def test_one_click_acts_in_either_encoding(
    api: TestClient, session: Session, tenant: Tenant, message: UUID, path: str, multipart: bool
) -> None:
    boundary = '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
    answer = (
        api.post(path, content=boundary, headers={"Content-Type": "multipart/form-data; boundary=b"})
        if multipart
        else api.post(path, data=ONE_CLICK)
    )
    assert answer.status_code == 200
    assert not answer.history
    assert "set-cookie" not in answer.headers
    assert _listed(session, tenant) == {"ann@x.test": "unsubscribe"}
    assert _events(session, message) == ["unsubscribed"]


def test_repeating_it_changes_nothing_more(
    api: TestClient, session: Session, tenant: Tenant, message: UUID, path: str
) -> None:
    for _ in range(3):
        assert api.post(path, data={"action": "unsubscribe"}).status_code == 200
    assert _listed(session, tenant) == {"ann@x.test": "unsubscribe"}
    assert _events(session, message) == ["unsubscribed"]


@pytest.mark.parametrize(
    "form", [{}, {"action": "delete"}, {"List-Unsubscribe": "maybe"}, {"x": "y" * 100_000}, {"action": "\0"}]
)
def test_a_post_that_asks_for_nothing_does_nothing(
    api: TestClient, session: Session, tenant: Tenant, path: str, form: dict[str, str]
) -> None:
    assert api.post(path, data=form).status_code == 400
    assert _listed(session, tenant) == {}


def test_resubscribing_takes_back_only_what_the_recipient_did(
    api: TestClient, session: Session, tenant: Tenant, path: str
) -> None:
    assert "resubscribe" in api.post(path, data=ONE_CLICK).text
    assert api.post(path, data={"action": "resubscribe"}).status_code == 200
    assert _listed(session, tenant) == {}
    session.add(Suppression(workspace_id=tenant.workspace_id, address="ann@x.test", reason="complaint"))
    session.commit()
    api.post(path, data={"action": "resubscribe"})
    assert _listed(session, tenant) == {"ann@x.test": "complaint"}


def test_a_list_is_left_without_leaving_the_others(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant, message: UUID
) -> None:
    url = app_services.tracker.unsubscribe_url(message, tenant.workspace_id, "Ann@x.test", "news")
    api.post("/" + _path(url), data=ONE_CLICK)
    assert _listed(session, tenant) == {"ann@x.test@news": "unsubscribe"}


def test_a_shared_mails_page_asks_for_the_address_and_acts_only_for_its_recipients(
    api: TestClient, session: Session, app_services: Services, tenant: Tenant
) -> None:
    message = _sent(session, tenant, seconds_ago=9, recipients=("ann@x.test", "Bob@x.test"))
    path = "/" + _path(app_services.tracker.unsubscribe_url(message, tenant.workspace_id, ""))
    page = api.get(path).text
    assert 'type="email"' in page
    assert "x.test" not in page
    assert api.post(path, data=ONE_CLICK).status_code == 400
    stranger = api.post(path, data={"action": "unsubscribe", "address": "eve@x.test"})
    assert _listed(session, tenant) == {}
    known = api.post(path, data={"action": "unsubscribe", "address": " bob@X.test"})
    assert _listed(session, tenant) == {"bob@x.test": "unsubscribe"}
    assert stranger.text.replace("eve@x.test", "") == known.text.replace("bob@X.test", "")
    api.post(path, data={"action": "resubscribe", "address": "bob@x.test"})
    assert _listed(session, tenant) == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forged_token_is_404(api: TestClient, path: str, method: str) -> None:
    assert api.request(method, path[:-2], data=ONE_CLICK).status_code == 404
    assert api.request(method, path.replace("/t/u/", "/t/c/"), follow_redirects=False).status_code in (404, 405)


class _Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_stands_alone_under_a_strict_policy(api: TestClient, path: str) -> None:
    answer = api.get(path)
    outline = _Outline()
    outline.feed(answer.text)
    assert not [tag for tag, attributes in outline.tags if {"src", "href", "style", "onclick"} & attributes.keys()]
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in outline.tags}
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_style_is_the_one_that_the_policy_allows(api: TestClient, path: str) -> None:
    answer = api.get(path)
    found = re.search("<style>(.*?)</style>", answer.text, re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]


def test_an_address_cannot_write_html(api: TestClient, app_services: Services, tenant: Tenant, message: UUID) -> None:
    address = '"<script>alert(1)</script>"@x.test'
    url = app_services.tracker.unsubscribe_url(message, tenant.workspace_id, address)
    assert "<script" not in api.get("/" + _path(url)).text
    shared = "/" + _path(app_services.tracker.unsubscribe_url(message, tenant.workspace_id, ""))
    assert "<script" not in api.post(shared, data={"action": "unsubscribe", "address": address}).text


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de-CH", "de"),
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("en;q=0.5, nl;q=0.9", "nl"),
        ("ja, pt-BR;q=0.3", "pt"),
        ("ja,ko", "en"),
        ("de;q=0, it", "it"),
        ("es;q=x,;;q=1,*", "en"),
    ],
)
def test_the_page_speaks_the_readers_language(api: TestClient, path: str, accepted: str, language: str) -> None:
    assert language_of(accepted) == language
    answer = api.get(path, headers={"Accept-Language": accepted})
    assert f'<html lang="{language}">' in answer.text
    assert answer.headers["content-language"] == language


def test_every_language_says_everything() -> None:
    for words in WORDS.values():
        for name in ("ask", "done", "done_if", "back"):
            assert "{address}" in getattr(words, name)
    assert len({words.ask for words in WORDS.values()}) == len(WORDS)


def test_it_says_so_when_the_database_is_away(api: TestClient, app_services: Services, path: str) -> None:
    kept, app_services.engine = (
        app_services.engine,
        create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 1}),
    )
    try:
        assert api.get(path).status_code == 200
        answer = api.post(path, data=ONE_CLICK)
    finally:
        app_services.engine = kept
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


def test_c20_the_link_of_a_mail_that_went_out_ends_the_mails(settings: Settings) -> None:
    wanted = SendSettings(unsubscribe=True)
    with SmtpEmulator() as server, TestClient(create_app(settings)) as api:
        house = House(settings, server)
        house.submit("ann@example.com", settings=wanted)
        house.deliver_all()
        mail = message_from_bytes(house.server.received[0].data, policy=policy.default)
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        link = re.sub(r"\s", "", mail["List-Unsubscribe"]).strip("<>")
        assert api.post("/" + _path(link), data=ONE_CLICK).status_code == 200
        again = house.submit("Ann@example.com", settings=wanted)
        house.deliver_all()
        assert house.message(again).state == "suppressed"
        assert len(house.server.received) == 1
        house.close()
