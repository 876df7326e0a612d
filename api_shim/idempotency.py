"""Idempotency-Key: the first request with a key stores it in the transaction of its messages; every repeat gets its
answer.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.errors import ApiError, Fault

MAX_KEY_CHARACTERS = 256
LEAVES = 400
"""Values of a body that are remembered one by one, to name the first difference; larger bodies are told apart as a
whole.
"""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A key with the body it came with."""

    key: str
    fingerprint: bytes
    leaves: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Original:
    """The earlier request with the same key and body."""

    submission_id: UUID
    status: int | None
    """Of its answer; None while it is still waiting for its outcome."""
    answer: dict[str, Any] | None
    awaited: bool = True
    """Whether that request waits for the outcome. One that did not was answered at once, and so are its repeats."""


def repeat_of(key: str | None, body: Any) -> Repeat | None:
    """The `Repeat` of a request, or None without a key. Raises VALIDATION_ERROR for a key that is none."""
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isprintable():
        what = f"Idempotency-Key must be 1 to {MAX_KEY_CHARACTERS} printable characters; got {len(key)}. Use a UUIDv4."
        raise ApiError("VALIDATION_ERROR", faults=[Fault("Idempotency-Key", what)])
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    leaves: dict[str, str] = {}
    for pointer, digest in _leaves("", body):
        leaves[pointer] = digest
        if len(leaves) > LEAVES:
            leaves = {}
            break
    return Repeat(key, hashlib.sha256(canonical).digest(), leaves)


def _leaves(pointer: str, value: Any) -> Iterator[tuple[str, str]]:
    """JSON pointers (RFC 6901) of all scalar values with a short hash of each."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not items:
        yield pointer, hashlib.sha256(orjson.dumps(value)).hexdigest()[:12]
        return
    for name, item in items:
        escaped = str(name).replace("~", "~0").replace("/", "~1")
        yield from _leaves(f"{pointer}/{escaped}", item)


_TAKE = text("""
    insert into idempotency_key (api_key_id, key, fingerprint, leaves, submission_id, expires_at)
    values (:api_key_id, :key, :fingerprint, cast(:leaves as jsonb), :submission_id, :expires_at)
    on conflict (api_key_id, key) do update
        set fingerprint = excluded.fingerprint, leaves = excluded.leaves, submission_id = excluded.submission_id,
            expires_at = excluded.expires_at, answer_status = null, answer = null, created_at = clock_timestamp()
        where idempotency_key.expires_at < clock_timestamp()
    returning submission_id
""")
_ORIGINAL = text("""
    select fingerprint, leaves, submission_id, answer_status, answer from idempotency_key
    where api_key_id = :api_key_id and key = :key and expires_at >= clock_timestamp()
""")
_ANSWER = text("""
    update idempotency_key set answer_status = :status, answer = cast(:answer as json)
    where api_key_id = :api_key_id and key = :key and answer_status is null
""")

_KEPT = text("select answer_status, answer from idempotency_key where api_key_id = :api_key_id and key = :key")


def take(
    session: Session, key_id: UUID, repeat: Repeat, submission_id: UUID, since: datetime, hours: int
) -> Original | None:
    """Claims the key for a new submission, or returns the original.

    While the first request's transaction is open, this waits for it. since: the window of ``hours`` starts here (the
    scheduled time, if there is one). Raises IDEMPOTENCY_CONFLICT, naming the first JSON pointer that differs.
    """
    values = {
        "api_key_id": key_id,
        "key": repeat.key,
        "fingerprint": repeat.fingerprint,
        "leaves": orjson.dumps(repeat.leaves).decode(),
        "submission_id": submission_id,
        "expires_at": since + timedelta(hours=hours),
    }
    while True:
        if session.execute(_TAKE, values).first():
            return None
        if original := find(session, key_id, repeat):
            return original  # else its window ended between the two statements, and the key can be had


def find(session: Session, key_id: UUID, repeat: Repeat) -> Original | None:
    """The original of a repeated key, or None if the key is new. Raises IDEMPOTENCY_CONFLICT."""
    row = session.execute(_ORIGINAL, {"api_key_id": key_id, "key": repeat.key}).one_or_none()
    if row is None:
        return None
    if bytes(row.fingerprint) != repeat.fingerprint:
        raise ApiError(
            "IDEMPOTENCY_CONFLICT",
            details={"idempotency_key": repeat.key, "differs_at": _first_difference(row.leaves, repeat)},
        )
    return Original(row.submission_id, row.answer_status, row.answer)


def _first_difference(before: Mapping[str, str], repeat: Repeat) -> str:
    differing = (pointer for pointer in [*repeat.leaves, *before] if before.get(pointer) != repeat.leaves.get(pointer))
    return next(differing, "") or "/"


def keep_answer(
    session: Session, key_id: UUID, key: str, status: int, answer: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Keeps the first answer and returns it: of several requests that waited together all give the same.

    The caller commits.
    """
    parameters = {"api_key_id": key_id, "key": key, "status": status, "answer": orjson.dumps(answer).decode()}
    session.execute(_ANSWER, parameters)
    kept = session.execute(_KEPT, {"api_key_id": key_id, "key": key}).one_or_none()
    return (status, answer) if kept is None else (kept.answer_status, kept.answer)
