"""Mail that lies at a provider: told of, looked for, fetched once, and never lost with a notice."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
import requests
import uvicorn
from sqlalchemy import text

from api_shim.app import create_app
from api_shim.services import Services
from providers.emulators.gmail import GmailEmulator
from providers.emulators.google_oidc import OidcIssuer
from providers.emulators.graph_inbox import change_notice, lifecycle_notice
from providers.emulators.http import Emulator, Fault, Hook
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from tests.api_shim.conftest import Tenant, new_tenant
from tests.conftest import wait_until
from tests.worker.house import settings_for
from worker.beat import due_lanes
from worker.bell import inbox_lane
from worker.collect import collect
from worker.mailers import mailer_purpose
from worker.reports import apply_reports
from worker.runtime import Runtime

AUDIENCE = "https://crm.example/hooks"


def _mail(number: int | str, subject: str = "Hello") -> bytes:
    return (
        f"From: Ann <ann@client.test>\r\nTo: hello@demo.test\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n"
        f"Message-ID: <in-{number}@client.test>\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n\r\n"
    ).encode() + "Gr\xfc\xdfe\r\n".encode("latin-1")


class Office:
    """The API under a real address, the worker's steps by hand, a workspace."""

    def __init__(self, url: str, services: Services, tenant: Tenant) -> None:
        self.url, self.tenant = url, tenant
        self.runtime = Runtime(services.settings, application="test worker")
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {tenant.key}"

    def mailer(self, provider: str, emulator: Emulator, credentials: dict[str, str]) -> "Box":
        body = {"provider": provider, "name": provider, "from": ["hello@demo.test"], "credentials": credentials}
        roots = {"base_url": emulator.url} | ({} if provider == "mailgun" else {"auth_url": emulator.url})
        answer = self.http.post(f"{self.url}/v1/mailers", json=body | roots)
        assert answer.status_code == 201, answer.text
        return Box(self, emulator, answer.json())

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.runtime.engine.connect() as db:
            return list(db.execute(text(statement), {"w": self.tenant.workspace_id, **values}))

    def close(self) -> None:
        self.runtime.close()
        self.http.close()


class Box:
    """A mailer with an emulated provider behind it."""

    def __init__(self, office: Office, emulator: Emulator, shown: dict[str, Any]) -> None:
        self.office, self.emulator = office, emulator
        self.id = UUID(shown["id"])
        self.hook_url = office.url + shown["hook_url"]
        self.path = f"{office.url}/v1/mailers/{self.id}/mailbox"

    def read(self, **body: str) -> None:
        answer = self.office.http.put(self.path, json=body)
        assert answer.status_code == 200, answer.text
        self.work()

    @property
    def shown(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.office.http.get(self.path).json())

    def post(self, hook: Hook, path: str = "") -> int:
        return requests.post(self.hook_url + path, data=hook.body, headers=dict(hook.headers), timeout=10).status_code

    def ring(self) -> list[int]:
        """The provider posts the notices it owes, twice each."""
        return self.emulator.post_hooks(self.hook_url, twice=True)

    def work(self) -> None:
        while collect(self.office.runtime, self.id):
            pass
        while apply_reports(self.office.runtime):
            pass

    def look(self) -> None:
        """The time of the next look has come."""
        self.change("due_at = now()")
        self.work()

    def change(self, what: str) -> None:
        with self.office.runtime.engine.begin() as db:
            db.execute(text(f"update mailbox_watch set {what} where mailer_id = :m"), {"m": self.id})
            db.execute(text("update pickup set due_at = now() where due_at is not null"))

    def row(self) -> Any:
        [row] = self.office.rows("select * from mailbox_watch where mailer_id = :m", m=self.id)
        return row

    @property
    def mails(self) -> list[str]:
        query = "select rfc_message_id from inbound_message where mailer_id = :m order by 1"
        return [row[0] for row in self.office.rows(query, m=self.id)]

    @property
    def events(self) -> int:
        return len(self.office.rows("select from event where workspace_id = :w and type = 'received'"))

    def fetched(self) -> int:
        """How many mails were asked for."""
        return sum("$value" in call.path or call.argument("format") == "raw" for call in self.emulator.calls)


