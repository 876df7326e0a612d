"""One call from beginning to end, retries and all, without touching the network: who drives it does."""

import random
from collections.abc import Generator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx2

from api_shim.client.calls import Call, Json, Reply
from api_shim.client.errors import ConnectionLost, PostroadError, kind_of

T = TypeVar("T")

NOT_TAKEN: Final = frozenset({429, 503})
"""Nothing was stored: any call may be made again."""
GATEWAY: Final = frozenset({502, 504})
"""With a body that is no JSON these come from a proxy, which may have lost the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How long to go on. ``tries`` counts the first; ``seconds`` is the longest to wait in all, for one call."""

    tries: int = 5
    seconds: float = 60.0
    first_seconds: float = 0.5
    """Wait before the second try where the server names none; doubled each time, with jitter."""

    def pause(self, attempt: int) -> float:
        return self.first_seconds * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Step = Call[Any] | Pause
"""What to do next: make the call, or wait."""
Outcome = Reply | httpx2.TransportError | None
"""What came of it: an answer, none, or, after a pause, nothing."""


def exchange(call: Call[T], retries: Retries) -> Generator[Step, Outcome, T]:
    """Says what to do, is told what came of it, and returns what the call was made for. Raises PostroadError."""
    left = retries.seconds
    for attempt in range(1, retries.tries + 1):
        outcome = yield call
        if isinstance(outcome, Reply) and outcome.status < 400:
            return call.read(outcome)
        wait = _wait(call, outcome, retries.pause(attempt))
        if wait is None or attempt == retries.tries or wait > left:
            raise _failure(outcome, attempt)
        left -= wait
        yield Pause(wait)
    raise AssertionError("tries is at least 1")


def _wait(call: Call[Any], outcome: Outcome, pause: float) -> float | None:
    """Seconds until it may be tried again; None if it may not."""
    if isinstance(outcome, Reply):
        if outcome.status in NOT_TAKEN:
            asked = retry_after(outcome)
            return pause if asked is None else asked
        lost = outcome.status in GATEWAY and not isinstance(outcome.body, dict)
        return pause if lost and call.repeatable else None
    return pause if call.repeatable or not _may_have_been_sent(outcome) else None


def _may_have_been_sent(outcome: Outcome) -> bool:
    return not isinstance(outcome, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


def _failure(outcome: Outcome, attempts: int) -> PostroadError:
    if isinstance(outcome, Reply):
        return error_of(outcome)
    error = ConnectionLost(
        f"No answer after {attempts} {'try' if attempts == 1 else 'tries'}: {type(outcome).__name__}.",
        sent=_may_have_been_sent(outcome),
    )
    error.__cause__ = outcome
    return error


def retry_after(reply: Reply) -> float | None:
    """Seconds in ``Retry-After``, which holds a number or a date (RFC 9110 section 10.2.3)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        at, now = parsedate_to_datetime(text), parsedate_to_datetime(reply.headers.get("date", ""))
        return max(0.0, (at - now).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


def error_of(reply: Reply) -> PostroadError:
    """The exception for an answer in any of the envelopes."""
    body: Json = reply.body if isinstance(reply.body, dict) else {}
    inner: Json = body["error"] if isinstance(body.get("error"), dict) else body
    code = str(inner.get("code") or ("" if body.get("success") is False else inner.get("error", ""))).upper()
    details: Json = dict(inner.get("details") or {})
    if inner.get("message_id"):
        details["message_id"] = inner["message_id"]
    message = inner.get("detail") or inner.get("message") or _sentence(body) or f"The server answered {reply.status}."
    return kind_of(code, reply.status)(
        str(message),
        code=code,
        status=reply.status,
        fix=str(inner.get("fix", "")),
        request_id=reply.headers.get("x-request-id"),
        details=details,
        retry_after=retry_after(reply),
    )


def _sentence(body: Json) -> str | None:
    """The mailer shape's sentences."""
    sentences = body.get("errors")
    return " ".join(map(str, sentences)) if body.get("success") is False and isinstance(sentences, list) else None
