"""A mailbox whose refresh token is replaced at every renewal, used by several workers at once."""

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from models.mailer import Mailer
from providers.base import Outcome, Result
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker.delivery import deliver
from worker.mailers import mailer_purpose
from worker.runtime import Runtime
from worker.settings import Settings


class MailboxHouse(House):
    def __init__(self, settings: Settings, microsoft: Microsoft365Emulator) -> None:
        self.microsoft = microsoft
        with SmtpEmulator() as unused:
            super().__init__(settings, unused)

    def _mailer(self) -> Mailer:
        mailer = super()._mailer()
        mailer.provider = "microsoft365"
        mailer.base_url = mailer.auth_url = self.microsoft.url
        mailer.sealed_credentials = self.sealed(self.microsoft.credentials())
        return mailer

    def sealed(self, credentials: dict[str, Any]) -> bytes:
        return self.runtime.vault.seal(mailer_purpose(self.mailer_id), credentials)

    def credentials(self) -> dict[str, Any]:
        sealed = self.scalar("select sealed_credentials from mailer where id = :m")
        return self.runtime.vault.open(mailer_purpose(self.mailer_id), sealed)

    def renewals(self) -> int:
        return len(self.microsoft.calls_to("/token"))


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[MailboxHouse]:
    with Microsoft365Emulator() as microsoft:
        opened = MailboxHouse(settings_for(database_url, redis_url), microsoft)
        yield opened
        opened.close()


def test_workers_at_once_renew_once_and_the_new_token_is_kept(house: MailboxHouse) -> None:
    workers = [Runtime(house.settings, application=f"worker {number}") for number in range(4)]
    start = threading.Barrier(len(workers))

    def check(runtime: Runtime) -> Outcome:
        mailer = runtime.providers.mailer(house.mailer_id)
        assert mailer is not None
        start.wait()
        return mailer.provider.check()

    with ThreadPoolExecutor(len(workers)) as threads:
        outcomes = list(threads.map(check, workers))
    for runtime in workers:
        runtime.close()
    assert {outcome.result for outcome in outcomes} == {Result.ACCEPTED}
    assert house.renewals() == 1
    assert house.credentials()["refresh_token"] == house.microsoft.refresh_tokens[-1]


_at_once: list[Barrier] = []


def _given(start: Barrier) -> None:
    """A spawned process keeps what it was given at its start."""
    _at_once.append(start)


def _check_in_a_process(settings: Settings, mailer_id: UUID) -> str:
    """What another worker process makes of the mailer."""
    runtime = Runtime(settings, application="another process")
    mailer = runtime.providers.mailer(mailer_id)
    assert mailer is not None
    _at_once[0].wait(60)
    found = mailer.provider.check().result.value
    runtime.close()
    return found


def test_processes_at_once_renew_once(house: MailboxHouse) -> None:
    # Spawned, not forked: a child of a process with threads may inherit a lock that nobody will ever release.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, fresh, _given, (fresh.Barrier(3),)) as pool:
        asked = [pool.submit(_check_in_a_process, house.settings, house.mailer_id) for _ in range(3)]
        assert [one.result(100) for one in asked] == ["accepted"] * 3
    assert house.renewals() == 1
    assert house.credentials()["refresh_token"] == house.microsoft.refresh_tokens[-1]


def test_the_next_task_and_the_next_worker_use_the_token_at_hand(house: MailboxHouse) -> None:
    for _ in range(3):
        house.submit("ann@example.com")
        house.deliver_all()
    newcomer = Runtime(house.settings, application="newcomer")
    house.submit("bob@example.com")
    assert deliver(newcomer, house.mailer_id, 0).done == 1
    newcomer.close()
    assert house.renewals() == 1


def test_a_token_that_was_revoked_early_is_renewed_with_the_latest_refresh_token(house: MailboxHouse) -> None:
    house.submit("ann@example.com")
    house.deliver_all()
    house.microsoft.refresh_tokens = house.microsoft.refresh_tokens[-1:]
    house.microsoft.expire_tokens()
    accepted = house.submit("bob@example.com")
    house.deliver_all()
    assert house.message(accepted).state == "sent"
    assert house.renewals() == 2


def test_credentials_that_were_set_during_a_renewal_are_not_overwritten(house: MailboxHouse) -> None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    keeper = mailer.provider.account.keeper
    assert keeper is not None

    def renew(stored: Any) -> dict[str, Any]:
        with house.runtime.engine.begin() as connection:
            connection.execute(
                text("update mailer set sealed_credentials = :sealed where id = :id"),
                {"sealed": house.sealed({"refresh_token": "set by hand"}), "id": house.mailer_id},
            )
        return {**stored, "refresh_token": "renewed"}

    keeper(renew)
    assert house.credentials() == {"refresh_token": "set by hand"}


def test_no_transaction_is_open_while_the_token_endpoint_is_asked_and_no_lock_stays(house: MailboxHouse) -> None:
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    keeper = mailer.provider.account.keeper
    assert keeper is not None
    seen: list[Any] = []

    def renew(stored: Any) -> dict[str, Any]:
        seen.append(house.scalar(_OPEN))
        seen.append(house.scalar(_LOCKS))
        raise ConnectionError("the endpoint hung up")

    for _ in range(2):
        with pytest.raises(ConnectionError):
            keeper(renew)
    assert seen == [0, 1] * 2
    assert house.scalar(_LOCKS) == 0


_OPEN = """
    select count(*) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
"""
_LOCKS = """
    select count(*) from pg_locks where locktype = 'advisory' and classid <> 0
    and database = (select oid from pg_database where datname = current_database())
    and objid::bigint | (classid::bigint << 32)
        = hashtextextended('credentials of ' || (select id from mailer where id = :m), 0)
"""


def test_credentials_of_a_deleted_mailer_do_not_come_back(house: MailboxHouse) -> None:
    accepted = house.submit("ann@example.com")
    mailer = house.runtime.providers.mailer(house.mailer_id)
    assert mailer is not None
    with house.runtime.engine.begin() as connection:
        connection.execute(
            text("update mailer set deleted_at = now(), sealed_credentials = '' where id = :id"),
            {"id": house.mailer_id},
        )
    assert mailer.provider.check().result is Result.TRANSIENT
    assert house.scalar("select sealed_credentials from mailer where id = :m") == b""
    assert house.renewals() == 0
    assert house.message(accepted).state == "queued"
