"""What `postroad emulate` lets anybody say to its emulators over HTTP: each fault, chance, lag, webhook, and the books."""

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import providers.oauth
from deploy.emulated import EMULATED, Emulated
from providers import open_provider
from providers.base import Account, OutboundEmail, Outcome, Result
from providers.emulators.control import _VERBS, Control
from providers.emulators.http import Emulator, Fault
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import SmtpEmulator
from tests.providers.samples import mail
from tests.providers.smtp_samples import LOOPBACK


class Remote:
    """The control, as a client in any language sees it."""

    def __init__(self, control: Control) -> None:
        self._netloc = control.url.removeprefix("http://")

    def __call__(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection(self._netloc, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content: dict[str, Any] = json.loads(answer.read())
            return answer.status, content
        finally:
            connection.close()

    def ledger(self, provider: str) -> dict[str, Any]:
        return self(f"/{provider}/ledger", method="GET")[1]


@pytest.fixture
def running() -> Iterator[dict[str, Emulated]]:
    providers.oauth._cache.clear()  # a port, and with it an account, may be that of a test before
    started = {name: start(0) for name, start in EMULATED.items()}
    yield started
    for one in started.values():
        one.emulator.stop()


@pytest.fixture
def remote(running: dict[str, Emulated]) -> Iterator[Remote]:
    with Control({name: one.emulator for name, one in running.items()}) as control:
        yield Remote(control)


def send(one: Emulated, *emails: OutboundEmail) -> list[Outcome]:
    """By the mailer as it is printed, with the credentials it was printed with. Without mails: one."""
    given = one.mailer
    opened = open_provider(
        Account(
            mailer_id="m1",
            provider=given["provider"],
            credentials=given["credentials"],
            base_url=given.get("base_url"),
            auth_url=given.get("auth_url"),
            guard=LOOPBACK,
        )
    )
    try:
        return list(opened.send(emails or [mail()]))
    finally:
        opened.close()


def results_of(outcomes: list[Outcome]) -> set[Result]:
    return {outcome.result for outcome in outcomes}


SENDING = {"postmark": "/email/batch", "gmail": "/drafts/send", "microsoft365": "/send", "mailgun": "/messages.mime",
           "sparkpost": "/transmissions"}  # fmt: skip
"""Provider -> end of the path that sends."""


@pytest.mark.parametrize("provider", SENDING)
def test_a_mail_is_taken_and_its_answer_lost_when_that_is_asked_for(
    running: dict[str, Emulated], remote: Remote, provider: str
) -> None:
    asked = {"faults": ["accept-then-504"], "path": SENDING[provider]}
    assert remote(f"/{provider}/fail", asked) == (200, {})
    [outcome] = send(running[provider])
    assert outcome.result is Result.UNCERTAIN
    books = remote.ledger(provider)
    assert list(books["delivered"].values()) == [1]
    assert books["met"] == [{"fault": "accept-then-504", "times": 1}]


def test_over_smtp_a_mail_is_taken_and_its_answer_lost(running: dict[str, Emulated], remote: Remote) -> None:
    fault = {"at": "dot", "does": "close", "reply": "", "store": True}
    assert remote("/smtp/fail", {"faults": [fault]}) == (200, {})
    [outcome] = send(running["smtp"])
    assert outcome.result is Result.UNCERTAIN
    books = remote.ledger("smtp")
    assert (list(books["delivered"].values()), books["met"]) == ([1], [{"fault": fault, "times": 1}])


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_can_be_asked_for_by_its_word(running: dict[str, Emulated], remote: Remote, fault: Fault) -> None:
    assert remote("/postmark/fail", {"faults": [fault.value]}) == (200, {})
    emulator = running["postmark"].emulator
    assert isinstance(emulator, Emulator)
    assert [one for _, _, one in emulator._script] == [fault]


def test_a_storm_of_429_passes_and_mail_goes_on(running: dict[str, Emulated], remote: Remote) -> None:
    remote("/mailgun/fail", {"faults": ["429"] * 3, "path": "/messages.mime"})
    assert [send(running["mailgun"])[0].result for _ in range(4)] == [Result.THROTTLED] * 3 + [Result.ACCEPTED]


@pytest.mark.parametrize("provider", ["sparkpost", "smtp"])
def test_the_same_seed_meets_the_same_faults(running: dict[str, Emulated], remote: Remote, provider: str) -> None:
    fault = {"at": "mail", "does": "reply", "reply": "451 4.3.0 later"} if provider == "smtp" else "503"

    def results(seed: int) -> list[Result]:
        remote(f"/{provider}/fail", {"faults": [fault], "chance": 0.5, "seed": seed})
        return [send(running[provider])[0].result for _ in range(12)]

    first = results(7)
    assert first == results(7) != results(8)
    assert set(first) == {Result.ACCEPTED, Result.TRANSIENT}
    assert remote(f"/{provider}/fail", {"faults": [], "chance": 0})[0] == 200
    assert results_of(send(running[provider], *(mail() for _ in range(5)))) == {Result.ACCEPTED}


@pytest.mark.parametrize("provider", SENDING)
def test_revoked_credentials_work_no_longer(running: dict[str, Emulated], remote: Remote, provider: str) -> None:
    assert results_of(send(running[provider])) == {Result.ACCEPTED}
    assert remote(f"/{provider}/revoke") == (200, {})
    providers.oauth._cache.clear()
    assert results_of(send(running[provider])) == {Result.CREDENTIALS}


def test_a_batch_is_taken_in_part(running: dict[str, Emulated], remote: Remote) -> None:
    assert remote("/postmark/set", {"break_after": 3}) == (200, {})
    assert results_of(send(running["postmark"], *(mail() for _ in range(5)))) == {Result.UNCERTAIN}
    assert len(remote.ledger("postmark")["delivered"]) == 3


def test_of_a_mails_recipients_a_part_is_refused(running: dict[str, Emulated], remote: Remote) -> None:
    remote("/sparkpost/set", {"suppressed": ["gone@client.test"]})
    [outcome] = send(running["sparkpost"], mail("bob@client.test", "gone@client.test"))
    assert (outcome.result, list(outcome.recipients)) == (Result.ACCEPTED, ["gone@client.test"])


@pytest.mark.parametrize("provider", ["mailgun", "microsoft365"])
def test_a_message_id_is_replaced_when_that_is_asked_for(
    running: dict[str, Emulated], remote: Remote, provider: str
) -> None:
    assert send(running[provider])[0].rfc_message_id is None
    remote(f"/{provider}/set", {"rewrite_message_id": True})
    assert send(running[provider])[0].rfc_message_id is not None


def test_webhooks_are_posted_late_twice_and_out_of_order(running: dict[str, Emulated], remote: Remote) -> None:
    send(running["mailgun"], *(mail() for _ in range(4)))
    with MailgunEmulator() as customer:  # answers whatever it is posted
        asked = {"url": f"{customer.url}/hook", "twice": True, "shuffled": True}
        assert remote("/mailgun/hooks", asked) == (200, {"statuses": [200] * 16})
        posted = [call.json["event-data"]["id"] for call in customer.calls]
        assert (len(set(posted)), len(posted)) == (8, 16)
        assert remote("/mailgun/hooks", asked) == (200, {"statuses": []})


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/fax/fail", {"faults": []}, 404, "of providers postmark, gmail"),
        ("/postmark/explode", {}, 404, "POST /{provider}/revoke"),
        ("/postmark/fail", {"faults": ["fire"]}, 400, "'fire' is not a valid Fault"),
        ("/postmark/fail", {}, 400, "'faults' is missing"),
        ("/postmark/fail", [], 400, "no JSON object"),
        ("/postmark/set", {"url": "x"}, 400, "url cannot be set; retry_after, index_lag_seconds"),
        ("/postmark/set", {"break_after": "soon"}, 400, "'soon'"),
        ("/postmark/hooks", {"url": "http://127.0.0.1:9/x"}, 400, "refused"),
        ("/smtp/fail", {"faults": ["429"]}, 400, "string indices"),
        ("/smtp/fail", {"faults": [{"at": "noon", "does": "close"}]}, 400, "'noon' is not a valid Stage"),
        ("/smtp/hooks", {"url": "x"}, 400, "SMTP server has no webhooks"),
    ],
)
def test_what_cannot_be_done_is_said(
    running: dict[str, Emulated], remote: Remote, path: str, body: Any, status: int, told: str
) -> None:
    send(running["postmark"])  # so that a webhook is owed
    code, answer = remote(path, body)
    assert (code, told in answer["error"]) == (status, True), answer
    assert set(remote.ledger("postmark")["delivered"].values()) == {1}


def test_it_names_no_emulators_that_do_not_run() -> None:
    with PostmarkEmulator() as postmark, SmtpEmulator() as smtp, Control({"postmark": postmark, "smtp": smtp}) as only:
        assert Remote(only)("/gmail/ledger", method="GET")[1]["error"].endswith("of providers postmark, smtp")


_, _, PAGE = (Path(__file__).parents[2] / "docs" / "emulators.md").read_text().partition("## What goes wrong")


@pytest.mark.parametrize("shown", re.findall(r"`POST (/\w+/\w+[^`]*)`", PAGE))
def test_what_the_page_shows_can_be_asked_for(running: dict[str, Emulated], remote: Remote, shown: str) -> None:
    path, _, body = shown.partition(" ")
    assert remote(path, json.loads(body or "{}"))[0] == 200


def test_the_page_shows_every_verb() -> None:
    assert set(re.findall(r"`POST /\w+/(\w+)", PAGE)) == {verb for method, verb in _VERBS if method == "POST"}
