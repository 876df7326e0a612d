"""What Postmark's answers mean: an ``ErrorCode`` for each mail of a batch, or an HTTP status for the whole call."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from providers.base import OutboundEmail, Outcome, Result
from providers.http import Answer, fields_of, meaning

_CODES: dict[int, Result] = {
    10: Result.CREDENTIALS,
    100: Result.TRANSIENT,  # maintenance
    405: Result.CREDENTIALS,  # out of credits, or the stream may not send this
    412: Result.CREDENTIALS,  # account awaits approval
    413: Result.CREDENTIALS,  # account may not send
    429: Result.THROTTLED,
}
"""``ErrorCode`` -> result. Every other code speaks of this mail alone, an unconfirmed From (400, 401) included."""

_STATUSES: dict[int, Result] = {
    400: Result.PERMANENT,
    401: Result.CREDENTIALS,
    403: Result.CREDENTIALS,  # blocked before the API: an HTML page
    404: Result.CREDENTIALS,
    405: Result.CREDENTIALS,
    413: Result.PERMANENT,
    415: Result.PERMANENT,
    422: Result.PERMANENT,
    429: Result.THROTTLED,
    503: Result.TRANSIENT,
}
"""HTTP status -> result, where no ``ErrorCode`` says more. What is not here tells nothing about the mail."""

_INACTIVE = re.compile(r"inactive addresses:\s*([^\n]+)", re.IGNORECASE)


def mail_outcome(result: Any, email: OutboundEmail) -> Outcome:
    """One item of a batch answer. "Accepted, but may be delayed" comes without an ``ErrorCode``."""
    if not isinstance(result, dict) or not ("ErrorCode" in result or "MessageID" in result):
        return Outcome(result=Result.UNCERTAIN, detail="the answer for this mail is no result")
    code, text = _code(result), str(result.get("Message", ""))[:500]
    if code:
        return Outcome(result=_CODES.get(code, Result.PERMANENT), detail=text, code=f"422/{code}")
    refusal = Outcome(result=Result.PERMANENT, detail="inactive: bounced or complained before", code="406")
    return Outcome(
        result=Result.ACCEPTED,
        detail=text,
        provider_message_id=result.get("MessageID"),
        recipients=dict.fromkeys(_inactive(text, email.recipients), refusal),
    )


def _code(body: Mapping[str, Any]) -> int:
    """Postmark's ``ErrorCode``; 0 where there is none."""
    code = body.get("ErrorCode")
    return code if isinstance(code, int) else 0


def _inactive(text: str, recipients: Sequence[str]) -> list[str]:
    """Recipients that an acceptance nevertheless names as suppressed."""
    match = _INACTIVE.search(text)
    named = {part.strip(" .").casefold() for part in match.group(1).split(",")} if match else set()
    return [address for address in recipients if address.casefold() in named]


def call_outcome(answer: Answer | None) -> Outcome:
    """Of every mail in a call that failed. None: postmarker met something that it does not even call an answer."""
    if answer is None:
        return Outcome(result=Result.UNCERTAIN, detail="the answer is not what Postmark's API answers")
    known = fields_of(answer.json())
    code = _code(known)
    result = meaning(answer.status, _STATUSES, own=bool(known))
    if answer.status in {401, 422}:
        result = _CODES.get(code, result)
    return Outcome(
        result=result,
        detail=str(known.get("Message") or f"HTTP {answer.status} without an error object")[:500],
        code=f"{answer.status}/{code}" if code else str(answer.status),
        retry_after=answer.retry_after,
    )
