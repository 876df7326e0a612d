"""What a server's reply means: tables of reply codes (RFC 5321) and enhanced status codes (RFC 3463)."""

import re
from collections.abc import Mapping

from providers.base import Outcome, Result
from providers.smtp_wire import Reply

DETAIL_LENGTH = 500
QUOTA_SECONDS = 3600.0
"""Daily quotas of mailbox providers roll: room comes back bit by bit within a day, so an hourly look is soon enough."""

_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)")
_QUEUE_ID = re.compile(rb"\bqueued as ([\w.-]*\w)", re.IGNORECASE)

_BY_CODE: dict[int, Result] = {
    421: Result.THROTTLED,
    432: Result.THROTTLED,  # Exchange Online: too many connections at once
    454: Result.TRANSIENT,  # STARTTLS or AUTH does not work now (RFC 3207, 4954), whatever its 4.7.0 suggests
    530: Result.CREDENTIALS,
    534: Result.CREDENTIALS,
    535: Result.CREDENTIALS,
    538: Result.CREDENTIALS,
}
_BY_STATUS: dict[bytes, Result] = {
    b"4.2.1": Result.THROTTLED,  # Gmail: this mailbox receives too fast
    b"4.5.3": Result.THROTTLED,  # too many recipients in one go: the others pass in the next
    b"5.7.30": Result.CREDENTIALS,  # Exchange Online: passwords are no longer taken
    b"5.7.139": Result.CREDENTIALS,  # Exchange Online: SMTP AUTH is switched off
}
_QUOTAS: dict[bytes, bytes] = {
    b"5.4.5": b"",  # Gmail: daily limit
    b"5.1.90": b"",  # Exchange Online: daily limit of recipients
    b"5.2.0": b"quota",  # Exchange Online: SubmissionQuotaExceeded; from others without that word a plain refusal
}
"""Status -> a word its text must hold. Limits of the sender that come with a 5yz code although they pass."""

_OF_THE_RECIPIENT = re.compile(rb"4\.(2\.1|7\.\d{1,2})$")
"""In an answer to RCPT: a mailbox that receives too fast, greylisting. Exchange Online's limits: from 4.7.500."""

_URGENCY = (Result.CREDENTIALS, Result.THROTTLED, Result.TRANSIENT, Result.PERMANENT)


def status(reply: Reply) -> bytes:
    """The enhanced status code, empty if there is none."""
    found = _ENHANCED.match(reply.text)
    return found.group() if found else b""


def refusal(reply: Reply) -> Outcome:
    """What a reply of 400 or more to a command of a mail, or to its final dot, means. Never that it was accepted."""
    result, retry_after = _judged(reply, status(reply))
    return _outcome(reply, result, retry_after)


def _judged(reply: Reply, enhanced: bytes) -> tuple[Result, float | None]:
    word = _QUOTAS.get(enhanced)
    if word is not None and word in reply.text.lower():
        return Result.THROTTLED, QUOTA_SECONDS
    result = _BY_CODE.get(reply.code) or _BY_STATUS.get(enhanced)
    if result is None and enhanced.startswith(b"4.7."):
        result = Result.THROTTLED
    return result or (Result.PERMANENT if reply.code >= 500 else Result.TRANSIENT), None


def ends_connection_only(closing: Reply) -> bool:
    """Whether a 421 to a session that has carried mail just ends it, as servers do that count mails per connection.

    One that names a policy (4.7.x) means the account.
    """
    return not status(closing).startswith(b"4.7.")


def recipient_refusal(reply: Reply) -> Outcome:
    """The same for RCPT. What is said of one recipient, that it is greylisted, say, holds up no other mail."""
    outcome = refusal(reply)
    if outcome.result is Result.THROTTLED and reply.code not in _BY_CODE and _OF_THE_RECIPIENT.match(status(reply)):
        return _outcome(reply, Result.TRANSIENT)
    return outcome


def service_refusal(reply: Reply) -> Outcome:
    """The same for a reply to what comes before any mail (greeting, EHLO, STARTTLS, NOOP).

    It says nothing about a mail, so it is never final.
    """
    outcome = refusal(reply)
    return _outcome(reply, Result.TRANSIENT) if outcome.result is Result.PERMANENT else outcome


def login_refusal(reply: Reply) -> Outcome:
    """The same for AUTH: a 4yz passes, everything else is a refusal of the credentials."""
    if reply.code in (421, 432):
        return refusal(reply)
    return _outcome(reply, Result.TRANSIENT if 400 <= reply.code < 500 else Result.CREDENTIALS)


def acceptance(reply: Reply, refused: Mapping[str, Outcome]) -> Outcome:
    """The server has the mail. refused: the recipients that it would not take."""
    queued = _QUEUE_ID.search(reply.text)
    return Outcome(
        result=Result.ACCEPTED,
        detail=_text(reply),
        code=_shown_code(reply),
        provider_message_id=queued.group(1).decode("ascii", "replace") if queued else None,
        recipients=refused,
    )


def all_refused(refused: Mapping[str, Outcome]) -> Outcome:
    """No recipient was taken: the mail is as alive as its most hopeful recipient."""
    worst = min(refused.values(), key=lambda outcome: _URGENCY.index(outcome.result))
    return Outcome(
        result=worst.result,
        detail=worst.detail,
        code=worst.code,
        retry_after=worst.retry_after,
        recipients=refused if len(refused) > 1 else {},
    )


def _outcome(reply: Reply, result: Result, retry_after: float | None = None) -> Outcome:
    return Outcome(result=result, detail=_text(reply), code=_shown_code(reply), retry_after=retry_after)


def _text(reply: Reply) -> str:
    return reply.text[:DETAIL_LENGTH].decode("utf-8", "replace").replace("\n", " ")


def _shown_code(reply: Reply) -> str:
    enhanced = status(reply)
    return f"{reply.code} {enhanced.decode()}" if enhanced else str(reply.code)