@pytest.fixture(scope="module")
def api(database_url: str, redis_url: str) -> Iterator[tuple[str, Services]]:
    server = uvicorn.Server(uvicorn.Config("", host="127.0.0.1", port=0, log_level="critical", ws="none"))
    [socket] = [server.config.bind_socket()]
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    app = create_app(settings_for(database_url, redis_url, public_url=url))
    server.config.app = app
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the API answers")
    yield url, app.state.services
    server.should_exit = True
    thread.join(10)
    socket.close()


@pytest.fixture
def office(api: tuple[str, Services]) -> Iterator[Office]:
    url, services = api
    opened = Office(url, services, new_tenant(services))
    yield opened
    opened.close()


@pytest.fixture
def graph(office: Office) -> Iterator[Box]:
    with Microsoft365Emulator() as microsoft:
        yield office.mailer("microsoft365", microsoft, microsoft.credentials())


@pytest.fixture
def gmail(office: Office) -> Iterator[Box]:
    with GmailEmulator() as emulator:
        known = emulator.oauth
        credentials = {
            "client_id": known.client_id, "client_secret": known.client_secret, "refresh_token": known.refresh_token,
        }  # fmt: skip
        yield office.mailer("gmail", emulator, credentials)


def _microsoft(box: Box) -> Microsoft365Emulator:
    assert isinstance(box.emulator, Microsoft365Emulator)
    return box.emulator


def _google(box: Box) -> GmailEmulator:
    assert isinstance(box.emulator, GmailEmulator)
    return box.emulator


def test_a_mail_at_microsoft_is_told_of_and_fetched_once(graph: Box) -> None:
    graph.read()
    shown = graph.shown
    assert (shown["status"], shown["notified"], shown["error"]) == ("reading", True, None)
    microsoft = _microsoft(graph)
    microsoft.receive(_mail(1))
    assert graph.ring() == [200, 200]
    graph.work()
    assert graph.mails == ["<in-1@client.test>"]
    graph.look()
    assert (graph.fetched(), graph.events) == (1, 1), "the look finds it again, and knows it"
    [row] = graph.office.rows("select text, provider_thread_id from inbound_message join thread on thread.id = thread_id"
                              " where inbound_message.workspace_id = :w")  # fmt: skip
    assert (row.text.strip(), row.provider_thread_id) == ("Grüße", "c-1")


def test_a_notice_that_was_lost_costs_only_time(graph: Box) -> None:
    graph.read()
    microsoft = _microsoft(graph)
    for number in range(3):
        microsoft.receive(_mail(number))
    microsoft.hooks.clear()
    graph.look()
    assert len(graph.mails) == 3
    assert timedelta(minutes=4) < graph.row().due_at - datetime.now(UTC) < timedelta(minutes=6)


def test_a_subscription_is_renewed_daily_and_made_anew_once_it_is_gone(graph: Box) -> None:
    graph.read()
    microsoft = _microsoft(graph)
    first = graph.row()
    assert timedelta(hours=23) < first.renew_at - datetime.now(UTC) <= timedelta(days=1)
    graph.change("expires_at = now() + interval '1 hour', renew_at = now()")
    graph.look()
    assert graph.row().subscription == first.subscription
    assert graph.row().expires_at - datetime.now(UTC) > timedelta(hours=47)
    state = next(state for _, state in microsoft.inbox.subscribers())
    microsoft.inbox.subscriptions.clear()
    assert graph.post(lifecycle_notice(state, "subscriptionRemoved", first.subscription)) == 200
    graph.work()
    assert graph.row().subscription not in (None, first.subscription)


def test_missed_notifications_are_looked_for(graph: Box) -> None:
    graph.read()
    microsoft = _microsoft(graph)
    state = next(state for _, state in microsoft.inbox.subscribers())
    microsoft.receive(_mail(1))
    microsoft.hooks.clear()
    assert graph.post(lifecycle_notice(state, "missed")) == 200
    assert inbox_lane(graph.id) in _due(graph)
    graph.work()
    assert graph.mails == ["<in-1@client.test>"]


