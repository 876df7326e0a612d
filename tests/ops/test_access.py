"""Who gets in, what a cookie is worth, and what no form can do."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from starlette.routing import Route
from starlette.testclient import TestClient

from api_shim.ops.app import routes
from api_shim.ops.session import COOKIE, sign
from api_shim.services import Services
from models.access import ApiKey
from models.mailer import Mailer, Suppression
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_mailer
from tests.ops.conftest import Browser, add_message, new_key

OPEN = {"/ops/login", "/ops/static/{name}", "/ops/{rest:path}"}
PAGES = sorted(
    route.path.replace("{id:uuid}", "01a1feda-9d01-7443-847a-9eca42285311")
    for route in routes()
    if isinstance(route, Route) and "GET" in (route.methods or ()) and route.path not in OPEN
)
ACTIONS = sorted(
    route.path.replace("{id:uuid}", "01a1feda-9d01-7443-847a-9eca42285311")
    for route in routes()
    if isinstance(route, Route) and "POST" in (route.methods or ()) and route.path not in ("/ops/login", "/ops/logout")
)
SECTIONS = [
    "/ops",
    "/ops/messages",
    "/ops/campaigns",
    "/ops/mailers",
    "/ops/webhooks",
    "/ops/stuck",
    "/ops/suppressions",
]


@pytest.mark.parametrize("path", [path for path in PAGES if path != "/ops/live"])
def test_a_stranger_is_led_to_the_login_and_back_from_there(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/ops/login?next=%2Fops")
    assert answer.text == ""


def test_a_stranger_gets_no_live_figures(browser: Browser) -> None:
    answer = browser.get("/ops/live")
    assert (answer.status_code, answer.text) == (204, "")


@pytest.mark.parametrize("path", ACTIONS)
def test_a_stranger_cannot_act(browser: Browser, path: str) -> None:
    answer = browser.post(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ops/login?next=%2Fops")


def test_the_cookie_names_the_key_but_does_not_hold_it(browser: Browser, tenant: Tenant) -> None:
    answer = browser.log_in(tenant.key)
    assert answer.headers["location"] == "/ops"
    cookie = answer.headers["set-cookie"]
    assert tenant.key_id.hex in cookie
    assert tenant.key.removeprefix("postroad_live_")[:20] not in cookie
    for word in ("HttpOnly", "SameSite=strict", "Path=/ops", "Max-Age=43200"):
        assert word in cookie
    assert "Secure" not in cookie  # plain http on loopback


def test_behind_tls_the_cookie_is_for_tls_alone(browser: Browser, tenant: Tenant) -> None:
    answer = browser.post("/ops/login", headers={"X-Forwarded-Proto": "https"}, key=tenant.key)
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "postroad_live_nonsense", "x\0y"])
def test_an_unknown_key_does_not_get_in(browser: Browser, key: str) -> None:
    answer = browser.log_in(key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "unknown, expired or revoked" in answer.text


def test_a_key_without_ops_read_does_not_get_in(browser: Browser, app_services: Services, tenant: Tenant) -> None:
    _, key = new_key(app_services, tenant.workspace_id, "email:send")
    answer = browser.log_in(key)
    assert answer.status_code == 403
    assert "ops:read" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target", ["https://evil.test/", "//evil.test", "/ops@evil.test", "/ops/../../v1", "/opsevil", "/ops/\\evil"]
)
def test_the_login_leads_to_no_other_place(browser: Browser, tenant: Tenant, target: str) -> None:
    location = browser.log_in(tenant.key, target).headers["location"]
    assert location == "/ops" or location.startswith("/ops/")
    assert "evil" not in location


@pytest.mark.parametrize(
    "change",
    [
        {"revoked_at": datetime.now(UTC)},
        {"expires_at": datetime.now(UTC) - timedelta(seconds=1)},
        {"scopes": ["email:read"]},
    ],
)
def test_a_key_that_loses_its_right_ends_the_session_at_once(
    operator: Browser, session: Session, tenant: Tenant, change: dict[str, Any]
) -> None:
    assert operator.get("/ops").status_code == 200
    session.execute(update(ApiKey).where(ApiKey.id == tenant.key_id).values(**change))
    session.commit()
    assert operator.get("/ops").status_code == 303
    assert operator.get("/ops/live").status_code == 204


def _cookie(services: Services, tenant: Tenant, expires: float, key: str | None = None) -> str:
    content = f"{tenant.key_id.hex}.{int(expires * 1000)}.nonce"
    return f"{content}.{sign(key or services.peppers[0], 'session', content)}"


def test_a_cookie_ends_and_cannot_be_made(browser: Browser, app_services: Services, tenant: Tenant) -> None:
    good = _cookie(app_services, tenant, time.time() + 60)
    bad = [
        _cookie(app_services, tenant, time.time() - 1),
        _cookie(app_services, tenant, time.time() + 60, "another key"),
        good.replace(tenant.key_id.hex, "0" * 32),
        good[:-1],
        "....",
        "x.y.z.0",
    ]
    for cookie, status in [(good, 200), *((cookie, 303) for cookie in bad)]:
        browser.client.cookies.clear()
        answer = browser.get("/ops/stuck", Cookie=f"{COOKIE}={cookie}")
        assert answer.status_code == status, cookie


def test_logging_out_forgets_the_session(operator: Browser) -> None:
    answer = operator.post("/ops/logout", csrf=operator.token())
    assert answer.headers["location"] == "/ops/login"
    assert operator.get("/ops").status_code == 303


def test_after_logging_out_a_cookie_that_was_copied_before_opens_nothing(operator: Browser, tenant: Tenant) -> None:
    copied = operator.client.cookies[COOKIE]
    operator.post("/ops/logout", csrf=operator.token())
    assert operator.get("/ops/stuck", Cookie=f"{COOKIE}={copied}").status_code == 303
    operator.log_in(tenant.key)
    assert operator.get("/ops/stuck").status_code == 200


def test_a_form_without_the_sessions_token_does_nothing(operator: Browser, session: Session, tenant: Tenant) -> None:
    mailer_id = add_mailer(session, tenant)
    for csrf in ("", "0" * 64):
        assert operator.post(f"/ops/mailers/{mailer_id}/pause", csrf=csrf).status_code == 403
    assert session.get_one(Mailer, mailer_id).status == "active"


def test_the_token_of_another_session_is_worth_nothing(
    operator: Browser, api: TestClient, other_tenant: Tenant, session: Session, tenant: Tenant
) -> None:
    stranger = Browser(api)
    stranger.log_in(other_tenant.key)
    mailer_id = add_mailer(session, tenant)
    assert operator.post(f"/ops/mailers/{mailer_id}/pause", csrf=stranger.token()).status_code == 403


def test_a_form_from_another_site_does_nothing(operator: Browser, session: Session, tenant: Tenant) -> None:
    mailer_id = add_mailer(session, tenant)
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = operator.post(f"/ops/mailers/{mailer_id}/pause", headers=headers, csrf=operator.token())
    assert answer.status_code == 403
    assert operator.post("/ops/login", headers=headers, key=tenant.key).status_code == 403


def test_an_action_leads_back_to_the_dashboard_only(operator: Browser) -> None:
    answer = operator.post("/ops/stuck/log-now", csrf=operator.token(), back="https://evil.test/")
    assert answer.headers["location"] == "/ops"


@pytest.mark.parametrize("path", SECTIONS)
def test_a_reader_sees_everything_and_no_button_that_acts(
    reader: Browser, session: Session, tenant: Tenant, path: str
) -> None:
    add_mailer(session, tenant)
    page = reader.get(path).text
    assert "read only" in page
    assert page.count('method="post"') == 1  # the way out


def test_a_readers_message_page_has_no_buttons(reader: Browser, session: Session, tenant: Tenant) -> None:
    page = reader.get(f"/ops/messages/{add_message(session, tenant)}").text
    assert page.count('method="post"') == 1


@pytest.mark.parametrize("path", ACTIONS)
def test_a_reader_cannot_act_even_with_a_token(reader: Browser, path: str) -> None:
    answer = reader.post(path, csrf=reader.token())
    assert answer.status_code == 403
    assert "ops:write" in answer.text


def test_a_reader_changes_nothing(reader: Browser, session: Session, tenant: Tenant) -> None:
    reader.post("/ops/suppressions/add", csrf=reader.token(), address="grace@example.com")
    assert session.query(Suppression).filter_by(workspace_id=tenant.workspace_id).count() == 0


@pytest.mark.parametrize("path", [*SECTIONS, "/ops/login", "/ops/nowhere", "/ops/static/ops.css", "/ops/live.json"])
def test_every_answer_has_the_strict_headers(operator: Browser, path: str) -> None:
    headers = operator.get(path).headers
    policy = headers["content-security-policy"]
    for rule in (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ):
        assert rule in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("max-age=31536000" if "static" in path else "no-store")


def test_what_is_not_there_is_a_page_that_says_so(operator: Browser) -> None:
    for path in ("/ops/nowhere", "/ops/messages/01a1feda-9d01-7443-847a-9eca42285311", "/ops/static/../app.py"):
        answer = operator.get(path)
        assert answer.status_code == 404
    assert "no such thing" in operator.get("/ops/nowhere").text


def test_the_pages_use_no_inline_style_or_script(operator: Browser, session: Session, tenant: Tenant) -> None:
    """The policy would silently drop them."""
    paths = [*SECTIONS, f"/ops/messages/{add_message(session, tenant)}"]
    for path in paths:
        page = operator.get(path).text
        assert " style=" not in page
        assert "<style" not in page
        assert "<script>" not in page
        assert " onclick=" not in page
