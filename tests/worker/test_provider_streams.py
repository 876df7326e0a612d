"""R28, S11: the calls of each provider in any order and number leave one state, one event and one webhook of each."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from api_shim.submission import Accepted
from models.mailer import Mailer
from models.webhook import WebhookEndpoint
from providers.base import HookRequest
from providers.emulators.http import Emulator, Hook
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.smtp import SmtpEmulator
from providers.emulators.sparkpost import SparkPostEmulator
from tests.worker.house import House, settings_for
from worker.mailers import mailer_purpose
from worker.reports import apply_reports, store
from worker.settings import Settings

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def _postmark(postmark: PostmarkEmulator, mail: Any) -> list[Hook]:
    def at(minute: int) -> str:
        return datetime.fromtimestamp(NOON + 60 * minute, UTC).isoformat()

    bodies = [
        postmark.report("Bounce", mail, BouncedAt=at(0), Type="Transient", ID=1),
        postmark.report("Delivery", mail, DeliveredAt=at(1)),
        postmark.report("Open", mail, ReceivedAt=at(2), UserAgent="Firefox"),
        postmark.report("Click", mail, ReceivedAt=at(3), UserAgent="Firefox", OriginalLink="https://demo.test/"),
        postmark.report("Bounce", mail, BouncedAt=at(4), Type="HardBounce", ID=2),
        postmark.report("SpamComplaint", mail, BouncedAt=at(5), ID=3),
        postmark.report("SubscriptionChange", mail, ChangedAt=at(6), SuppressSending=True),
    ]
    return [Hook(json.dumps(body).encode()) for body in bodies]


def _mailgun(mailgun: MailgunEmulator, mail: Any) -> list[Hook]:
    names = "accepted", "deferred", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed"
    told = [{**mailgun.report(name, mail), "timestamp": NOON + 60 * minute} for minute, name in enumerate(names)]
    return [mailgun.signed(event) for event in told]


def _sparkpost(sparkpost: SparkPostEmulator, mail: Any) -> list[Hook]:
    kinds = "injection", "delay", "delivery", "open", "click", "bounce", "spam_complaint", "list_unsubscribe"
    told = [
        {**sparkpost.report(kind, mail, bounce_class="10"), "timestamp": str(int(NOON) + 60 * minute)}
        for minute, kind in enumerate(kinds)
    ]
    return [sparkpost.batch(told[0], told[1]), *(sparkpost.batch(event) for event in told[2:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A provider: how it is emulated and what it reports of a mail, in the order in which it happened."""

    emulator: Callable[[], Any]
    credentials: Callable[[Any], Mapping[str, str]]
    story: Callable[[Any, Any], list[Hook]]


KINDS = {
    "postmark": Kind(
        emulator=PostmarkEmulator, credentials=lambda known: {"server_token": known.server_token}, story=_postmark
    ),
    "mailgun": Kind(
        emulator=MailgunEmulator,
        credentials=lambda known: {
            "api_key": known.api_key, "domain": known.domain, "signing_key": known.signing_key,
        },
        story=_mailgun,
    ),
    "sparkpost": Kind(
        emulator=SparkPostEmulator,
        credentials=lambda known: {"api_key": known.api_key, "hook_secret": known.hook_secret},
        story=_sparkpost,
    ),
}  # fmt: skip


