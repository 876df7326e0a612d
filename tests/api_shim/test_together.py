"""Requests that arrive together: stored together, refused one by one."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api_shim import entities, gathering, rows
from api_shim.auth import Caller
from api_shim.entities import Known
from api_shim.gathering import Gatherer
from api_shim.idempotency import Repeat
from api_shim.limits import DAY, Limit, Limiter
from api_shim.reception import Incoming, Parse, Reception, Taken
from api_shim.services import Services
from api_shim.submission import Link, Shape, Submission
from models.base import uuid7
from models.content import Address
from models.database import fetch
from models.mailer import EmailConfig
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_mailer
from tests.chaos.proxy import Proxy
from worker.settings import Settings


class TestGatherer:
    def test_who_comes_while_a_group_is_under_way_makes_the_next_one(self) -> None:
        groups: list[list[int]] = []
        under_way, let_go = threading.Event(), threading.Event()

        def work(items: Sequence[int]) -> list[int]:
            groups.append(list(items))
            under_way.set()
            let_go.wait(60)
            return [item * 10 for item in items]

        async def run() -> list[int]:
            gatherer: Gatherer[int, int] = Gatherer(work, threads=1)
            first = asyncio.create_task(gatherer.do(0))
            await asyncio.to_thread(under_way.wait)
            others = [asyncio.create_task(gatherer.do(number)) for number in range(1, 6)]
            await asyncio.sleep(0)  # each has said what it wants
            let_go.set()
            rest = await asyncio.gather(*others)
            gatherer.close()
            return [await first, *rest]

        assert asyncio.run(run()) == [0, 10, 20, 30, 40, 50]
        assert groups == [[0], [1, 2, 3, 4, 5]]

    def test_a_group_that_is_held_up_holds_up_nobody_else(self) -> None:
        held, let_go = threading.Event(), threading.Event()

        def work(items: Sequence[int]) -> Sequence[int]:
            if 0 in items:
                held.set()
                let_go.wait(120)
            return items

        async def run() -> float:
            gatherer: Gatherer[int, int] = Gatherer(work, threads=2)
            slow = asyncio.create_task(gatherer.do(0))
            await asyncio.to_thread(held.wait)
            began = time.monotonic()
            await gatherer.do(1)
            took = time.monotonic() - began
            let_go.set()
            await slow
            gatherer.close()
            return took

        assert asyncio.run(run()) < 60

    def test_a_backlog_sets_no_more_timers_than_it_makes_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gathering, "MOST", 1)
        monkeypatch.setattr(gathering, "PATIENCE_SECONDS", 0.004)

        def work(items: Sequence[int]) -> Sequence[int]:
            time.sleep(0.002)
            return items

        async def run() -> tuple[int, float]:
            gatherer: Gatherer[int, int] = Gatherer(work, threads=1)
            loop = asyncio.get_running_loop()
            timers, began = 0, time.monotonic()
            call_later = loop.call_later

            def counted(*arguments: Any) -> asyncio.TimerHandle:
                nonlocal timers
                timers += 1
                return call_later(*arguments)

            monkeypatch.setattr(loop, "call_later", counted)
            await asyncio.gather(*(gatherer.do(number) for number in range(150)))
            gatherer.close()
            return timers, time.monotonic() - began

        timers, took = asyncio.run(run())
        assert timers <= 150 + took / 0.004 + 10, "one a group, and one that goes on as long as the backlog lasts"

    def test_what_the_work_raises_goes_to_all_of_the_group_and_the_next_one_goes_on(self) -> None:
        def work(items: Sequence[int]) -> Sequence[int]:
            if 0 in items:
                raise ValueError("no")
            return items

        async def run() -> list[int | BaseException]:
            gatherer: Gatherer[int, int] = Gatherer(work, threads=1)
            failed = await asyncio.gather(gatherer.do(0), gatherer.do(1), return_exceptions=True)
            return [*failed, await gatherer.do(2)]

        first, second, third = asyncio.run(run())
        assert (str(first), str(second), third) == ("no", "no", 2)


@pytest.fixture
def reception(app_services: Services) -> Reception:
    return Reception(app_services)


@pytest.fixture
def mailer_id(session: Session, tenant: Tenant) -> UUID:
    return add_mailer(session, tenant)


def submission(mailer_id: UUID, address: str, **fields: object) -> Submission:
    values = {"shape": Shape.MAILER, "to": (Address(address),), "individual": True, "subject": "Hello", "text": "Hello"}
    return Submission(**(values | {"mailer_id": mailer_id} | fields))  # type: ignore[arg-type]


def incoming(tenant: Tenant, parsed: Submission | Parse, key: str | None = None) -> Incoming:
    def parse(_session: Session, _caller: Caller) -> Submission:
        assert isinstance(parsed, Submission)
        return parsed

    return Incoming(
        authorization=f"Bearer {tenant.key}",
        parse=parse if isinstance(parsed, Submission) else parsed,
        repeat=Repeat(key, b"fingerprint", {}) if key else None,
        request_id="together",
        traceparent=None,
        awaited=False,
    )


def stored(session: Session, tenant: Tenant) -> list[str]:
    query = text("select recipients[1] from message where workspace_id = :id order by id")
    return list(session.execute(query, {"id": tenant.workspace_id}).scalars())


def fates(taken: Sequence[Taken]) -> list[str]:
    return [type(one.fault).__name__ if one.fault else "accepted" for one in taken]


def test_one_that_is_refused_takes_nobody_with_it(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    unknown = Link(field="contact_id", kind="contact", id=uuid7())
    requests = [
        incoming(tenant, submission(mailer_id, "ann@example.com")),
        incoming(tenant, submission(mailer_id, "bob@example.com", links=(unknown,))),
        incoming(tenant, submission(mailer_id, "cat@example.com", campaign_id="spring")),
        incoming(tenant, submission(mailer_id, "dan@example.com"), key="once"),
    ]
    assert fates(reception.take(requests)) == ["accepted", "ApiError", "accepted", "accepted"]
    assert sorted(stored(session, tenant)) == ["ann@example.com", "cat@example.com", "dan@example.com"]


def test_what_a_group_names_is_found_by_one_statement(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(db: Session, statement: str, parameters: Sequence[object]) -> list[Any]:
        asked.append(statement)
        return fetch(db, statement, parameters)

    monkeypatch.setattr(entities, "fetch", counting)
    other, unknown = add_mailer(session, tenant), Link(field="deal_id", kind="deal", id=uuid7())
    requests = [
        incoming(tenant, submission(mailer_id, "ann@example.com")),
        incoming(tenant, submission(other, "bob@example.com", links=(unknown,))),
        incoming(tenant, submission(other, "cat@example.com")),
    ]
    assert fates(reception.take(requests)) == ["accepted", "ApiError", "accepted"]
    assert len(asked) == 1


def test_the_default_sender_brings_its_mailer_which_counts_as_found(
    session: Session, tenant: Tenant, mailer_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = {"from_email_handle": "team", "from_name": "The team", "staff_email": "ada@mail.test"}
    session.add(EmailConfig(workspace_id=tenant.workspace_id, mailer_id=mailer_id, is_default=True, **sender))
    session.commit()
    known = Known(session)
    config = known.default_config(tenant.workspace_id)
    monkeypatch.setattr(entities, "fetch", None)  # nothing more is asked
    mailer = known.mailer(tenant.workspace_id, mailer_id)
    known.require(tenant.workspace_id, submission(mailer_id, "ann@example.com"))
    assert (config and config.mailer_id, mailer and mailer.id) == (mailer_id, mailer_id)


def test_a_body_that_makes_us_fail_fails_alone(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    def broken(_session: Session, _caller: Caller) -> Submission:
        raise ZeroDivisionError

    taken = reception.take([incoming(tenant, broken), incoming(tenant, submission(mailer_id, "ann@example.com"))])
    assert fates(taken) == ["ZeroDivisionError", "accepted"]
    assert stored(session, tenant) == ["ann@example.com"]


def test_a_mailer_that_is_deleted_meanwhile_gets_no_mail_and_the_others_get_theirs_once(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    dead = add_mailer(session, tenant)

    def delete_and_parse(_session: Session, _caller: Caller) -> Submission:
        session.execute(text("update mailer set deleted_at = now() where id = :id"), {"id": dead})
        session.commit()
        return submission(mailer_id, "bob@example.com")

    requests = [
        incoming(tenant, submission(dead, "ann@example.com")),
        incoming(tenant, delete_and_parse),
        incoming(tenant, submission(mailer_id, "cat@example.com")),
    ]
    assert fates(reception.take(requests)) == ["ApiError", "accepted", "accepted"]
    assert sorted(stored(session, tenant)) == ["bob@example.com", "cat@example.com"]


@pytest.fixture
def wire(settings: Settings) -> Iterator[Proxy]:
    """To PostgreSQL."""
    with Proxy(lambda: urlsplit(settings.database_url).port or 5432) as running:
        yield running


@pytest.fixture
def reception_by_wire(settings: Settings, wire: Proxy) -> Iterator[Reception]:
    port = urlsplit(settings.database_url).port
    services = Services(
        settings.model_copy(update={"database_url": settings.database_url.replace(f":{port}/", f":{wire.port}/")})
    )
    yield Reception(services)
    services.close()


def test_a_group_that_was_stored_and_whose_answer_was_lost_is_not_stored_again(
    reception_by_wire: Reception, wire: Proxy, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    wire.swallow(b"insert into submission", b"ann@example.com")
    requests = [incoming(tenant, submission(mailer_id, f"{name}@example.com")) for name in ("ann", "bob")]
    taken = reception_by_wire.take(requests)
    assert wire.swallowed
    assert [type(one.fault) for one in taken] == [OperationalError] * 2
    assert stored(session, tenant) == ["ann@example.com", "bob@example.com"]


def test_who_was_stored_is_told_so_though_the_database_went_away_for_a_neighbour(
    reception_by_wire: Reception, wire: Proxy, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    wire.swallow(b"insert into idempotency_key", b"cat@example.com")
    requests = [
        incoming(tenant, submission(mailer_id, "ann@example.com")),
        incoming(tenant, submission(mailer_id, "bob@example.com"), key="bob"),
        incoming(tenant, submission(mailer_id, "cat@example.com"), key="cat"),
    ]
    taken = reception_by_wire.take(requests)
    assert wire.swallowed
    assert [one.accepted is not None for one in taken] == [True, False, False]
    assert fates(taken) == ["accepted", "OperationalError", "OperationalError"]
    assert stored(session, tenant) == ["ann@example.com"]


def test_submissions_that_make_many_mails_together_are_stored_whole_by_one_statement(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a second statement, which could fail after the first was committed")

    monkeypatch.setattr(rows, "_copy", broken)
    everyone = [tuple(Address(f"reader{start + number}@example.com") for number in range(300)) for start in (0, 300)]
    requests = [incoming(tenant, submission(mailer_id, "-", to=to)) for to in everyone]
    assert fates(reception.take(requests)) == ["accepted", "accepted"]
    assert len(stored(session, tenant)) == 600
    query = text("select count(*) from submission where workspace_id = :id")
    assert session.scalar(query, {"id": tenant.workspace_id}) == 2


def test_two_with_the_same_key_in_one_group_are_one_submission(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    requests = [incoming(tenant, submission(mailer_id, "ann@example.com"), key="same") for _ in range(3)]
    taken = reception.take(requests)
    assert len({one.accepted.submission_id for one in taken if one.accepted}) == 1
    assert stored(session, tenant) == ["ann@example.com"]


@pytest.mark.parametrize("key", [None, "once"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_lane_is_rung_when_its_rows_are_there_to_be_seen(
    app_services: Services,
    session: Session,
    tenant: Tenant,
    mailer_id: UUID,
    key: str | None,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(app_services.ringer, "ring", lambda _lane: seen.append(len(stored(session, tenant))))
    requests = [
        incoming(tenant, submission(mailer_id, f"reader{one}@example.com"), key=key and f"{key}{one}")
        for one in range(number)
    ]
    assert fates(Reception(app_services).take(requests)) == ["accepted"] * number
    assert set(seen) == {number}


def test_a_neighbour_that_is_refused_silences_no_bell(
    app_services: Services, tenant: Tenant, mailer_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[object] = []
    monkeypatch.setattr(app_services.ringer, "ring", rung.append)
    unknown = Link(field="contact_id", kind="contact", id=uuid7())
    requests = [
        incoming(tenant, submission(mailer_id, "ann@example.com"), key="ann"),
        incoming(tenant, submission(mailer_id, "bob@example.com", links=(unknown,)), key="bob"),
    ]
    assert fates(Reception(app_services).take(requests)) == ["accepted", "ApiError"]
    assert rung


def test_of_more_than_the_cap_allows_as_many_pass_as_it_allows(
    reception: Reception, session: Session, tenant: Tenant, mailer_id: UUID
) -> None:
    caps = text("""update api_key set caps = '{"per_day": 3}' where id = :id""")
    session.execute(caps, {"id": tenant.key_id})
    session.commit()
    requests = [incoming(tenant, submission(mailer_id, f"reader{number}@example.com")) for number in range(5)]
    assert fates(reception.take(requests)).count("accepted") == 3
    assert len(stored(session, tenant)) == 3


def test_a_group_is_told_how_the_limits_stand_after_it(app_services: Services, tenant: Tenant) -> None:
    limiter: Limiter = app_services.limiter
    limits = [Limit("per_day", f"postroad:limit:test:{tenant.key_id}", 100, DAY, 2)]
    standings = limiter.take_all([limits, limits, limits])
    assert [getattr(one, "remaining", None) for one in standings] == [94, 94, 94]
