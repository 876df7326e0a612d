"""What a call raises.

PostroadError            .code .status .message .fix .request_id .details
  ValidationFailed   400   .fields .missing_entities
  InvalidKey         401
  NotPermitted       403   .required_scope
  NotFound           404
  Conflict           409
    IdempotencyConflict    the key was used with another body
  NotLogged          422   .message_id: the mail WAS sent, only its log row is late
  NotDelivered       422, 502   the provider did not take the mail
  RateLimited        429   .retry_after
  Unavailable        503   .retry_after
  ServerFailed       any other 5xx
  ConnectionLost           no answer came; .sent tells whether the request may have been taken
"""

from collections.abc import Mapping
from typing import Any, Final


class PostroadError(Exception):
    """An answer other than success.

    code: in capitals, whatever the envelope; empty if the answer was not the API's. status: 0 if no answer came.
    fix: what to do about it; empty where the answer has it in ``message``. details: whatever else the answer says.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        fix: str = "",
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.fix = fix
        self.request_id = request_id
        self.details = dict(details or {})
        self.retry_after = retry_after
        """Seconds that the server asked to wait, where it did."""

    def __str__(self) -> str:
        parts = (self.code, self.message, self.fix, f"(request {self.request_id})" if self.request_id else "")
        return " ".join(part for part in parts if part)


class ValidationFailed(PostroadError):
    @property
    def fields(self) -> dict[str, str]:
        """Field as it was sent -> what is wrong with it."""
        return {item["field"]: item["message"] for item in self.details.get("fields", ())}

    @property
    def missing_entities(self) -> dict[str, str]:
        """Field as it was sent -> the id in it that does not exist."""
        return {item["field"]: item["id"] for item in self.details.get("missing_entities", ())}


class InvalidKey(PostroadError):
    pass


class NotPermitted(PostroadError):
    @property
    def required_scope(self) -> str | None:
        found = self.details.get("required_scope")
        return str(found) if found else None


class NotFound(PostroadError):
    pass


class Conflict(PostroadError):
    pass


class IdempotencyConflict(Conflict):
    pass


class NotLogged(PostroadError):
    @property
    def message_id(self) -> str | None:
        """The mail that was sent. Do not send it again."""
        found = self.details.get("message_id")
        return str(found) if found else None


class NotDelivered(PostroadError):
    pass


class RateLimited(PostroadError):
    pass


class Unavailable(PostroadError):
    pass


class ServerFailed(PostroadError):
    pass


class ConnectionLost(PostroadError):
    """No answer came, however often it was tried. Its cause is httpx2's exception."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether the server may have taken the request. A send repeats safely with the same Idempotency-Key."""


_BY_CODE: Final[Mapping[str, type[PostroadError]]] = {
    "IDEMPOTENCY_CONFLICT": IdempotencyConflict,
    "EMAIL_LOG_FAILED": NotLogged,
    "EMAIL_DELIVERY_FAILED": NotDelivered,
    "PROVIDER_ERROR": NotDelivered,
}
_BY_STATUS: Final[Mapping[int, type[PostroadError]]] = {
    400: ValidationFailed,
    401: InvalidKey,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
    413: ValidationFailed,
    415: ValidationFailed,
    422: NotDelivered,
    429: RateLimited,
    503: Unavailable,
}


def kind_of(code: str, status: int) -> type[PostroadError]:
    """The exception for an answer."""
    by_status = _BY_STATUS.get(status, ServerFailed if status >= 500 else PostroadError)
    return _BY_CODE.get(code, by_status)