class StreamHouse(House):
    """A workspace with one mailer of a kind, and an endpoint that wants every event."""

    def __init__(self, settings: Settings, name: str, emulator: Emulator) -> None:
        self.name, self.emulator = name, emulator
        super().__init__(settings, cast(SmtpEmulator, None))  # nothing goes by SMTP here
        with self.session() as session:
            endpoint = WebhookEndpoint(
                workspace_id=self.workspace_id, url="https://x.test/", events=["*"], sealed_secret=b""
            )
            session.add(endpoint)
            session.commit()

    def _mailer(self) -> Mailer:
        credentials = dict(KINDS[self.name].credentials(self.emulator))
        return Mailer(
            id=self.mailer_id,
            workspace_id=self.workspace_id,
            provider=self.name,
            name="test",
            from_addresses=["hello@demo.test"],
            domains=["demo.test"],
            sealed_credentials=self.runtime.vault.seal(mailer_purpose(self.mailer_id), credentials),
            base_url=self.emulator.url,
            hook_token=str(self.mailer_id),
            is_default=True,
        )

    def hand_over(self, hooks: Sequence[Hook]) -> None:
        """The calls, checked and stored as the hook's route does."""
        mailer = self.runtime.providers.mailer(self.mailer_id)
        assert mailer is not None
        for hook in hooks:
            headers = {name.lower(): value for name, value in hook.headers.items()}
            request = HookRequest(headers=headers, query={}, body=hook.body)
            events = mailer.provider.parse_events(request)
            with self.runtime.engine.begin() as connection:
                store(connection, self.runtime.vault, mailer, request, events)

    def apply(self) -> None:
        """Applies everything, what waits included."""
        with self.runtime.engine.begin() as connection:
            connection.exec_driver_sql("update provider_report set due_at = now() where due_at is not null")
        while apply_reports(self.runtime):
            pass

    def left_behind(self, accepted: Accepted) -> dict[str, Any]:
        id_ = self.message(accepted).id
        events = self.rows("select id, type, seq, state from event where message_id = :id order by seq", id=id_)
        webhooks = self.rows(
            "select event_id from webhook_delivery where event_id = any(:ids)", ids=[event["id"] for event in events]
        )
        order = ("sent", "delivered", "bounced", "complained")
        ranks = [order.index(event["state"]) for event in events]
        return {
            "state": self.message(accepted).state,
            "log": self.scalar("select status from email_log where message_id = :id", id=id_),
            "events": sorted(event["type"] for event in events),
            "numbers": [event["seq"] for event in events],
            "backwards": ranks != sorted(ranks),
            "webhooks": len(webhooks),
            "waiting": self.scalar("select count(*) from provider_report where mailer_id = :m"),
        }


@pytest.fixture(scope="module")
def configured(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url)


@pytest.fixture(params=list(KINDS))
def house(configured: Settings, request: pytest.FixtureRequest) -> Iterator[StreamHouse]:
    with KINDS[request.param].emulator() as emulator:
        opened = StreamHouse(configured, request.param, emulator)
        yield opened
        opened.close()


@given(dice=st.randoms(use_true_random=False), together=st.booleans(), early=st.booleans())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_number_of_a_providers_calls_leaves_the_same_behind(
    house: StreamHouse, dice: Any, together: bool, early: bool
) -> None:
    with house.session() as session:
        session.execute(text("delete from suppression where workspace_id = :w"), {"w": house.workspace_id})
        session.commit()
    accepted = house.submit("ann@example.com")
    house.deliver_all()
    emulator = cast(Any, house.emulator)
    hooks = KINDS[house.name].story(emulator, emulator.mails[-1])
    calls = [hook for hook in hooks for _ in range(dice.choice((1, 1, 2, 10)))]
    dice.shuffle(calls)
    before = calls[: len(calls) // 2] if early else []
    house.hand_over(before)
    house.apply()  # before the outcome is on record, nothing of it can be
    assert house.left_behind(accepted)["events"] == []
    house.record_all()
    for part in [calls[len(before) :]] if together else [[call] for call in calls[len(before) :]]:
        house.hand_over(part)
        house.apply()
    house.apply()
    expected = sorted(
        ["accepted", "deferred", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed"]
    )
    assert house.left_behind(accepted) == {
        "state": "complained",
        "log": "complained",
        "events": expected,
        "numbers": list(range(1, len(expected) + 1)),
        "backwards": False,
        "webhooks": len(expected),
        "waiting": 0,
    }
