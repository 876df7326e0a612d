"""What providers report, applied on a real database."""

import copy
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.content import Address
from models.message import UNTIL_SOMEBODY_ACTS
from models.webhook import WebhookEndpoint
from providers.emulators.http import Fault
from providers.emulators.postmark import PostmarkEmulator
from tests.worker.house import settings_for
from tests.worker.postmark_house import PostmarkHouse
from worker.beat import due_lanes
from worker.bell import REPORTS_LANE
from worker.reports import apply_reports
from worker.settings import Settings


@pytest.fixture(scope="module")
def postmark() -> Iterator[PostmarkEmulator]:
    with PostmarkEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def configured(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url)


@pytest.fixture
def house(configured: Settings, postmark: PostmarkEmulator) -> Iterator[PostmarkHouse]:
    opened = PostmarkHouse(configured, postmark)
    yield opened
    opened.close()


def _status(house: PostmarkHouse, message_id: UUID) -> str:
    return str(house.scalar("select status from email_log where message_id = :id", id=message_id))


def test_a_delivery_moves_message_and_log_and_tells_the_endpoints(house: PostmarkHouse) -> None:
    with house.session() as session:
        session.add(
            WebhookEndpoint(
                workspace_id=house.workspace_id, url="https://x.test/", events=["MAIL_DELIVERED"], sealed_secret=b""
            )
        )
        session.commit()
    accepted, mail = house.sent()
    house.told(house.postmark.report("Delivery", mail))
    message = house.message(accepted)
    assert (message.state, _status(house, message.id)) == ("delivered", "delivered")
    assert house.events(message.id) == ["accepted", "delivered"]
    assert house.scalar("select count(*) from webhook_delivery where workspace_id = :w") == 1
    assert house.scalar("select count(*) from provider_report where workspace_id = :w") == 0


def test_a_report_repeated_ten_times_is_one_event(house: PostmarkHouse) -> None:
    accepted, mail = house.sent()
    body = house.postmark.report("Delivery", mail)
    house.told(*[body] * 10)
    house.told(body)
    assert house.events(house.message(accepted).id) == ["accepted", "delivered"]


def test_a_report_before_the_outcomes_commit_waits_and_then_applies(house: PostmarkHouse) -> None:
    accepted, mail = house.sent(recorded=False)
    house.told(house.postmark.report("Delivery", mail))
    message = house.message(accepted)
    assert (message.state, house.events(message.id)) == ("sent", [])
    wait = house.scalar(
        "select extract(epoch from due_at - clock_timestamp()) from provider_report where mailer_id = :m"
    )
    assert wait < 5
    house.record_all()
    _let_time_pass(house)
    house.apply()
    assert house.events(message.id) == ["accepted", "delivered"]


def _let_time_pass(house: PostmarkHouse) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update provider_report set due_at = clock_timestamp() where mailer_id = :m"), {"m": house.mailer_id}
        )


def test_an_unknown_mail_is_waited_for_a_day_and_then_given_up(house: PostmarkHouse) -> None:
    _, mail = house.sent()
    body = house.postmark.report("Delivery", mail)
    body["Metadata"] = {"ref": uuid4().hex}
    body["MessageID"] = str(uuid4())
    house.told(body)
    [report] = house.rows("select due_at > clock_timestamp() as later, error from provider_report where mailer_id = :m")
    assert report == {"later": True, "error": "no mail of the workspace goes by these ids"}
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text(
                "update provider_report set due_at = clock_timestamp(), created_at = now() - interval '25 hours'"
                " where mailer_id = :m"
            ),
            {"m": house.mailer_id},
        )
    house.apply()
    assert house.rows("select due_at from provider_report where mailer_id = :m") == [{"due_at": None}]


