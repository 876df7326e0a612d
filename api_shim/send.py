"""``POST /v1/email/send``: one route, three shapes. A plain endpoint on bytes: this is the hot path of the API."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api_shim.auth import Caller, authenticate
from api_shim.errors import ApiError
from api_shim.http import UNAVAILABLE, Json, error_response, services, show_standing, unavailable
from api_shim.idempotency import Repeat, keep_answer, repeat_of
from api_shim.intake import accept
from api_shim.limits import key_limits, mailer_limits
from api_shim.rehearsal import rehearse
from api_shim.shapes import SHAPES, Body, ShapeModule, read_body, recognise
from api_shim.submission import Accepted, SendResult, Shape, Submission
from models.base import ulid
from models.message import State
from worker.faults import faultpoint

WAIT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 30.0
SCOPE = "email:send"
LARGE_BODY_BYTES = 64 * 1024
"""Larger bodies are read in a thread, so that they hold up nobody else."""

_RESULT = text("""
    select m.id, m.state, m.rfc_message_id, m.provider_message_id, m.thread_id, m.reason, mailer.provider,
           m.attempts->-1->>'outcome' as last,
           exists (select from email_log where email_log.message_id = m.id) as logged,
           exists (select from followup where m.id = any(message_ids) and tries > 0) as log_failed
    from message m join mailer on mailer.id = m.mailer_id where m.id = :id
""")


Parse = Callable[[Session, Caller], Submission]
"""Reads a body, which may need the database. Raises ApiError with everything that is wrong."""


@dataclass(frozen=True, slots=True)
class Preference:
    """What the caller prefers (RFC 7240): how long to wait, and what to confirm in Preference-Applied."""

    seconds: float | None
    applied: str | None


def preference(header: str | None) -> Preference:
    """Reads ``Prefer: wait=N`` (0 to 30) and ``respond-async``; what it does not know it ignores, as the RFC wants."""
    tokens = [token.strip().lower() for token in (header or "").split(",")]
    if "respond-async" in tokens:
        return Preference(0.0, "respond-async")
    for token in tokens:
        if found := re.fullmatch(r"wait\s*=\s*\"?(\d{1,6})\"?", token):
            seconds = min(float(found[1]), LONGEST_WAIT_SECONDS)
            return Preference(seconds, f"wait={seconds:.0f}")
    return Preference(None, None)


async def send(request: Request) -> Response:
    """Takes a submission in any of the three shapes and answers in the same."""
    shape: ShapeModule = SHAPES[Shape.MAILER]
    try:
        raw = await request.body()
        body = read_body(raw) if len(raw) < LARGE_BODY_BYTES else await run_in_threadpool(read_body, raw)
        shape = recognise(body.outline)
        return await submit(request, shape, body, lambda _session, _caller: shape.parse(body.value))
    except ApiError as error:
        return error_response(request, error, shape.render_error)
    except UNAVAILABLE:
        return error_response(request, unavailable(), shape.render_error)


async def submit(request: Request, shape: ShapeModule, body: Body, parse: Parse) -> Response:
    """Stores what ``parse`` makes of the body, waits as long as the caller prefers, and answers in the shape.

    Raises ApiError, and what the database raises when it is away.
    """
    prefer = preference(request.headers.get("prefer"))
    seconds = prefer.seconds if prefer.seconds is not None else WAIT_SECONDS if shape.WAITS else 0.0
    # A body that is refused is compared with none; why it is refused is said to those who may send.
    repeat = None if body.fault else repeat_of(request.headers.get("idempotency-key"), body.value)
    intake = Intake(request)
    taken = await run_in_threadpool(intake.take, parse, repeat, awaited=seconds > 0)
    if isinstance(taken, Rehearsed):
        return Json(taken.answer)
    caller, accepted = taken
    headers = {"Preference-Applied": prefer.applied} if prefer.applied else {}
    if accepted.original is not None:
        headers["Idempotency-Replayed"] = "true"
        if accepted.original.status is not None:
            return Json(accepted.original.answer, accepted.original.status, headers=headers)
    if seconds > 0:
        await services(request).announcements.outcome(accepted.message_id, seconds, recorded=shape.WAITS_FOR_LOG)
        status, answer = await run_in_threadpool(intake.answer, shape, accepted, repeat, caller)
    else:
        status, answer = shape.render(queued(accepted))
    if status == 202:
        headers["Location"] = f"/v1/submissions/{ulid(accepted.submission_id)}"
    return Json(answer, status, headers=headers)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The answer to a dry run."""

    answer: dict[str, Any]


class Intake:
    """The database work of one request; runs in a thread."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._services = services(request)

    def take(self, parse: Parse, repeat: Repeat | None, *, awaited: bool) -> tuple[Caller, Accepted] | Rehearsed:
        """Authenticates, parses and stores, or rehearses. Who may not send learns nothing about the body."""
        with self._services.sessions() as session:
            caller = authenticate(session, self._request.headers.get("authorization"), self._services.peppers)
            submission = self._parsed(parse, session, caller)
            mails = len(submission.to) if submission.individual else 1
            limits = key_limits(caller, self._services.settings, mails)
            limits += mailer_limits(session, caller, submission, mails)
            session.rollback()  # no transaction stays open while Redis is asked
            show_standing(self._request, self._services.limiter.take(limits))
            if submission.dry_run:
                return Rehearsed(rehearse(session, caller, submission, services=self._services))
            accepted = accept(
                session,
                caller,
                submission,
                settings=self._services.settings,
                ringer=self._services.ringer,
                repeat=repeat,
                request_id=self._request.scope["request_id"],
                awaited=awaited,
            )
            faultpoint("intake_storing")
            session.commit()
            faultpoint("intake_stored")
            return caller, accepted

    def _parsed(self, parse: Parse, session: Session, caller: Caller) -> Submission:
        """The submission; a refusal costs nothing, but its answer too says where the limits stand."""
        try:
            caller.require(SCOPE)
            return parse(session, caller)
        except ApiError:
            session.rollback()
            held = services(self._request)
            show_standing(self._request, held.limiter.take(key_limits(caller, held.settings, 0)))
            raise

    def answer(
        self, shape: ShapeModule, accepted: Accepted, repeat: Repeat | None, caller: Caller
    ) -> tuple[int, Mapping[str, Any]]:
        """Reads the row, which is the truth, and keeps the answer for repeats."""
        with self._services.sessions() as session:
            status, answer = shape.render(_result(session, accepted))
            if repeat and caller.key_id:
                status, answer = keep_answer(session, caller.key_id, repeat.key, status, answer)
                session.commit()
            return status, answer


def queued(accepted: Accepted) -> SendResult:
    """What is known right after intake."""
    return SendResult(
        ref_id=ulid(accepted.submission_id),
        id=accepted.message_id,
        state=State.QUEUED,
        rfc_message_id=accepted.rfc_message_id,
        provider_message_id=None,
        thread_id=accepted.thread_id,
        provider=accepted.provider,
    )


def _result(session: Session, accepted: Accepted) -> SendResult:
    row = session.execute(_RESULT, {"id": accepted.message_id}).one()
    return SendResult(
        ref_id=ulid(accepted.submission_id),
        id=row.id,
        state=row.state,
        rfc_message_id=row.rfc_message_id,
        provider_message_id=row.provider_message_id,
        thread_id=row.thread_id,
        provider=row.provider,
        reason=row.reason,
        permanent=row.last == "permanent",
        log_failed=row.log_failed and not row.logged,
    )
