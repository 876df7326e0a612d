"""What can go wrong in an SMTP dialogue, and the recipients that make it."""

import enum
from dataclasses import dataclass


class Stage(enum.StrEnum):
    """Where in the dialogue."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    """After the first bytes of the content."""
    DOT = "dot"
    NOOP = "noop"
    RSET = "rset"
    QUIT = "quit"


class Does(enum.StrEnum):
    """What the server does there instead of answering as it should."""

    REPLY = "reply"
    """Gives `Fault.reply`; after a 421 it closes."""
    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"
    """Nothing more on this connection."""
    DRIP = "drip"
    """The right answer, a byte at a time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour."""

    at: Stage
    does: Does
    reply: str = ""
    """A whole reply: ``451 4.3.0 try later``."""
    store: bool = False
    """At `Stage.DOT`: the mail is kept all the same."""


MAGIC: dict[str, Fault] = {
    "bounce-550": Fault(Stage.RCPT, Does.REPLY, "550 5.1.1 no such user"),
    "later-451": Fault(Stage.RCPT, Does.REPLY, "451 4.3.0 try again later"),
    "slow-421": Fault(Stage.RCPT, Does.REPLY, "421 4.7.0 too fast, closing"),
    "full-452": Fault(Stage.RCPT, Does.REPLY, "452 4.2.2 mailbox full"),
    "reject-data": Fault(Stage.DOT, Does.REPLY, "554 5.7.1 content refused"),
    "drop-before-dot": Fault(Stage.DATA, Does.CLOSE),
    "drop-after-dot": Fault(Stage.DOT, Does.CLOSE, store=True),
    "hang-after-dot": Fault(Stage.DOT, Does.HANG, store=True),
    "reset-after-dot": Fault(Stage.DOT, Does.RESET, store=True),
    "drip": Fault(Stage.DOT, Does.DRIP, store=True),
}
"""Local part of a recipient -> what happens to a mail for it."""

DRIP_SECONDS = 0.02
"""Between two bytes."""