def _due(box: Box) -> set[Any]:
    with box.office.runtime.engine.connect() as db:
        return set(due_lanes(db))


def test_a_forged_or_unasked_notice_leads_to_nothing(graph: Box) -> None:
    unasked = change_notice("", "AAMk1")
    assert graph.post(unasked) == 401
    graph.read()
    known = _microsoft(graph).inbox.subscribers()[0][1]
    assert graph.post(change_notice("0" * 64, "AAMk1")) == 401
    graph.office.http.delete(graph.path)
    assert _microsoft(graph).inbox.subscriptions == {}
    assert graph.post(change_notice(known, "AAMk1")) == 200
    assert graph.office.rows("select from pickup where workspace_id = :w") == []
    assert graph.office.http.get(graph.path).status_code == 404


def test_a_mail_that_is_gone_or_fails_holds_up_no_other(graph: Box) -> None:
    graph.read()
    microsoft = _microsoft(graph)
    state = microsoft.inbox.subscribers()[0][1]
    for number in (1, 2):
        microsoft.receive(_mail(number))
    graph.ring()
    assert graph.post(change_notice(state, "AAMkGone")) == 200
    microsoft.fail(Fault.ERROR_500, path="$value")
    graph.work()
    assert len(graph.mails) == 1
    [waiting] = graph.office.rows("select tries, error from pickup where due_at is not null and workspace_id = :w")
    assert waiting.tries == 1
    graph.change("due_at = due_at")
    graph.work()
    assert len(graph.mails) == 2


def test_refused_credentials_are_shown_and_tried_again_later(graph: Box) -> None:
    graph.read()
    _microsoft(graph).revoke()
    graph.look()
    shown = graph.shown
    assert shown["status"] == "failing"
    assert "revoked" in shown["error"]
    assert graph.row().due_at > datetime.now(UTC) + timedelta(seconds=2)


def test_a_mailbox_whose_secret_does_not_open_is_not_rung_for_every_second(graph: Box) -> None:
    graph.read()
    graph.change("due_at = now()")
    with graph.office.runtime.engine.begin() as db:
        db.execute(text("update mailer set sealed_credentials = 'lost' where id = :m"), {"m": graph.id})
    assert inbox_lane(graph.id) in _due(graph)
    assert not collect(graph.office.runtime, graph.id)
    assert inbox_lane(graph.id) not in _due(graph)


def test_credentials_that_change_close_no_adapter_that_somebody_uses(graph: Box) -> None:
    providers = graph.office.runtime.providers
    closed: list[object] = []
    used = providers.mailer(graph.id)
    assert used is not None
    before = used.provider
    before.close = lambda: closed.append(before)  # type: ignore[method-assign]
    with graph.office.runtime.engine.begin() as db:
        changed = graph.office.runtime.vault.seal(mailer_purpose(graph.id), dict(before.account.credentials))
        db.execute(text("update mailer set sealed_credentials = :s where id = :m"), {"s": changed, "m": graph.id})
    after = providers.mailer(graph.id)
    assert after is not None
    assert after.provider is not before
    assert closed == []
    del used
    providers.mailer(graph.id)
    assert closed == [before]
    del before.close
    before.close()


def test_a_mail_at_gmail_is_told_of_by_pubsub_and_found_in_the_history(gmail: Box) -> None:
    gmail.read(topic="projects/demo/topics/mail")
    google = _google(gmail)
    assert google.topic == "projects/demo/topics/mail"
    for number in range(3):
        google.receive(_mail(number))
    assert gmail.ring() == [200] * 6
    gmail.work()
    assert len(gmail.mails) == 3
    assert (gmail.fetched(), gmail.events) == (3, 3)
    first = gmail.row()
    assert first.expires_at - datetime.now(UTC) > timedelta(days=6)
    assert first.renew_at - datetime.now(UTC) <= timedelta(days=1)


def test_without_a_topic_gmail_is_looked_into_every_half_minute(gmail: Box) -> None:
    gmail.read()
    assert gmail.shown["notified"] is False
    _google(gmail).receive(_mail(1))
    gmail.look()
    assert gmail.mails == ["<in-1@client.test>"]
    assert gmail.row().due_at < datetime.now(UTC) + timedelta(seconds=31)


