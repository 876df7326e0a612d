"""The database work of requests to send: who asks, for what, what the limits say, and the rows of all that may."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from api_shim.auth import Caller, authenticate
from api_shim.errors import ApiError
from api_shim.idempotency import Repeat
from api_shim.intake import Arrival, accept_all
from api_shim.limits import Capped, Limit, Standing, capped_mailer, key_limits, mailer_limits
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
    apart: Callable[[], "Taken"] | None = None
    """It takes long: it was read, and is to be stored by calling this in a thread."""
    accepted: Accepted | None = None
    rehearsal: dict[str, Any] | None = None
    """The answer to a dry run."""
    fault: Exception | None = None
    """An ApiError that refuses it, or a failure of ours."""


class Reception:
    """Takes requests in, several at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def take(self, requests: Sequence[Incoming]) -> list[Taken]:
        """Reads, limits and stores. Raises what the database raises when it is away; then nothing was stored."""
        with self._services.sessions() as session:
            reader = _Reader(session, self._services)
            read = [reader.read(request) for request in requests]
            session.rollback()  # no transaction stays open while Redis is asked
            self._limit(read)
            welcome = [taken for taken in read if taken.fault is None]
            for taken in welcome if len(requests) > 1 else ():
                if taken.submission and _takes_long(taken.submission):
                    taken.apart = partial(self._store_apart, taken)
            self._store(session, [taken for taken in welcome if taken.apart is None])
        return read

    def _limit(self, read: Sequence[Taken]) -> None:
        known = [taken for taken in read if taken.limits]
        answers = self._services.limiter.take_all([taken.limits for taken in known])
        for taken, answer in zip(known, answers, strict=True):
            if isinstance(answer, ApiError):
                taken.fault = taken.fault or answer
            else:
                taken.standing = answer

    def _store_apart(self, taken: Taken) -> Taken:
        with self._services.sessions() as session:
            self._store(session, [taken])
        return taken

    def _store(self, session: Session, group: Sequence[Taken]) -> None:
        """All in one transaction. If it fails though the database is there, each in its own, so that one that cannot
        be stored takes nobody with it.
        """
        try:
            self._store_together(session, group)
        except Exception as error:
            session.rollback()
            if len(group) < 2 or _is_away(error):
                raise
            for taken in group:
                try:
                    self._store_together(session, [taken])
                except Exception as own:  # noqa: BLE001 -- told to its own caller, and logged with the answer
                    session.rollback()
                    taken.fault = own

    def _store_together(self, session: Session, group: Sequence[Taken]) -> None:
        arriving, arrivals = [], []
        for taken in group:
            if taken.caller is None or taken.submission is None:
                raise TypeError("what is welcome was read")
            if taken.submission.dry_run:
                self._rehearse(session, taken, taken.caller, taken.submission)
                continue
            request = taken.request
            arriving.append(taken)
            arrivals.append(
                Arrival(
                    caller=taken.caller,
                    submission=taken.submission,
                    repeat=request.repeat,
                    request_id=request.request_id,
                    traceparent=request.traceparent,
                    awaited=request.awaited,
                )
            )
        answers = accept_all(session, arrivals, settings=self._services.settings, ringer=self._services.ringer)
        faultpoint("intake_storing")
        session.commit()
        faultpoint("intake_stored")
        for taken, answer in zip(arriving, answers, strict=True):
            if isinstance(answer, ApiError):
                taken.fault = answer
            else:
                taken.accepted = answer

    def _rehearse(self, session: Session, taken: Taken, caller: Caller, submission: Submission) -> None:
        try:
            taken.rehearsal = rehearse(session, caller, submission, services=self._services)
        except ApiError as refusal:
            taken.fault = refusal


class _Reader:
    """Authenticates and parses the requests of a group; each key and each mailer is looked at once."""

    def __init__(self, session: Session, services: Services) -> None:
        self._session = session
        self._services = services
        self._callers: dict[str | None, Caller | ApiError] = {}
        self._mailers: dict[tuple[UUID, UUID | None, UUID | None], Capped | None] = {}

    def read(self, request: Incoming) -> Taken:
        """Who may not send learns nothing about the body."""
        taken = Taken(request=request)
        try:
            caller = taken.caller = self._caller(request.authorization)
            taken.limits = key_limits(caller, self._services.settings, 0)
            caller.require(SCOPE)
            submission = taken.submission = request.parse(self._session, caller)
            taken.limits = self._limits(caller, submission)
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

    def _limits(self, caller: Caller, submission: Submission) -> list[Limit]:
        mails = len(submission.to) if submission.individual else 1
        user_id = submission.sender_user_id if submission.personal else None
        key = (caller.workspace_id, submission.mailer_id, user_id)
        if key not in self._mailers:
            self._mailers[key] = capped_mailer(self._session, *key)
        return key_limits(caller, self._services.settings, mails) + mailer_limits(self._mailers[key], mails)


def _is_away(error: Exception) -> bool:
    return isinstance(error, PoolTimeout) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _takes_long(submission: Submission) -> bool:
    return bool(
        submission.dry_run
        or submission.attachments
        or submission.settings.phishing_protection
        or len(submission.to) > MANY_RECIPIENTS
    )
