"""What Microsoft Graph's errors mean: ``{"error": {"code", "message"}}`` beside an HTTP status."""

from providers.base import Outcome, Result
from providers.http import Answer, fields_of, meaning

STATUSES: dict[int, Result] = {
    400: Result.PERMANENT,
    401: Result.CREDENTIALS,
    403: Result.CREDENTIALS,
    404: Result.CREDENTIALS,  # no such mailbox, or not Graph
    408: Result.TRANSIENT,
    409: Result.TRANSIENT,
    412: Result.TRANSIENT,
    413: Result.PERMANENT,
    415: Result.PERMANENT,
    429: Result.THROTTLED,
    503: Result.THROTTLED,
    507: Result.CREDENTIALS,
}
"""What a refusal means. Any other answer to a send leaves it open whether the mail goes."""

CODES: dict[str, Result] = {
    "ErrorInvalidRecipients": Result.PERMANENT,
    "ErrorInvalidRequest": Result.PERMANENT,
    "InvalidInternetMessageHeader": Result.PERMANENT,
    "InvalidInternetMessageHeaderCollection": Result.PERMANENT,
    "ErrorMessageSizeExceeded": Result.PERMANENT,
    "ErrorSendAsDenied": Result.PERMANENT,  # this From, not the account
    "ErrorAccessDenied": Result.CREDENTIALS,
    "InvalidAuthenticationToken": Result.CREDENTIALS,
    "MailboxNotEnabledForRESTAPI": Result.CREDENTIALS,
    "ErrorQuotaExceeded": Result.CREDENTIALS,  # the mailbox is full: its owner must act
    "ErrorExceededMessageLimit": Result.THROTTLED,
    "ApplicationThrottled": Result.THROTTLED,
    "MailboxConcurrency": Result.THROTTLED,
}
"""``error.code`` where it says more than the status."""


def refused(answer: Answer) -> Outcome:
    """What an answer other than success means for a send."""
    known = fields_of(fields_of(answer.json()).get("error"))
    code = str(known.get("code") or "")
    told = CODES.get(code) if answer.status < 500 else None
    result = told or meaning(answer.status, STATUSES, own=bool(known))
    return Outcome(
        result=result,
        code=f"{answer.status}/{code}" if code else str(answer.status),
        detail=str(known.get("message") or f"HTTP {answer.status} without an error object")[:500],
        retry_after=answer.retry_after,
    )