def test_another_workspaces_mail_cannot_be_reported_on(house: PostmarkHouse, configured: Settings) -> None:
    accepted, mail = house.sent()
    body = house.postmark.report("Bounce", mail, Type="HardBounce", ID=1)
    stranger = PostmarkHouse(configured, house.postmark)
    stranger.told(body)
    stranger.close()
    assert house.message(accepted).state == "sent"
    assert house.suppressed() == {}


def test_a_mail_is_found_by_the_providers_id_where_our_reference_is_missing(house: PostmarkHouse) -> None:
    accepted, mail = house.sent()
    body = house.postmark.report("Delivery", mail)
    del body["Metadata"]
    house.told(body)
    assert house.message(accepted).state == "delivered"


@pytest.mark.parametrize(
    ("record", "more", "reason"),
    [
        ("Bounce", {"Type": "HardBounce"}, "hard_bounce"),
        ("Bounce", {"Type": "SoftBounce"}, None),
        ("Bounce", {"Type": "Blocked"}, None),
        ("SpamComplaint", {}, "complaint"),
        ("SubscriptionChange", {"SuppressSending": True, "SuppressionReason": "ManualSuppression"}, "unsubscribe"),
    ],
)
def test_only_hard_bounces_complaints_and_unsubscribes_suppress(
    house: PostmarkHouse, record: str, more: dict[str, Any], reason: str | None
) -> None:
    _, mail = house.sent("Ann@example.com")
    house.told(house.postmark.report(record, mail, **more))
    assert house.suppressed() == ({"ann@example.com": reason} if reason else {})


def test_a_hard_bounced_address_gets_nothing_more(house: PostmarkHouse) -> None:
    _, mail = house.sent("gone@example.com")
    house.told(house.postmark.bounce(mail))
    again = house.submit("gone@example.com")
    house.deliver_all()
    assert house.message(again).state == "suppressed"


def test_a_bounce_names_the_one_recipient_of_a_shared_mail(house: PostmarkHouse) -> None:
    accepted, mail = house.sent("ann@example.com", individual=False, cc=(Address("Bob@example.com"),))
    house.told(house.postmark.report("Bounce", mail, "bob@example.com", Type="HardBounce", ID=7))
    message = house.message(accepted)
    [event] = house.rows(
        "select recipients, state from event where message_id = :id and type = 'bounced'", id=message.id
    )
    assert event == {"recipients": ["Bob@example.com"], "state": "bounced"}
    assert house.suppressed() == {"bob@example.com": "hard_bounce"}


def test_a_report_on_an_uncertain_mail_proves_that_it_was_sent(house: PostmarkHouse) -> None:
    house.postmark.fail(Fault.ACCEPT_THEN_CLOSE)
    accepted = house.submit("ann@example.com")
    house.deliver()
    message = house.message(accepted)
    assert message.state == "uncertain"
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update message set due_at = :never where id = :id"), {"id": message.id, "never": UNTIL_SOMEBODY_ACTS}
        )
    house.told(house.postmark.report("Delivery", house.postmark.mails[-1]))
    assert house.message(accepted).state == "sent"
    house.record_all()
    _let_time_pass(house)
    house.apply()
    message = house.message(accepted)
    assert (message.state, message.due_at, _status(house, message.id)) == ("delivered", None, "delivered")
    assert house.events(message.id) == ["accepted", "delivered"]
    assert message.attempts[-1]["outcome"] == "reported"


def test_opens_clicks_and_bounces_stand_once_on_each_linked_timeline(house: PostmarkHouse) -> None:
    accepted, mail = house.sent(links=house.links)
    agent = {"UserAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0"}
    house.told(
        house.postmark.report("Open", mail, **agent),
        house.postmark.report("Open", mail, **agent, ID=2),
        house.postmark.report("Click", mail, **agent, OriginalLink="https://demo.test/a"),
        house.postmark.bounce(mail),
    )
    found = house.rows(
        "select entity_type, kind from activity where message_id = :id and kind <> 'email_sent' order by 1, 2",
        id=house.message(accepted).id,
    )
    kinds = ["email_bounced", "email_clicked", "email_opened"]
    assert [(row["entity_type"], row["kind"]) for row in found] == [
        (entity, kind) for entity in ("contact", "customer", "deal") for kind in kinds
    ]


