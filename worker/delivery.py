"""The send path: claim, compose, provider, outcomes.

`Delivery.run` reads as the list of its steps. A batch goes out in slices, one small group per connection. The
outcomes of a slice and the attempts of the next are one commit, made while nothing is on the wire, so a killed worker
leaves one slice uncertain and the rest of its batch simply returns to the queue.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from models.database import each_by_itself
from models.message import OPEN, State
from providers.base import Lookup, LookupAnswer, OutboundEmail, Outcome, Provider, Result
from worker import lease
from worker.bell import FOLLOWUP_LANE, NOTHING, Work, send_lane
from worker.compose import CompositionError
from worker.deadline import deadline, stricter_deadline
from worker.faults import faultpoint
from worker.halt import STOPS_MAILER, open_mailer, park, stop
from worker.lease import Batch, Held
from worker.mailers import OpenMailer
from worker.meter import count_call
from worker.outcome import Policy, Verdict, ended, judge, judge_lookup, too_early
from worker.outcome_rows import record_verdicts
from worker.retry import Backoff
from worker.runtime import Runtime
from worker.sifting import state_without_recipients, stopped, undeliverable
from worker.signers import SigningKeysUnreadable
from worker.traces import Attributes
from worker.wishes import Wishes, read_wishes

log = structlog.get_logger()

TASK_SECONDS = 5.0
"""A task starts no new slice after so long: the rest goes back, so that lanes take turns and a stop is quick."""

COMPOSE_SECONDS = 60.0
"""Longest that a slice may take to become mails: one that never ends must not hold its lane as long as a call may."""

Composed = tuple[Held, OutboundEmail]


def deliver(runtime: Runtime, mailer_id: UUID, priority: int) -> Work:
    """Sends what is due in one lane, up to a batch. Counted are the messages that it took in hand.

    The mailer is taken as it was read last: if it has changed since, the claim finds nothing, and it is read again.
    """
    known = runtime.providers.as_read(mailer_id)
    if known and (work := _deliver(runtime, known, priority)).done:
        return work
    mailer = open_mailer(runtime, mailer_id)
    is_new = mailer and not (known and known.sends and known.version == mailer.version)
    return _deliver(runtime, mailer, priority) if mailer and is_new else NOTHING


def _deliver(runtime: Runtime, mailer: OpenMailer, priority: int) -> Work:
    """Suspects of a crash come in small batches, which would spend most of their time waiting for the next bell: as
    many of them go as there is time for, and each that went well lets the next be larger.
    """
    started, work, suspects = time.monotonic(), NOTHING, lease.SUSPECTS
    while mailer.sends and (allowed := runtime.pace.take(mailer, priority, mailer.provider.batch)):
        with runtime.hands:
            delivery = _deliver_batch(runtime, mailer, priority, allowed, suspects)
        if delivery is None:
            return work._replace(more=False)
        claimed, is_suspect = len(delivery.batch.messages), delivery.batch.is_suspect
        work = Work(work.done + claimed, more=claimed == allowed or is_suspect or delivery.may_have_left_some)
        if not is_suspect or time.monotonic() - started >= TASK_SECONDS:
            break
        suspects = min(2 * suspects, lease.MOST_SUSPECTS)
    return work


def _deliver_batch(
    runtime: Runtime, mailer: OpenMailer, priority: int, allowed: int, suspects: int
) -> "Delivery | None":
    """What it did, which is over; None if nothing was due."""
    longest = max(runtime.settings.lease_seconds, mailer.provider.call_seconds + TASK_SECONDS)
    term = timedelta(seconds=longest * 1.1)
    since = time.time_ns()
    with each_by_itself(runtime.engine) as connection:
        batch = lease.claim(
            connection,
            mailer.id,
            priority,
            version=mailer.version,
            worker=runtime.name,
            batch=allowed,
            lease=term,
            suspects=suspects,
        )
        claimed = len(batch.messages) if batch else 0
        runtime.pace.give_back(mailer, allowed - claimed)
        if batch is None:
            return None
        faultpoint("claimed")
        started = time.monotonic()
        with (
            deadline(longest),
            lease.handed_back(runtime.engine, batch),
            closing(Delivery(runtime, mailer, batch, connection)) as delivery,
        ):
            delivery.show_claim(since)
            delivery.run()
    runtime.pace.give_back(mailer, claimed - delivery.attempted)
    runtime.pace.observe(mailer, delivery.attempted, time.monotonic() - started)
    return delivery


class Delivery:
    """One batch on its way out."""

    def __init__(self, runtime: Runtime, mailer: OpenMailer, batch: Batch, connection: Connection) -> None:
        self.runtime = runtime
        self.mailer = mailer
        self.batch = batch
        self.unwritten: list[Verdict] = []
        """Verdicts that no commit has taken yet."""
        self.attempted = 0
        """How many mails were handed to the provider."""
        self.may_have_left_some = False
        """Not all of the batch is finished; what is not may be due again at once."""
        self.wishes = Wishes()
        """Of the recipients of what is to be sent."""
        self._invited = False
        self._untold = 0
        """Outcomes that the follow-up was not rung for."""
        self.connection = connection
        """Each statement on it is a transaction of its own: none is open while mail is sent."""
        ids = [message.submission_id for message in batch.messages]
        try:
            self.submissions = runtime.submissions.load(self.connection, ids, mailer, runtime.tracker, runtime.signers)
        except SigningKeysUnreadable as error:
            self.submissions = {}
            mailer.sends = False
            park(runtime, mailer.id, str(error))

    def close(self) -> None:
        """The connection it has now: another one, if the database was away meanwhile."""
        self.connection.close()

    def run(self) -> None:
        started = time.monotonic()
        held = [message for message in self.batch.messages if message.submission_id in self.submissions]
        too_much = [message for message in self.batch.messages if message.submission_id not in self.submissions]
        unasked = self._ask([message for message in held if message.was is State.UNCERTAIN], started)
        ready = self._sift([message for message in held if message.was is State.QUEUED])
        while ready and self.mailer.sends and time.monotonic() - started < TASK_SECONDS:
            slice_, ready = ready[: self._slice_size], ready[self._slice_size :]
            with stricter_deadline(COMPOSE_SECONDS), self._shown("compose", slice_):
                composed = self._compose(slice_)
            begun = self._begin(composed)
            with self._shown("send", [message for message, _ in begun]):
                self._send(begun)
            self._invite()
        self._finish([*ready, *unasked, *too_much])

    def show_claim(self, since: int) -> None:
        """``since``: when the claim began, by `time.time_ns`."""
        if self.runtime.traces is not None:
            self.runtime.traces.note("claim", self._parents(self.batch.messages), {}, since)

    def _shown(self, step: str, messages: Sequence[Held]) -> AbstractContextManager[None]:
        """Shows a step in the traces of the submissions that it is about."""
        if self.runtime.traces is None:
            return nullcontext()
        about: Attributes = {"provider": self._provider.name, "mails": len(messages)}
        return self.runtime.traces.step(step, self._parents(messages), about)

    def _parents(self, messages: Sequence[Held]) -> Iterator[str | None]:
        loaded = (self.submissions.get(message.submission_id) for message in messages)
        return (submission.traceparent for submission in loaded if submission)

    @property
    def _provider(self) -> Provider:
        return self.mailer.provider

    @property
    def _slice_size(self) -> int:
        return self._provider.group * (self._provider.account.connections if self._provider.parallel else 1)

    @property
    def _policy(self) -> Policy:
        return Policy(
            now=datetime.now(UTC),
            backoff=Backoff(self.runtime.settings.retry_delays),
            can_ask=type(self._provider).lookup is not Provider.lookup,
            settle_seconds=self._provider.settle_seconds,
            on_uncertain=self.mailer.on_uncertain,
            retry_for=self.runtime.settings.retry_for,
        )

    def _ask(self, uncertain: Sequence[Held], started: float) -> Sequence[Held]:
        """Asks the provider about mails whose fate is unknown, one by one. Returns those it did not get to."""
        policy = self._policy
        for position, message in enumerate(uncertain):
            if time.monotonic() - started >= TASK_SECONDS:
                return uncertain[position:]
            self._keep(message, too_early(message, policy) or judge_lookup(message, self._look_up(message), policy))
            faultpoint("asked")
        return ()

    def _look_up(self, message: Held) -> LookupAnswer:
        try:
            return self._provider.lookup(self.submissions[message.submission_id].email(message))
        except Exception as error:
            # A bug, or a mail that can no longer be composed. It must not come round for ever.
            log.exception("lookup_failed", message_id=str(message.id))
            return LookupAnswer(answer=Lookup.CANNOT_TELL, detail=f"could not ask: {type(error).__name__}")

    def _sift(self, queued: Sequence[Held]) -> list[Held]:
        """What may go: not expired, and with a recipient that is neither suppressed nor invalid."""
        self.wishes = self._wishes(queued)
        refused = undeliverable(self.runtime.domains, [message for message in queued if self._validates(message)])
        now = datetime.now(UTC)
        ready = []
        for message in queued:
            submission = self.submissions[message.submission_id]
            expires_at, list_id = submission.expires_at, submission.content.settings.list_id
            none_for = stopped(message, self.wishes, list_id, refused if self._validates(message) else {})
            remaining = message._replace(outcomes=message.outcomes | none_for) if none_for else message
            if expires_at is not None and expires_at <= now:
                late = f"expires_at {expires_at.isoformat()} passed before it could be sent"
                self._keep(message, ended(message, State.EXPIRED, late))
            elif remaining.pending:
                ready.append(remaining)
            else:
                why = "; ".join(sorted({one["detail"] for one in none_for.values()}))
                self._keep(message, ended(remaining, state_without_recipients(remaining), why))
        return ready

    def _wishes(self, queued: Sequence[Held]) -> Wishes:
        addresses = [address for message in queued for address in message.pending]
        settings = [submission.content.settings for submission in self.submissions.values()]
        return read_wishes(self.connection, self.mailer.workspace_id, addresses, settings)

    def _validates(self, message: Held) -> bool:
        """Whether its recipients are to be validated; after the first attempt the provider's word counts more."""
        return message.tries == 0 and self.submissions[message.submission_id].content.settings.validate

    def _compose(self, messages: Sequence[Held]) -> list[Composed]:
        faultpoint("composing", messages)
        composed = []
        for message in messages:
            try:
                tracked = not self.wishes.untracked(message.recipients)
                composed.append((message, self.submissions[message.submission_id].email(message, tracked=tracked)))
            except CompositionError as error:
                self._keep(message, ended(message, State.FAILED, f"{NOT_COMPOSED}: {error}"))
            except Exception as error:
                # A bug, but one message's: its neighbours must not share its fate, and it must not come round for ever.
                log.exception("compose_failed", message_id=str(message.id))
                self._keep(message, ended(message, State.FAILED, f"{NOT_COMPOSED}: {type(error).__name__}"))
        return composed

    def _begin(self, composed: Sequence[Composed]) -> list[Composed]:
        """Commits the verdicts so far and the attempts to come; drops what is no longer ours (cancelled, paused)."""
        ours = self._write([message for message, _ in composed])
        return [(message, email) for message, email in composed if message.id in ours]

    def _send(self, begun: Sequence[Composed]) -> None:
        if not begun:
            return
        self.attempted += len(begun)
        faultpoint("sending")
        started = time.monotonic()
        try:
            outcomes = self._provider.send([email for _, email in begun])
        except Exception as error:
            # An adapter lets out nothing but bugs. What a bug left on the wire is unknown, so that is what is recorded.
            log.exception("adapter_failed", provider=self._provider.name)
            outcomes = [Outcome(result=Result.UNCERTAIN, detail=f"the adapter failed: {type(error).__name__}")] * len(
                begun
            )
        faultpoint("sent")
        count_call(self.runtime.meter, self._provider.name, outcomes, time.monotonic() - started)
        if self.mailer.fallback_id is not None:
            self.runtime.circuits.note(self.mailer.id, [outcome.result for outcome in outcomes])
        policy = self._policy
        for (message, _), outcome in zip(begun, outcomes, strict=True):
            self._keep(message, judge(message, outcome, policy))
            if outcome.result in STOPS_MAILER and not outcome.recipients and self.mailer.sends:
                stop(self.runtime, self.mailer, outcome)

    def _invite(self) -> None:
        """Rings for a second worker once the server has shown that it answers: one that hangs holds up only us."""
        if not self._invited and len(self.batch.messages) == self._provider.batch:
            self._invited = True
            self.runtime.bells.ring(send_lane(self.mailer.id, self.batch.priority))

    def _keep(self, message: Held, verdict: Verdict) -> None:
        submission = self.submissions[message.submission_id]
        if submission.awaited or (verdict.attempt and message.variables):
            verdict = verdict._replace(awaited=submission.awaited, subject=self._subject(message, verdict))
        self.unwritten.append(verdict)

    def _subject(self, message: Held, verdict: Verdict) -> str | None:
        return self.submissions[message.submission_id].subject(message) if verdict.attempt else None

    def _write(self, begin: Sequence[Held] = ()) -> set[UUID]:
        """Commits the verdicts so far and the attempts to ``begin``; returns those that are still ours to send.

        What is known of mails on the wire must not be forgotten because the database is away for a while: it is waited
        for, as long as the lease can be trusted. Writing twice does no harm.
        """
        patience = time.monotonic() + self.runtime.settings.lease_seconds / 2
        while True:
            try:
                if self.connection.closed:
                    self.connection = each_by_itself(self.runtime.engine)
                faultpoint("recording")
                ours = record_verdicts(self.connection, self.batch.lease_id, self.unwritten, begin)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > patience:
                    raise
                log.warning("outcomes_wait_for_database", error=type(error).__name__, outcomes=len(self.unwritten))
                self._hang_up()
                time.sleep(RECONNECT_SECONDS)
            else:
                faultpoint("recorded")
                self._tell_followup()
                self.unwritten = []
                return ours

    def _tell_followup(self) -> None:
        """Rings for outcomes that somebody waits for at once, for others at the end of the batch: they go together."""
        finished = [verdict for verdict in self.unwritten if verdict.state not in OPEN]
        self._untold += len(finished)
        self.may_have_left_some |= len(finished) < len(self.unwritten)
        if any(verdict.awaited for verdict in finished):
            self._ring_followup()

    def _ring_followup(self) -> None:
        self._untold = 0
        self.runtime.bells.ring(FOLLOWUP_LANE)

    def _hang_up(self) -> None:
        """Whatever state the connection is in; the next attempt opens another."""
        if not self.connection.closed:
            self.connection.invalidate()
            self.connection.close()

    def _finish(self, left: Sequence[Held]) -> None:
        """The last verdicts; what was not got to goes back."""
        if self.unwritten:
            self._write()
        self.may_have_left_some |= bool(left)
        lease.release(self.connection, self.batch.lease_id, left)
        lease.end(self.connection, self.batch.lease_id)
        if self._untold:
            self._ring_followup()


RECONNECT_SECONDS = 0.25

NOT_COMPOSED = "could not be composed"
"""Begins the reason of a message that failed before it was a mail; the follow-up makes it a GENERATION_FAILURE."""
