"""Mail that comes into a Gmail mailbox: ``users.watch``, the history, ``messages.get``.

Gmail publishes a notice to a Pub/Sub topic; its push subscription calls our hook (`providers.gmail_push`). A watch
lives for seven days at most.
"""

import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from providers.gmail_service import CallFailed, GmailService
from providers.inbox import LARGEST_FETCH, Fetched, Inbox, News, Watch, reading

PAGE = 200
PAGES = 5
"""Of the history, or of a list, read in one go."""
OVERLAP_SECONDS = 3600
"""Mail this much older than the last look is listed again after a history was lost."""
_UNWANTED = {"SENT", "DRAFT", "SPAM", "TRASH"}


class GmailInbox(Inbox):
    """The cursor is ``<history id> <seconds since 1970>``; the time is what is left when the id has grown too old."""

    def __init__(self, service: GmailService) -> None:
        self._service = service

    def watch(self, watch: Watch) -> Watch:
        if watch.topic is None:
            return super().watch(watch)
        body = {"topicName": watch.topic, "labelIds": ["INBOX"], "labelFilterBehavior": "include"}
        with reading("Gmail"):
            answer = self._service.call(self._service.users.watch(userId="me", body=body))
            expires_at = datetime.fromtimestamp(int(answer["expiration"]) / 1000, UTC)
        return replace(watch, subscription=watch.topic, expires_at=expires_at)

    def unwatch(self, watch: Watch) -> None:
        if watch.subscription is not None:
            with reading("Gmail"):
                self._service.call(self._service.users.stop(userId="me"))

    def news(self, cursor: str | None) -> News:
        with reading("Gmail"):
            if not cursor:
                return News(cursor=self._now())
            history_id, _, since = cursor.partition(" ")
            try:
                return self._history(history_id)
            except CallFailed as error:
                if error.status != 404:
                    raise
            return self._listed(int(since) - OVERLAP_SECONDS)

    def _now(self) -> str:
        return _cursor(str(self._service.call(self._service.users.getProfile(userId="me"))["historyId"]))

    def _history(self, start: str) -> News:
        asked: dict[str, Any] = {"startHistoryId": start, "labelId": "INBOX", "historyTypes": ["messageAdded"]}
        found: dict[str, None] = {}
        for _ in range(PAGES):
            page = self._service.call(self._service.users.history().list(userId="me", maxResults=PAGE, **asked))
            for entry in page.get("history", []):
                start = str(entry["id"])
                found |= dict.fromkeys(_added(entry))
            if not page.get("nextPageToken"):
                return News(locators=list(found), cursor=_cursor(str(page["historyId"])))
            asked["pageToken"] = page["nextPageToken"]
        return News(locators=list(found), cursor=_cursor(start), more=True)

    def _listed(self, since: int) -> News:
        """The history is no longer kept so far back: all that the inbox has since then."""
        cursor = self._now()  # first, so that what comes in meanwhile is listed twice rather than never
        asked: dict[str, Any] = {"labelIds": ["INBOX"], "q": f"after:{max(since, 0)}"}
        found: list[str] = []
        while True:
            page = self._service.call(self._service.messages.list(userId="me", maxResults=PAGE, **asked))
            found += [str(item["id"]) for item in page.get("messages", [])]
            if not page.get("nextPageToken"):
                return News(locators=found, cursor=cursor)
            asked["pageToken"] = page["nextPageToken"]

    def fetch(self, locator: str) -> Fetched | None:
        with reading("Gmail"):
            try:
                request = self._service.messages.get(userId="me", id=locator, format="raw")
                message = self._service.call(request, max_bytes=LARGEST_FETCH)
            except CallFailed as error:
                if error.status == 404:
                    return None
                raise
            return Fetched(raw=base64.urlsafe_b64decode(message["raw"]), provider_thread_id=message.get("threadId"))


def _added(entry: dict[str, Any]) -> Iterator[str]:
    """The messages that one entry of the history brought into the inbox."""
    for added in entry.get("messagesAdded", []):
        if _UNWANTED.isdisjoint(added["message"].get("labelIds", [])):
            yield str(added["message"]["id"])


def _cursor(history_id: str) -> str:
    return f"{history_id} {int(time.time())}"