def test_a_machines_click_is_an_event_but_no_activity(house: PostmarkHouse) -> None:
    accepted, mail = house.sent(links=house.links)
    house.told(
        house.postmark.report("Click", mail, UserAgent="Barracuda Sentinel (EE)", OriginalLink="https://a.test/")
    )
    message = house.message(accepted)
    [event] = house.rows("select data from event where message_id = :id and type = 'clicked'", id=message.id)
    assert (event["data"]["is_bot"], event["data"]["bot_reason"]) == (True, "user_agent")
    assert (
        house.scalar("select count(*) from activity where kind = 'email_clicked' and message_id = :id", id=message.id)
        == 0
    )


def test_a_recipient_deferred_again_and_again_is_one_event(house: PostmarkHouse) -> None:
    accepted, mail = house.sent()
    at = {"BouncedAt": "2026-11-21T10:00:00Z"}
    house.told(*(house.postmark.bounce(mail, kind="Transient", **at) for _ in range(18)))
    assert house.events(house.message(accepted).id) == ["accepted", "deferred"]


def test_a_report_that_cannot_be_applied_does_not_hold_up_the_others(house: PostmarkHouse) -> None:
    accepted, mail = house.sent()
    poison = house.postmark.report("Delivery", mail, Details="ok")
    house.hand_over(poison, house.postmark.report("Open", mail, UserAgent="Firefox"))
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text(
                "create or replace function refuse() returns trigger language plpgsql as"
                " $$ begin raise exception 'no'; end $$"
            )
        )
        connection.execute(
            text(
                "create trigger refuse before insert on event for each row"
                " when (new.type = 'delivered') execute function refuse()"
            )
        )
    try:
        house.apply()
    finally:
        with house.runtime.engine.begin() as connection:
            connection.execute(text("drop trigger refuse on event"))
    message = house.message(accepted)
    assert (message.state, house.events(message.id)) == ("sent", ["accepted", "opened"])
    _let_time_pass(house)
    house.apply()
    assert house.message(accepted).state == "delivered"


def test_what_postgresql_cannot_store_is_cleaned_not_refused(house: PostmarkHouse) -> None:
    accepted, mail = house.sent()
    house.told(house.postmark.report("Delivery", mail, Details="a\0b\ud800c"))
    [event] = house.rows(
        "select data from event where message_id = :id and type = 'delivered'", id=house.message(accepted).id
    )
    assert event["data"]["reason"] == "ab?c"


def test_a_mailer_whose_secret_does_not_open_does_not_hold_up_the_others(
    house: PostmarkHouse, configured: Settings
) -> None:
    locked = PostmarkHouse(configured, house.postmark)
    _, mail = locked.sent()
    locked.hand_over(locked.postmark.report("Delivery", mail))
    with locked.runtime.engine.begin() as connection:
        connection.execute(text("update mailer set sealed_credentials = 'x' where id = :m"), {"m": locked.mailer_id})
    accepted, mail = house.sent()
    house.told(house.postmark.report("Delivery", mail))
    locked.close()
    assert house.message(accepted).state == "delivered"


def test_a_due_report_rings_its_lane_and_a_waiting_one_does_not(house: PostmarkHouse) -> None:
    _, mail = house.sent(recorded=False)
    house.hand_over(house.postmark.report("Delivery", mail))
    with house.runtime.engine.connect() as connection:
        assert REPORTS_LANE in set(due_lanes(connection))
    house.apply()
    with house.runtime.engine.connect() as connection:
        assert REPORTS_LANE not in set(due_lanes(connection))
    house.record_all()


