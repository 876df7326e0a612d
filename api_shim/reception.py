"""The database work of requests to send: who asks, for what, what the limits say, and the rows of all that may."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from api_shim.auth import Caller, authenticate
from api_shim.entities import Known
from api_shim.errors import ApiError
from api_shim.idempotency import Repeat
from api_shim.intake import Arrival, accept_all, takes_one_statement
from api_shim.limits import Capped, Limit, Standing, key_limits, mailer_limits
from api_shim.rehearsal import rehearse
from api_shim.services import Services
from api_shim.submission import Accepted, Submission
from worker.faults import faultpoint

SCOPE = "email:send"

MANY_RECIPIENTS = 500
"""A submission with more is stored by itself: its neighbours would have to wait for it."""

Parse = Callable[[Session, Caller], Submission]
"""Reads a body, which may need the database. Raises ApiError with everything that is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One request to send."""

    authorization: str | None = field(repr=False)
    parse: Parse
    repeat: Repeat | None
    request_id: str
    traceparent: str | None
    awaited: bool


@dataclass(slots=True, kw_only=True)
class Taken:
    """What became of a request. In the end one of ``accepted``, ``rehearsal`` and ``fault`` is set."""

    request: Incoming
    caller: Caller | None = None
    submission: Submission | None = None
    limits: Sequence[Limit] = ()
    standing: Standing | None = None
    """Where the caller's limits stand; None while Redis is away."""
    apart: Callable[[], None] | None = None
    """It takes long: it was read, and is to be stored by calling this in a thread."""
    accepted: Accepted | None = None
    rehearsal: dict[str, Any] | None = None
    """The answer to a dry run."""
    fault: Exception | None = None
    """An ApiError that refuses it, or a failure of ours."""

    def arrival(self) -> Arrival:
        """What is welcome, for `accept_all`."""
        if self.caller is None or self.submission is None:
            raise TypeError("what is welcome was read")
        return Arrival(
            caller=self.caller,
            submission=self.submission,
            repeat=self.request.repeat,
            request_id=self.request.request_id,
            traceparent=self.request.traceparent,
            awaited=self.request.awaited,
        )


