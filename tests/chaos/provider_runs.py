"""A workspace that sends through an emulated provider while things go wrong, and what came of it.

The path is the real one: intake, claim, compose, adapter, outcome, lookup, follow-up, reports. Only clocks are
shortened: timeouts, backoff, pauses, and ``settle_seconds``, which stays longer than the emulator's index lags.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from sqlalchemy import text

from models.mailer import Mailer
from models.message import ACCEPTED, OPEN, UNTIL_SOMEBODY_ACTS, Message, State
from providers.base import HookRequest
from providers.emulators.smtp import SmtpEmulator
from tests.chaos.provider_sides import SIDES, Side
from tests.worker.house import House
from worker.mailers import mailer_purpose
from worker.reports import apply_reports, store
from worker.settings import Settings

BURST = 10
"""Batches at most that go out before anything else is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a run. Mails are named by id."""

    provider: str
    mails: int
    states: Mapping[str, int]
    lost: Sequence[str]
    """Count as sent and are not there."""
    doubled: Sequence[str]
    """Were delivered more than once, or although they count as not sent."""
    held: Sequence[str]
    """Wait for a person."""
    doubted: Sequence[str]
    """Had an attempt whose end is not known."""
    not_told_once: Sequence[str]
    """Were taken by a provider that reports deliveries, and have not exactly one such event."""
    failed: int
    logged: int
    """Rows of the log."""
    lookups: int
    reconnects: int
    faults: Mapping[str, int]
    seconds: float

    def __str__(self) -> str:
        counts = ", ".join(f"{state} {count}" for state, count in sorted(self.states.items()))
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.provider:<13}{self.mails:>6} mails in {self.seconds:.0f} s: lost {len(self.lost)}, "
            f"doubled {len(self.doubled)}, held {len(self.held)}; lookups {self.lookups}, "
            f"reconnects {self.reconnects}\n    {counts}\n    {faults}"
        )


class Run(House):
    """One mailer of one provider, its mail, and an operator who reconnects it when it asks for that."""

    def __init__(self, settings: Settings, side: Side, seed: int) -> None:
        self.side = side
        self.seed = seed
        self.dice = random.Random(seed)
        self.reconnects = 0
        super().__init__(settings, cast(SmtpEmulator, None))  # the side has the server

    def _mailer(self) -> Mailer:
        return Mailer(
            id=self.mailer_id,
            workspace_id=self.workspace_id,
            provider=self.side.provider,
            name="test",
            from_addresses=["hello@demo.test"],
            domains=["demo.test"],
            sealed_credentials=self._sealed(),
            base_url=self.side.base_url,
            auth_url=self.side.auth_url,
            hook_token=str(self.mailer_id),
            is_default=True,
        )

    def _sealed(self) -> bytes:
        return self.runtime.vault.seal(mailer_purpose(self.mailer_id), self.side.credentials())

    def send(self, mails: int, seconds: float) -> Report:
        """Sends so many mails through the whole path, until all have come to rest. Fails after so many seconds."""
        started = time.monotonic()
        self.side.misbehave(self.seed)
        blows = [(mails // 3, self.side.storm), (mails * 2 // 3, self.side.revoke)]
        for first in range(0, mails, self.side.wave):
            self.submit(*(self.side.address(number) for number in range(first, min(first + self.side.wave, mails))))
            while self._open() or self.side.owes_hooks() or self._waiting_reports():
                assert time.monotonic() - started < seconds, f"not come to rest: {self._states()}"
                while blows and self._begun() >= blows[0][0]:
                    blows.pop(0)[1]()
                self._work()
        return self._report(time.monotonic() - started)

    def _work(self) -> None:
        took = [self.deliver()]
        while took[-1] and len(took) < BURST:
            took.append(self.deliver())
        self._reconnect()
        self._hand_over()
        self._follow_up()
        if not took[0]:
            time.sleep(0.02)

    def _follow_up(self) -> None:
        self.record_all()
        while apply_reports(self.runtime):
            pass

    def _reconnect(self) -> None:
        statement = """update mailer set status = 'active', sealed_credentials = :sealed
                       where id = :m and status = 'reconnect_required'"""
        with self.runtime.engine.begin() as connection:
            found = connection.execute(text(statement), {"m": self.mailer_id, "sealed": self._sealed()})
        self.reconnects += found.rowcount

    def _hand_over(self) -> None:
        """Some of the webhook calls owed so far, each twice and in any order, stored as the route does."""
        owed = self.side.take_hooks(self.dice)
        mailer = self.runtime.providers.mailer(self.mailer_id)
        if not owed or mailer is None:
            return
        with self.runtime.engine.begin() as connection:
            for hook in self.dice.sample(owed * 2, len(owed) * 2):
                headers = {name.lower(): value for name, value in hook.headers.items()}
                request = HookRequest(headers=headers, query={}, body=hook.body)
                store(connection, self.runtime.vault, mailer, request, mailer.provider.parse_events(request))

    def _begun(self) -> int:
        """How many mails have been on the wire."""
        return int(self.scalar("select count(*) from message where mailer_id = :m and tries > 0"))

    def _open(self) -> int:
        """How many mails have not come to rest."""
        statement = """select count(*) from message where mailer_id = :m and state::text = any(:open)
                       and due_at is distinct from :held"""
        return int(self.scalar(statement, open=[state.value for state in OPEN], held=UNTIL_SOMEBODY_ACTS))

    def _waiting_reports(self) -> int:
        return int(self.scalar("select count(*) from provider_report where mailer_id = :m and due_at is not null"))

    def _states(self) -> dict[str, int]:
        rows = self.rows("select state::text, count(*) from message where mailer_id = :m group by state")
        return {row["state"]: row["count"] for row in rows}

    def _report(self, seconds: float) -> Report:
        with self.session() as session:
            messages = session.query(Message).where(Message.mailer_id == self.mailer_id).all()
        times = {message.id: self.side.delivered[self.side.key_of(message)] for message in messages}
        told = {
            row["message_id"]: row["count"]
            for row in self.rows(
                "select message_id, count(*) from event where workspace_id = :w and type = 'delivered' group by 1"
            )
        }
        return Report(
            provider=self.side.provider,
            mails=len(messages),
            states=self._states(),
            lost=[str(m.id) for m in messages if m.state in ACCEPTED and not times[m.id]],
            doubled=[
                str(m.id) for m in messages if times[m.id] > 1 or (times[m.id] and m.state not in ACCEPTED | OPEN)
            ],
            held=[str(m.id) for m in messages if m.state is State.UNCERTAIN],
            doubted=[str(m.id) for m in messages if any(one["outcome"] == "uncertain" for one in m.attempts)],
            not_told_once=[str(m.id) for m in messages if m.state in ACCEPTED and told.get(m.id) != 1],
            failed=sum(m.state is State.FAILED for m in messages),
            logged=int(self.scalar("select count(*) from email_log where workspace_id = :w")),
            lookups=sum(one["outcome"].startswith("lookup") for m in messages for one in m.attempts),
            reconnects=self.reconnects,
            faults=dict(self.side.met()),
            seconds=seconds,
        )


@contextmanager
def running(settings: Settings, provider: str, seed: int) -> Iterator[Run]:
    side = SIDES[provider](seed)
    try:
        run = Run(settings, side, seed)
        try:
            yield run
        finally:
            run.close()
    finally:
        side.stop()