def test_nothing_of_the_hooks_password_lies_open_in_the_database(house: PostmarkHouse) -> None:
    _, mail = house.sent()
    house.hand_over(house.postmark.report("Delivery", mail), authorization="Basic b3Blbi1zZXNhbWU=")
    [row] = house.rows("select * from provider_report where mailer_id = :m")
    assert not any("b3Blbi1zZXNhbWU" in str(value) for value in row.values())
    house.apply()


_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Delivery", {"DeliveredAt": "2026-11-21T10:00:01Z"}),
    ("Bounce", {"Type": "Transient", "ID": 1, "BouncedAt": "2026-11-21T10:00:00Z"}),
    ("Bounce", {"Type": "Transient", "ID": 2, "BouncedAt": "2026-11-21T10:01:00Z"}),
    ("Bounce", {"Type": "HardBounce", "ID": 3, "BouncedAt": "2026-11-21T10:05:00Z"}),
    ("SpamComplaint", {"ID": 4, "BouncedAt": "2026-11-21T11:00:00Z"}),
    ("SubscriptionChange", {"SuppressSending": True, "ChangedAt": "2026-11-21T11:30:00Z"}),
    ("Open", {"ReceivedAt": "2026-11-21T10:02:00Z", "UserAgent": "Firefox"}),
]


def _left_behind(house: PostmarkHouse, message_id: UUID) -> tuple[Any, ...]:
    message = house.rows("select state from message where id = :id", id=message_id)
    activities = house.rows("select kind from activity where message_id = :id order by 1", id=message_id)
    return (
        message[0]["state"],
        _status(house, message_id),
        sorted(house.events(message_id)),
        house.suppressed(),
        [row["kind"] for row in activities],
    )


@given(
    order=st.lists(st.sampled_from(range(len(_KINDS))), min_size=0, max_size=8),
    every=st.permutations(range(len(_KINDS))),
    together=st.booleans(),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_reports_in_any_order_and_number_leave_the_same_behind(
    house: PostmarkHouse, order: list[int], every: list[int], together: bool
) -> None:
    with house.runtime.engine.begin() as connection:
        connection.execute(text("delete from suppression where workspace_id = :w"), {"w": house.workspace_id})
    accepted, mail = house.sent(links=house.links)
    bodies = [house.postmark.report(record, mail, **copy.copy(more)) for record, more in _KINDS]
    reports = [bodies[index] for index in [*order, *every]]
    for part in [reports] if together else [[body] for body in reports]:
        house.told(*part)
    assert _left_behind(house, house.message(accepted).id) == (
        "complained",
        "complained",
        ["accepted", "bounced", "complained", "deferred", "delivered", "opened", "unsubscribed"],
        {"ann@example.com": "complaint"},
        sorted(["email_sent", "email_opened", "email_bounced"] * 3),
    )


def test_several_workers_at_once_leave_each_event_once(house: PostmarkHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.reports.BATCH", 5)
    sent = [house.sent(f"user{number}@example.com", links=house.links) for number in range(8)]
    bodies = [
        body
        for _, mail in sent
        for body in (
            house.postmark.report("Delivery", mail),
            house.postmark.bounce(mail, ID=uuid4().int),
            house.postmark.report("Open", mail, UserAgent="Firefox"),
        )
    ]
    random.Random(1).shuffle(bodies)
    for body in bodies * 4:
        house.hand_over(body)

    def worker() -> None:
        while house.scalar("select count(*) from provider_report where mailer_id = :m"):
            apply_reports(house.runtime)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(worker) for _ in range(4)]:
            done.result(60)
    for accepted, _ in sent:
        message = house.message(accepted)
        assert (message.state, _status(house, message.id)) == ("bounced", "bounced")
        assert sorted(house.events(message.id)) == ["accepted", "bounced", "delivered", "opened"]
    cursors = [row["cursor"] for row in house.rows("select cursor from event where workspace_id = :w order by 1")]
    assert cursors == list(range(1, len(cursors) + 1))