class Reception:
    """Takes requests in, several at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def take(self, requests: Sequence[Incoming]) -> list[Taken]:
        """Reads, limits and stores. Raises what the database raises when it is away; then nothing was stored.

        If it goes away later, those whose fate is unknown are told so, and nobody else.
        """
        with self._services.statements() as session:
            known = Known(session)
            read = _Reader(known, self._services).read_all(requests)
            self._limit(read)
            welcome = [taken for taken in read if taken.fault is None]
            for taken in welcome if len(requests) > 1 else ():
                if taken.submission and _takes_long(taken.submission):
                    taken.apart = partial(self._store_each, (taken,))
            now = [taken for taken in welcome if taken.apart is None]
            plain = [taken for taken in now if _is_plain(taken)]
            left = self._store_plain(known, plain) if plain else ()
        self._store_each(left)
        self._store([taken for taken in now if not _is_plain(taken)])
        return read

    def _limit(self, read: Sequence[Taken]) -> None:
        known = [taken for taken in read if taken.limits]
        answers = self._services.limiter.take_all([taken.limits for taken in known])
        for taken, answer in zip(known, answers, strict=True):
            if isinstance(answer, ApiError):
                taken.fault = taken.fault or answer
            else:
                taken.standing = answer

    def _store_plain(self, known: Known, group: Sequence[Taken]) -> Sequence[Taken]:
        """All by one statement. If it fails though the database is there, nothing is stored and all are returned."""
        try:
            self._accept(known, group)
        except Exception as error:  # noqa: BLE001 -- it comes again, and to its own caller, as each is stored
            return () if _is_lost(group, error) else group
        known.session.commit()  # nothing is open; it lets the lanes be rung
        faultpoint("intake_stored")
        return ()

    def _store(self, group: Sequence[Taken]) -> None:
        """All in one transaction; what cannot be stored takes nobody with it."""
        if len(group) < 2 or any(taken.submission and taken.submission.dry_run for taken in group):
            self._store_each(group)
            return
        try:
            with self._services.sessions() as session:
                self._store_together(session, group)
        except Exception as error:  # noqa: BLE001 -- it comes again, and to its own caller, as each is stored
            if not _is_lost(group, error):
                self._store_each(group)

    def _store_each(self, group: Sequence[Taken]) -> None:
        for taken in group:
            try:
                with self._services.sessions() as session:
                    if taken.submission and taken.submission.dry_run:
                        self._rehearse(session, taken)
                    else:
                        self._store_together(session, [taken])
            except Exception as fault:  # noqa: BLE001 -- told to its own caller, and logged with the answer
                taken.fault = fault

    def _store_together(self, session: Session, group: Sequence[Taken]) -> None:
        known = Known(session)
        known.look_up(_named(group))
        self._accept(known, group)
        faultpoint("intake_storing")
        session.commit()
        faultpoint("intake_stored")

    def _accept(self, known: Known, group: Sequence[Taken]) -> None:
        settings, ringer = self._services.settings, self._services.ringer
        answers = accept_all(known, [taken.arrival() for taken in group], settings=settings, ringer=ringer)
        for taken, answer in zip(group, answers, strict=True):
            if isinstance(answer, ApiError):
                taken.fault = answer
            else:
                taken.accepted = answer

    def _rehearse(self, session: Session, taken: Taken) -> None:
        arrival = taken.arrival()
        taken.rehearsal = rehearse(session, arrival.caller, arrival.submission, services=self._services)


class _Reader:
    """Authenticates and parses the requests of a group; each key and each mailer is looked at once."""

    def __init__(self, known: Known, services: Services) -> None:
        self._known = known
        self._session = known.session
        self._services = services
        self._callers: dict[str | None, Caller | ApiError] = {}
        self._limits: dict[tuple[str | None, UUID | None, UUID | None, int], list[Limit]] = {}

    def read_all(self, requests: Sequence[Incoming]) -> list[Taken]:
        """Each with its limits. What they name is looked up together."""
        read = [self._read(request) for request in requests]
        self._known.look_up(_named(read))
        for taken in read:
            if taken.caller and taken.submission:
                taken.limits = self._limits_of(taken.request.authorization, taken.caller, taken.submission)
        return read

    def _read(self, request: Incoming) -> Taken:
        """Who may not send learns nothing about the body."""
        taken = Taken(request=request)
        try:
            caller = taken.caller = self._caller(request.authorization)
            try:
                caller.require(SCOPE)
                taken.submission = request.parse(self._session, caller)
            except ApiError:
                taken.limits = key_limits(caller, self._services.settings, 0)
                raise
        except SQLAlchemyError:
            raise
        except Exception as fault:  # noqa: BLE001 -- its neighbours have nothing to do with it
            taken.fault = fault
        return taken

    def _caller(self, authorization: str | None) -> Caller:
        found = self._callers.get(authorization)
        if found is None:
            try:
                found = authenticate(self._session, authorization, self._services.peppers)
            except ApiError as refusal:
                found = refusal
            self._callers[authorization] = found
        if isinstance(found, ApiError):
            raise found
        return found

    def _limits_of(self, authorization: str | None, caller: Caller, submission: Submission) -> list[Limit]:
        mails = len(submission.to) if submission.individual else 1
        user_id = submission.sender_user_id if submission.personal else None
        key = (authorization, submission.mailer_id, user_id, mails)
        if key not in self._limits:
            mailer = self._mailer(caller.workspace_id, submission.mailer_id, user_id)
            self._limits[key] = key_limits(caller, self._services.settings, mails) + mailer_limits(mailer, mails)
        return self._limits[key]

    def _mailer(self, workspace_id: UUID, mailer_id: UUID | None, user_id: UUID | None) -> Capped | None:
        if mailer_id is not None:
            return self._known.mailer(workspace_id, mailer_id)
        return self._known.default_mailer(workspace_id, user_id)


def _named(read: Sequence[Taken]) -> Iterator[tuple[UUID, Submission]]:
    """What `Known.look_up` takes, of those that could be read."""
    for taken in read:
        if taken.caller and taken.submission:
            yield taken.caller.workspace_id, taken.submission


def _is_lost(group: Sequence[Taken], error: Exception) -> bool:
    """Whether the database went away, so that storing again could store twice; the group is told."""
    if not (isinstance(error, PoolTimeout) or (isinstance(error, DBAPIError) and error.connection_invalidated)):
        return False
    for taken in group:
        taken.fault = error
    return True


def _is_plain(taken: Taken) -> bool:
    submission = taken.submission
    return bool(submission and not submission.dry_run and takes_one_statement(submission, taken.request.repeat))


def _takes_long(submission: Submission) -> bool:
    return bool(
        submission.dry_run
        or submission.attachments
        or submission.settings.phishing_protection
        or len(submission.to) > MANY_RECIPIENTS
    )
