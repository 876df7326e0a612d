"""Every adapter under 5 % of each fault, through the real path: nothing is lost, nothing goes twice.

The short run is part of the suite. The long one, with its table:

    CHAOS_SENDS=10000 .venv/bin/python -m pytest --timeout 1800 tests/chaos/test_providers.py -s

Where the provider can be asked, every doubt is settled by asking. Where it cannot (SMTP), the doubtful mails are held,
and none but those.
"""

import os

import pytest

import providers.oauth
import worker.outcome
import worker.retry
from providers import adapter
from providers.http import Api, Timeout
from providers.postmark import Postmark
from providers.smtp import Smtp
from tests.chaos.provider_runs import running
from tests.chaos.provider_sides import SIDES
from tests.worker.house import settings_for
from worker.settings import Settings

SENDS = int(os.environ.get("CHAOS_SENDS", "300"))
SECONDS = 240 + SENDS / 3
SEED = int(os.environ.get("CHAOS_SEED", "7"))
SETTLE_SECONDS = 0.4
QUICK = Timeout(connect=2.0, read=0.1, total=0.15)


@pytest.fixture(autouse=True)
def _short_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    providers.oauth._cache.clear()
    # Every HTTP client of every adapter, however often the mailer is reconnected and its adapter opened anew.
    monkeypatch.setattr(Api, "timeout", property(lambda _: QUICK, lambda *_: None), raising=False)
    for name, value in (("connect_timeout", 2.0), ("command_timeout", 0.4), ("dot_timeout", 0.1)):
        monkeypatch.setattr(Smtp, name, value)
    monkeypatch.setattr(worker.retry, "SHORTEST_PAUSE_SECONDS", 0.02)
    # With answers due so soon, a busy machine leaves a question unanswered again and again.
    monkeypatch.setattr(worker.outcome, "LONGEST_LOOKUP_WAIT_SECONDS", 1.0)
    for provider in SIDES:
        monkeypatch.setattr(adapter(provider), "settle_seconds", SETTLE_SECONDS)
    # Calls are what faults are dealt to, so there must be enough of them.
    monkeypatch.setattr(Postmark, "batch", 20)
    monkeypatch.setattr(Postmark, "group", 20)


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url, retry_seconds=",".join(["0.02"] * 40))


@pytest.mark.parametrize("provider", SIDES)
def test_nothing_is_lost_and_nothing_goes_twice(settings: Settings, provider: str) -> None:
    with running(settings, provider, SEED) as run:
        report = run.send(SENDS, SECONDS)
        print(report)  # noqa: T201 -- the table of the long run
        assert (list(report.lost), list(report.doubled)) == ([], [])
        assert report.failed == (len(range(0, SENDS, 50)) if run.side.refuses else 0)
        assert report.logged == report.mails - len(report.held)
        if run.side.can_be_asked:
            assert (list(report.held), report.lookups > 0) == ([], True)
        else:
            assert list(report.held) == list(report.doubted) != []
        if run.side.reports:
            assert list(report.not_told_once) == []
