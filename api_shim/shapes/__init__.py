"""The three request shapes of ``POST /v1/email/send``. What a shape looks like is known in its module alone.

module = recognise(body)
submission = module.parse(body)        ApiError -> module.render_error(error)
status, answer = module.render(result)
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from api_shim.errors import ApiError
from api_shim.shapes import crm, mailbox, mailer
from api_shim.shapes.json_body import Body, read_body
from api_shim.shapes.names import shape_of
from api_shim.submission import SendResult, Shape, Submission

__all__ = ["SHAPES", "Body", "ShapeModule", "read_body", "recognise"]


class ShapeModule(Protocol):
    """What the module of a shape offers."""

    @property
    def SHAPE(self) -> Shape: ...  # noqa: N802 -- a constant of a module

    @property
    def WAITS(self) -> bool:  # noqa: N802
        """The answer is held until the message reaches an outcome, unless the caller prefers otherwise."""
        ...

    @property
    def WAITS_FOR_LOG(self) -> bool:  # noqa: N802
        """It is held until the follow-up has written the log row, too."""
        ...

    def parse(self, body: Any) -> Submission:
        """Raises ApiError VALIDATION_ERROR with every fault of the body."""
        ...

    def render(self, result: SendResult) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of a submission that was stored."""
        ...

    def render_error(self, error: ApiError) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of any error; headers are ``error.headers``."""
        ...


SHAPES: Final[Mapping[Shape, ShapeModule]] = {Shape.CRM: crm, Shape.MAILBOX: mailbox, Shape.MAILER: mailer}


def recognise(body: object) -> ShapeModule:
    """The shape that a body is written in, and that its answer is written in, errors too.

    body: JSON as `read_body` outlines it; what is no object is answered in the mailer shape.
    """
    return SHAPES[shape_of(body)]
