"""The caller's errors: one registry of codes, one exception.

    ApiError               what a route or `accept` raises
      .code                an entry of `CODES`: name, status, sentence, fix, retryable
      .faults              what is wrong, each with its field; all faults of a body at once
      .missing             ids that do not exist in the caller's workspace

How a code is spelled in an answer is the business of the shape that answers (api_shim/shapes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of error. ``name`` in capitals is what the resources answer."""

    name: str
    status: int
    sentence: str
    fix: str
    retryable: bool = False


CODES: dict[str, Code] = {
    code.name: code
    for code in (
        Code("VALIDATION_ERROR", 400, "The request is not valid.", "Correct every field listed in details and send it again."),
        Code("UNAUTHORIZED", 401, "The API key is missing, unknown, expired or revoked.",
             "Send Authorization: Bearer KEY with a current key; create one with POST /v1/keys or `postroad key create`."),
        Code("FORBIDDEN", 403, "The API key lacks a scope that this call needs.", "Use a key with the scope named in details."),
        Code("NOT_CONNECTED", 403, "The workspace has no connected email provider.",
             "Create a mailer with POST /v1/mailers, or connect a mailbox."),
        Code("NOT_FOUND", 404, "There is no such thing in this workspace.", "Check the id; it may have been deleted."),
        Code("METHOD_NOT_ALLOWED", 405, "This path does not take that method.", "See /docs for what it takes."),
        Code("CONFLICT", 409, "The thing is not in a state that allows this.", "Read its current state, then decide."),
        Code("IDEMPOTENCY_CONFLICT", 409, "This Idempotency-Key was used with a different body.",
             "Use a new key for a new request; repeat the exact body to get the original answer."),
        Code("PAYLOAD_TOO_LARGE", 413, "The request body is too large.", "Send less at once; attachments may total 25 MB."),
        Code("UNSUPPORTED_MEDIA_TYPE", 415, "The body must be plain JSON.",
             "Send Content-Type: application/json without Content-Encoding."),
        Code("RATE_LIMITED", 429, "Too many requests.", "Wait for Retry-After seconds.", retryable=True),
        Code("EMAIL_LOG_FAILED", 422, "The mail was sent, but its log row could not be written yet.",
             "Treat it as sent; do not send it again. The row is repaired by itself."),
        Code("EMAIL_DELIVERY_FAILED", 502, "The provider did not take the mail.", "See details for the provider's answer."),
        Code("PHISHING_SUSPECTED", 400, "The content looks like phishing.", "See details for the reasons; change the content."),
        Code("FROM_EMAIL_NOT_WRITABLE", 400, "from_email cannot be set; the server composes it.",
             "Send from_email_handle, the part before the @."),
        Code("INVALID_FROM_EMAIL_HANDLE", 400, "from_email_handle is not a valid local part.",
             "Use letters, digits, dots, dashes and underscores only."),
        Code("ALIAS_NOT_CONNECTED", 400, "The alias is not a send-as address of the connected mailbox.",
             "Pick one of send_as_aliases in GET /v1/email/capabilities."),
        Code("GMAIL_NOT_CONNECTED", 400, "The user has no connected Gmail mailbox.",
             "Connect it with POST /v1/mailers/{id}/connect, or send with mode company."),
        Code("GMAIL_USER_REQUIRED", 400, "An alias needs the Gmail user it belongs to.", "Send gmail_user_id too."),
        Code("UNAVAILABLE", 503, "The service cannot take this now.", "Try again after Retry-After seconds.", retryable=True),
    )
}  # fmt: skip
"""Every error code. docs/errors.md is made from it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a body.

    field: as the caller spelled it, a path such as ``to[3].email`` where it is nested.
    message: what happened, which value, what to do.
    kind: a short word that a shape can map to its own sentence, such as ``required`` or ``cc_needs_bulk``.
    """

    field: str
    message: str
    kind: str = "invalid"


@dataclass(frozen=True, slots=True)
class Missing:
    """An id that is not in the caller's workspace; ``field`` is spelled as the caller spelled it."""

    field: str
    id: str


class ApiError(Exception):
    """An answer other than success."""

    def __init__(
        self,
        name: str,
        *,
        faults: Sequence[Fault] = (),
        missing: Sequence[Missing] = (),
        details: dict[str, Any] | None = None,
        message_id: str | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name)
        self.code = CODES[name]
        self.faults = list(faults)
        self.missing = list(missing)
        self.details = details or {}
        self.message_id = message_id
        self.status = status or self.code.status
        self.headers = headers or {}