def test_our_own_mail_and_old_mail_do_not_come_in(gmail: Box) -> None:
    google = _google(gmail)
    google.receive(_mail("old"))
    gmail.read()
    with google.lock:
        google._store(_mail("sent"), ["SENT"], None)
        google._store(_mail("to myself"), ["INBOX", "SENT"], None)
    gmail.look()
    assert gmail.mails == []


def test_a_history_too_old_leads_to_the_list(gmail: Box) -> None:
    gmail.read()
    google = _google(gmail)
    for number in range(205):
        google.receive(_mail(number))
    google.oldest_history = google._history
    gmail.change("due_at = now()")
    collect(gmail.office.runtime, gmail.id)
    assert len(gmail.office.rows("select from pickup where workspace_id = :w")) == 205
    google.receive(_mail("next"))
    gmail.change("due_at = now()")
    before = len(google.calls)
    collect(gmail.office.runtime, gmail.id)
    assert not [call for call in google.calls[before:] if call.path.endswith("/messages") and "q" in call.query]


def test_a_push_must_carry_the_token_of_the_service_account(gmail: Box) -> None:
    google = _google(gmail)
    google.oidc = OidcIssuer(audience=AUDIENCE)
    secret = {
        "client_id": google.oauth.client_id, "client_secret": google.oauth.client_secret,
        "refresh_token": google.oauth.refresh_token,
        "push_service_account": google.oidc.service_account, "push_audience": AUDIENCE,
    }  # fmt: skip
    changed = gmail.office.http.patch(f"{gmail.office.url}/v1/mailers/{gmail.id}", json={"credentials": secret})
    assert changed.status_code == 200, changed.text
    gmail.read(topic="projects/demo/topics/mail")
    google.receive(_mail(1))
    [good] = google.hooks
    forger = OidcIssuer(audience=AUDIENCE)
    tokens = {
        "none": None,
        "garbage": "a.b.c",
        "of another key": forger.token(),
        "for another audience": google.oidc.token(aud="https://elsewhere.example"),
        "of another account": google.oidc.token(email="eve@demo.iam.test"),
        "of an unverified address": google.oidc.token(email_verified=False),
        "of another issuer": google.oidc.token(iss="https://evil.example"),
        "expired": google.oidc.token(age_seconds=7200),
        "unsigned": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.",
    }
    for what, token in tokens.items():
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        assert gmail.post(Hook(good.body, headers)) == 401, what
    assert gmail.post(good) == 200
    gmail.work()
    assert gmail.mails == ["<in-1@client.test>"]


def test_what_mailgun_stored_is_fetched_from_mailgun_only(office: Office) -> None:
    with MailgunEmulator() as mailgun:
        credentials = {"api_key": mailgun.api_key, "domain": mailgun.domain, "signing_key": mailgun.signing_key}
        box = office.mailer("mailgun", mailgun, credentials)
        for url in (mailgun.store(_mail(1)), "http://127.0.0.1:9/v3/x", "https://mailgun.net.evil.example/x"):
            event = {"id": url, "event": "stored", "timestamp": 1795255200.0, "storage": {"url": url, "key": "k"}}
            assert box.post(mailgun.signed(event)) == 200
        box.work()
        assert box.mails == ["<in-1@client.test>"]
        given_up = office.rows("select error from pickup where workspace_id = :w and error is not null")
        assert {row.error for row in given_up} == {"the stored mail is at no address of Mailgun's"}


def test_only_a_mailbox_can_be_read(office: Office, graph: Box) -> None:
    with MailgunEmulator() as mailgun:
        credentials = {"api_key": "k", "domain": "mg.demo.test"}
        box = office.mailer("mailgun", mailgun, credentials)
        refused = office.http.put(box.path, json={})
        assert refused.status_code == 400
        assert "gmail and microsoft365" in refused.text
    topic = office.http.put(graph.path, json={"topic": "projects/demo/topics/mail"})
    assert (topic.status_code, "leave it out" in topic.text) == (400, True)
