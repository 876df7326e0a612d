"""What a provider wants of a mailer, as plain data: each adapter has such a table, and the API reads by it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a value must be."""

    TOKEN = "token"  # noqa: S105 -- a kind of value
    """Visible ASCII: it goes into a header or a URL."""
    SECRET = "secret"  # noqa: S105 -- a kind of value
    """Any text that is not empty."""
    NAME = "name"
    """One line that is not empty."""
    LINE = "line"
    """One line."""
    ID = "id"
    """Letters, digits, dots and hyphens."""
    HOST = "host"
    """A host name or an address."""
    PORT = "port"
    SWITCH = "switch"
    """True or false."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One field. All of them are sealed when they are stored, and never shown."""

    kind: Kind | tuple[str, ...]
    """Or the words that may stand there."""
    required: bool = False
    default: str | None = None
    beside: str | None = None
    """The field that it goes together with: both are given or neither."""
    instead_of: tuple[str, ...] = ()
    """What is to be given where this is not. A refresh token may come later: connecting the mailbox brings it."""


Credentials = Mapping[str, Credential]

REFRESH_TOKEN = "refresh_token"  # noqa: S105 -- a name
OAUTH: Credentials = {
    "client_id": Credential(Kind.TOKEN, required=True),
    "client_secret": Credential(Kind.TOKEN, required=True),
    REFRESH_TOKEN: Credential(Kind.TOKEN),
}
"""A mailbox that is connected by its user's consent."""
