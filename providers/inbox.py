"""What an adapter can do whose mailbox can be read: be told of new mail, list it, fetch it.

A notice of a provider is a doorbell. What is new is asked for with a cursor, so that a notice that is lost, late or
doubled costs nothing but time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar

from providers.base import Failed, Outcome, Result, harmless

SOMEWHERE = ""
"""`ProviderEvent.locator` of a notice that says only that there is news."""

LARGEST_FETCH = 72 * 1024 * 1024
"""Bytes of an answer that brings a mail: 50 MB of mail as base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a provider tells us of new mail."""

    notify_url: str
    """Where it calls."""
    topic: str | None = None
    """The Pub/Sub topic that Gmail publishes to; None where the mailbox is only looked into from time to time."""
    subscription: str | None = None
    """The provider's id of the watch, once there is one."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Mail that came in since a cursor."""

    locators: Sequence[str] = ()
    cursor: str
    """What to ask with the next time."""
    more: bool = False
    """There is more behind this cursor already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A mail as it lies in the mailbox."""

    raw: bytes = field(repr=False)
    """RFC 5322."""
    provider_thread_id: str | None = None


class ReadFailed(Failed):
    """Nothing could be read. ``outcome``: TRANSIENT, THROTTLED, CREDENTIALS or, where it never will be, PERMANENT."""


@contextmanager
def reading(provider: str) -> Iterator[None]:
    """Turns every failure into ReadFailed. What is uncertain may simply be asked again."""
    try:
        yield
    except Failed as failure:
        raise ReadFailed(harmless(failure.outcome)) from failure
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        detail = f"the answer is not {provider}'s: {type(error).__name__}"
        raise ReadFailed(Outcome(result=Result.TRANSIENT, detail=detail)) from error


class Inbox(ABC):
    """The readable side of one account. Everything here may be repeated. Methods raise ReadFailed and nothing else."""

    watched: ClassVar[bool] = True
    """False where the provider tells of every mail by its own means and keeps no mailbox that could be listed."""

    def watch(self, watch: Watch) -> Watch:
        """Makes the provider tell us of new mail, or renews that. Returns it as it is in force then."""
        return replace(watch, subscription=None, expires_at=None)

    def unwatch(self, watch: Watch) -> None:  # noqa: B027 -- a provider may hold nothing
        """Ends a watch. One that is gone already is no failure."""

    def news(self, cursor: str | None) -> News:  # noqa: ARG002
        """What came in since the cursor, at least; None begins now, with nothing."""
        return News(cursor="")

    @abstractmethod
    def fetch(self, locator: str) -> Fetched | None:
        """The mail. None if it is no longer there."""
