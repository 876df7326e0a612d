"""Mail that lies at a provider: mailboxes are watched and looked into, and each mail found is picked up.

A provider's notice is a doorbell. What is new is asked for with the watch's cursor, and now and then without a notice
too. No transaction is open while a provider is asked. The end of a pickup and the report that stores the mail are one
commit, so that no mail is lost, and none is applied twice.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from providers.base import Outcome, Result
from providers.inbox import Inbox, ReadFailed, Watch
from worker import pickups, reports
from worker.bell import REPORTS_LANE
from worker.mailers import OpenMailer
from worker.pickups import Look
from worker.runtime import Runtime
from worker.vault import SecretUnreadable

log = structlog.get_logger()

POLL_SECONDS = 300.0
"""How often a mailbox is looked into whose provider notifies us: a notice may be lost."""
UNNOTIFIED_SECONDS = 30.0
"""The same where the provider does not."""
RENEW_AFTER = timedelta(days=1)
"""A watch is renewed at this age, or halfway to its end if that is sooner."""
PICKUPS = 20
"""Mails taken in hand in one turn."""
TURN_SECONDS = 20.0
"""No further mail is fetched after this; the lane goes on after others had their turn."""
GIVE_UP = timedelta(days=3)
"""A mail that could not be fetched for so long is left; Mailgun keeps one no longer."""
LONGEST_WAIT_SECONDS = 3600.0


def collect(runtime: Runtime, mailer_id: UUID) -> bool:
    """Looks into a mailer's mailbox if that is due, and fetches what was found. True: there is more, ring again."""
    try:
        mailer = runtime.providers.mailer(mailer_id)
    except SecretUnreadable:
        log.error("mailer_secret_unreadable", mailer_id=str(mailer_id), next=f"again in {POLL_SECONDS:g} s")
        with runtime.engine.begin() as db:
            pickups.rest(db, mailer_id, POLL_SECONDS)
        return False
    inbox = None if mailer is None else mailer.provider.inbox()
    if mailer is None or inbox is None:
        with runtime.engine.begin() as db:
            pickups.forget(db, mailer_id)
        return False
    turn = _Turn(runtime=runtime, mailer=mailer, inbox=inbox)
    more = turn.look()
    return turn.pick_up() or more


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One turn at one mailbox."""

    runtime: Runtime
    mailer: OpenMailer
    inbox: Inbox

    def look(self) -> bool:
        """Renews the watch and asks for news, each if it is due. True if there is more news."""
        with self.runtime.engine.begin() as db:
            row = pickups.take_watch(db, self.mailer, self.runtime.settings.lease)
        if row is None:
            return False
        watch, amiss = self._watch(row)
        try:
            news = self.inbox.news(row.cursor)
        except ReadFailed as failure:
            wait = _wait(failure.outcome, row.tries)
            look = Look(started_at=row.started_at, wait=wait, failed=True, error=failure.outcome.detail)
            with self.runtime.engine.begin() as db:
                pickups.looked(db, self.mailer, look)
            return False
        every = UNNOTIFIED_SECONDS if watch.subscription is None or amiss else POLL_SECONDS
        look = Look(
            started_at=row.started_at, wait=0.0 if news.more else every, cursor=news.cursor or None, error=amiss
        )
        with self.runtime.engine.begin() as db:
            pickups.find(db, self.mailer, news.locators)
            pickups.looked(db, self.mailer, look)
        return news.more

    def _watch(self, row: Any) -> tuple[Watch, str | None]:
        """The watch, renewed if it is time, and what is amiss with it. The mailbox is looked into all the same."""
        watch = Watch(
            notify_url=f"{self.runtime.settings.public_url}/v1/hooks/{self.mailer.hook}",
            topic=row.topic,
            subscription=row.subscription,
            expires_at=row.expires_at,
        )
        if not row.renew:
            return watch, None
        try:
            watch = self.inbox.watch(watch)
        except ReadFailed as failure:
            log.warning("watch_not_renewed", mailer_id=str(self.mailer.id), code=failure.outcome.code)
            return watch, f"the provider does not notify us: {failure.outcome.detail}"
        with self.runtime.engine.begin() as db:
            pickups.renewed(db, self.mailer, watch, _renew_at(watch))
        return watch, None

    def pick_up(self) -> bool:
        """Fetches mails whose time it is. True if there may be more."""
        with self.runtime.engine.begin() as db:
            rows = pickups.take(db, self.mailer, PICKUPS, self.runtime.settings.lease)
        ends_at = time.monotonic() + TURN_SECONDS
        for number, row in enumerate(rows):
            if time.monotonic() >= ends_at:
                self._put_off(rows[number:], 0.0, None)
                break
            failure = self._fetch(row)
            # What one mail meets here, all meet.
            if failure is not None and failure.result in (Result.CREDENTIALS, Result.THROTTLED):
                self._put_off(rows[number + 1 :], _wait(failure, row.tries), None)
                break
        if rows:
            self.runtime.bells.ring(REPORTS_LANE)
        return len(rows) == PICKUPS

    def _fetch(self, row: Any) -> Outcome | None:
        """Stores one mail as a report. What kept it from that, or None."""
        try:
            fetched = self.inbox.fetch(row.locator)
        except ReadFailed as failure:
            self._not_fetched(row, failure.outcome)
            return failure.outcome
        with self.runtime.engine.begin() as db:
            if fetched is not None:
                mail = reports.RawMail(
                    natural_key=f"{self.mailer.provider_name}:{row.locator}",
                    raw=fetched.raw,
                    provider_thread_id=fetched.provider_thread_id,
                )
                reports.store_mail(db, self.runtime.vault, self.mailer, mail)
            pickups.end(db, self.mailer, row.id, None if fetched is not None else "it was no longer there")
        return None

    def _not_fetched(self, row: Any, outcome: Outcome) -> None:
        given_up = outcome.result is Result.PERMANENT or datetime.now(UTC) - row.created_at > GIVE_UP
        log.warning("mail_not_fetched", pickup_id=str(row.id), result=outcome.result, given_up=given_up)
        if not given_up:
            self._put_off([row], _wait(outcome, row.tries), outcome.detail or outcome.result)
            return
        with self.runtime.engine.begin() as db:
            pickups.end(db, self.mailer, row.id, outcome.detail)

    def _put_off(self, rows: Sequence[Any], wait: float, error: str | None) -> None:
        with self.runtime.engine.begin() as db:
            pickups.put_off(db, self.mailer, [row.id for row in rows], wait, error)


def _wait(outcome: Outcome, tries: int) -> float:
    """Seconds until the next try: what the provider says, else longer each time."""
    return min(outcome.retry_after or 5.0 * 3 ** min(tries, 10), LONGEST_WAIT_SECONDS)


def _renew_at(watch: Watch) -> datetime | None:
    now = datetime.now(UTC)
    return None if watch.expires_at is None else now + min(RENEW_AFTER, (watch.expires_at - now) / 2)
