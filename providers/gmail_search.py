"""Finds a mail in a Gmail mailbox by our own reference, among the newest sent mails and drafts.

Gmail replaces the Message-ID and does not search for headers of other names, so the header is read of one after the
other.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from providers.base import Outcome, Result
from providers.gmail_recipients import REF_HEADER
from providers.gmail_service import CallFailed, GmailService
from providers.http import fields_of, objects_in

SEARCH_DEPTH = 200
"""How many of the newest sent mails and drafts a search reads at most."""
SEARCH_SECONDS = 30.0
READ_ONCE = 2 * SEARCH_DEPTH
"""Messages whose headers are remembered, of the sent ones and of drafts."""
CLOCKS_APART_MILLIS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a message is known by. A message never changes, so it is read once."""

    ref: str | None
    message_id: str | None
    millis: int | None
    """Since 1970."""


class Search:
    """Everything raises CallFailed, for one where the scopes do not allow reading."""

    def __init__(self, service: GmailService) -> None:
        self._service = service
        self.mark = lru_cache(maxsize=READ_ONCE)(self._read_mark)
        """Of a sent message, by its id."""
        self._draft_mark = lru_cache(maxsize=READ_ONCE)(self._read_draft_mark)

    def sent(self, ref: str) -> tuple[dict[str, Any] | None, bool]:
        """The sent message with this reference, and whether all that could be it were read."""
        messages = self._service.messages
        page = self._service.call(messages.list(userId="me", labelIds=["SENT"], maxResults=SEARCH_DEPTH))
        for item in _in_time(objects_in(page.get("messages"))):
            mark = self.mark(str(item.get("id")))
            if mark.ref == ref:
                return item, True
            if _older(mark, ref):
                return None, True
        return None, not page.get("nextPageToken")

    def draft(self, ref: str) -> str | None:
        """The id of the draft with this reference."""
        page = self._service.call(self._service.drafts.list(userId="me", maxResults=SEARCH_DEPTH))
        for item in _in_time(objects_in(page.get("drafts"))):
            mark = self._draft_mark(str(item.get("id")), str(fields_of(item.get("message")).get("id")))
            if mark is None:
                continue
            if mark.ref == ref:
                return str(item["id"])
            if _older(mark, ref):
                return None
        return None

    def draft_message(self, draft_id: str, form: str) -> dict[str, Any] | None:
        """The message of a draft; None if there is no such draft."""
        request = self._service.drafts.get(userId="me", id=draft_id, format=form)
        try:
            return dict(fields_of(self._service.call(request).get("message")))
        except CallFailed as error:
            if error.status == 404:
                return None
            raise

    def _read_draft_mark(self, draft_id: str, _: str) -> Mark | None:
        """None where it was sent or deleted since it was listed. A draft that is edited has a message of another id."""
        message = self.draft_message(draft_id, "metadata")
        return None if message is None else _mark(message)

    def _read_mark(self, message_id: str) -> Mark:
        wanted = {"format": "metadata", "metadataHeaders": [REF_HEADER, "Message-ID"]}
        return _mark(self._service.call(self._service.messages.get(userId="me", id=message_id, **wanted)))


def _in_time(items: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The items, as long as there is time to read them. Raises CallFailed when it is up."""
    end = time.monotonic() + SEARCH_SECONDS
    for item in items:
        if time.monotonic() > end:
            raise CallFailed(Outcome(result=Result.TRANSIENT, detail="the search took too long"))
        yield item


def _mark(message: Mapping[str, Any]) -> Mark:
    millis = str(message.get("internalDate"))
    return Mark(
        ref=_header_of(message, REF_HEADER),
        message_id=_header_of(message, "Message-ID"),
        millis=int(millis) if millis.isdecimal() else None,
    )


def _older(mark: Mark, ref: str) -> bool:
    """Whether a message is older than the mail with this reference can be, by the time in its UUIDv7 (RFC 9562 5.7)."""
    made = UUID(hex=ref)
    millis = made.int >> 80
    return made.version == 7 and mark.millis is not None and mark.millis < millis - CLOCKS_APART_MILLIS


def _header_of(message: Mapping[str, Any], name: str) -> str | None:
    headers = objects_in(fields_of(message.get("payload")).get("headers"))
    return next((str(item.get("value")) for item in headers if str(item.get("name")).lower() == name.lower()), None)
