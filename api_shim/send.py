"""``POST /v1/email/send``: one route, three shapes. A plain endpoint on bytes: this is the hot path of the API."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api_shim.errors import ApiError
from api_shim.gathering import Gatherer
from api_shim.http import UNAVAILABLE, Json, caller_gone, error_response, services, show_standing, unavailable
from api_shim.idempotency import keep_answer, repeat_of
from api_shim.reception import Incoming, Parse, Reception, Taken
from api_shim.services import Services
from api_shim.shapes import SHAPES, Body, ShapeModule, read_body, recognise
from api_shim.submission import Accepted, SendResult, Shape
from models.base import ulid
from models.database import fetch
from models.message import State

WAIT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 30.0
LARGE_BODY_BYTES = 64 * 1024
"""Larger bodies are read in a thread, so that they hold up nobody else."""

_RESULT = """
    select m.state, m.rfc_message_id, m.provider_message_id, m.thread_id, m.reason, mailer.provider,
           m.attempts->-1->>'outcome' as last,
           exists (select from email_log where email_log.message_id = m.id) as logged,
           exists (select from followup where m.id = any(message_ids) and tries > 0) as log_failed
    from message m join mailer on mailer.id = m.mailer_id where m.id = %s
"""


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


async def straight(scope: Scope, receive: Receive, transmit: Send) -> None:
    """`send` as an ASGI application of its own."""
    scope["endpoint"] = send
    request = Request(scope, receive)
    try:
        response = await send(request)
    except ClientDisconnect as gone:
        response = caller_gone(request, gone)
    await response(scope, receive, transmit)


async def send(request: Request) -> Response:
    """Takes a submission in any of the three shapes and answers in the same."""
    shape: ShapeModule = SHAPES[Shape.MAILER]
    try:
        raw = await request.body()
        large = len(raw) >= LARGE_BODY_BYTES
        body = await run_in_threadpool(read_body, raw) if large else read_body(raw)
        shape = recognise(body.outline)
        return await submit(request, shape, body, lambda _session, _caller: shape.parse(body.value), alone=large)
    except ApiError as error:
        return error_response(request, error, shape.render_error)
    except UNAVAILABLE:
        return error_response(request, unavailable(), shape.render_error)


async def submit(request: Request, shape: ShapeModule, body: Body, parse: Parse, *, alone: bool = True) -> Response:
    """Stores what ``parse`` makes of the body, waits as long as the caller prefers, and answers in the shape.

    alone: not together with other requests, because it takes long or asks the database for itself.
    Raises ApiError, and what the database raises when it is away.
    """
    prefer = preference(request.headers.get("prefer"))
    seconds = prefer.seconds if prefer.seconds is not None else WAIT_SECONDS if shape.WAITS else 0.0
    incoming = Incoming(
        authorization=request.headers.get("authorization"),
        parse=parse,
        # A body that is refused is compared with none; why it is refused is said to those who may send.
        repeat=None if body.fault else repeat_of(request.headers.get("idempotency-key"), body.value),
        request_id=request.scope["request_id"],
        traceparent=request.scope.get("traceparent"),
        awaited=seconds > 0,
    )
    taken = await _take(request, incoming, alone=alone)
    show_standing(request, taken.standing)
    if taken.fault is not None:
        raise taken.fault
    if taken.rehearsal is not None:
        return Json(taken.rehearsal)
    return await _answer(request, shape, taken, prefer, seconds)


async def _take(request: Request, incoming: Incoming, *, alone: bool) -> Taken:
    reception: Reception = request.app.state.reception
    if alone:
        (taken,) = await run_in_threadpool(reception.take, [incoming])
        return taken
    gathered: Gatherer[Incoming, Taken] = request.app.state.intake
    taken = await gathered.do(incoming)
    if taken.apart is not None:
        await run_in_threadpool(taken.apart)
    return taken


async def _answer(request: Request, shape: ShapeModule, taken: Taken, prefer: Preference, seconds: float) -> Response:
    accepted = taken.accepted
    if accepted is None:
        raise TypeError("what is neither refused nor rehearsed was accepted")
    headers = {"Preference-Applied": prefer.applied} if prefer.applied else {}
    if accepted.original is not None:
        headers["Idempotency-Replayed"] = "true"
        if accepted.original.status is not None:
            return Json(accepted.original.answer, accepted.original.status, headers=headers)
        seconds = seconds if accepted.original.awaited else 0
    answer: Mapping[str, Any]
    if seconds > 0:
        waits_for_log = shape.WAITS_FOR_LOG
        told = await services(request).announcements.outcome(accepted.message_id, seconds, recorded=waits_for_log)
        if told.outcome and (told.record or not waits_for_log) and not taken.request.repeat:
            row = orjson.loads(told.outcome)
            status, answer = shape.render(_known(accepted, row, log_failed=told.record == "failed"))
        else:
            status, answer = await run_in_threadpool(_outcome, services(request), shape, taken, accepted)
    else:
        status, answer = shape.render(queued(accepted))
    if status == 202:
        headers["Location"] = f"/v1/submissions/{ulid(accepted.submission_id)}"
    return Json(answer, status, headers=headers)


def _outcome(held: Services, shape: ShapeModule, taken: Taken, accepted: Accepted) -> tuple[int, Mapping[str, Any]]:
    """Reads the row, and keeps the answer for repeats."""
    repeat, key_id = taken.request.repeat, taken.caller.key_id if taken.caller else None
    with held.statements() as session:
        (row,) = fetch(session, _RESULT, [accepted.message_id])
        log_failed = row.log_failed and not row.logged
        status, answer = shape.render(_known(accepted, row._asdict(), log_failed=log_failed))
        if repeat and key_id:
            status, answer = keep_answer(session, key_id, repeat.key, status, answer)
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


def _known(accepted: Accepted, row: Mapping[str, Any], *, log_failed: bool) -> SendResult:
    """``row``: of the message, as read or as the worker told it."""
    thread_id = row["thread_id"]
    return SendResult(
        ref_id=ulid(accepted.submission_id),
        id=accepted.message_id,
        state=row["state"],
        rfc_message_id=row["rfc_message_id"],
        provider_message_id=row["provider_message_id"],
        thread_id=thread_id and UUID(str(thread_id)),
        provider=row["provider"],
        reason=row["reason"],
        permanent=row["last"] == "permanent",
        log_failed=log_failed,
    )
