"""Mail that comes into a Microsoft 365 mailbox: a subscription to its inbox, its change notifications, its MIME.

https://learn.microsoft.com/graph/api/resources/subscription and .../change-notifications-lifecycle-events. Every id is
immutable: the session that makes the subscription prefers them, and so do its notifications.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from providers.base import BadSignature, HookRequest, ProviderEvent
from providers.inbox import LARGEST_FETCH, SOMEWHERE, Fetched, Inbox, News, ReadFailed, Watch, reading
from providers.microsoft365_errors import refused
from providers.microsoft365_service import Graph, message_path, object_of

LIFE = timedelta(days=2)
"""Asked for; Graph lets a subscription to messages live for 4230 minutes at least, by which page one believes."""
OVERLAP = timedelta(minutes=10)
"""Mail this much older than the last look is listed again: Graph's index may lag."""
PAGE = 100
PAGES = 10
LIFECYCLE = {"reauthorizationRequired", "subscriptionRemoved", "missed"}
_RECEIVED = "me/mailFolders('inbox')/messages"


class Microsoft365Inbox(Inbox):
    """The cursor is the time (RFC 3339) up to which the inbox was listed."""

    def __init__(self, graph: Graph, client_state: str) -> None:
        self._graph = graph
        self._client_state = client_state

    def watch(self, watch: Watch) -> Watch:
        expires_at = datetime.now(UTC) + LIFE
        with reading("Graph"):
            if watch.subscription is not None:
                renewal = {"expirationDateTime": _written(expires_at)}
                answer = self._graph.call("PATCH", _subscription(watch), json=renewal)
                if answer.status == 200:
                    return replace(watch, expires_at=_ends(object_of(answer)))
                if answer.status != 404:
                    raise ReadFailed(refused(answer))
            made = self._graph.step("POST", "subscriptions", json=self._wanted(watch, expires_at))
            return replace(watch, subscription=str(made["id"]), expires_at=_ends(made))

    def _wanted(self, watch: Watch, expires_at: datetime) -> dict[str, str]:
        return {
            "changeType": "created",
            "resource": _RECEIVED,
            "notificationUrl": watch.notify_url,
            "lifecycleNotificationUrl": watch.notify_url,
            "clientState": self._client_state,
            "expirationDateTime": _written(expires_at),
        }

    def unwatch(self, watch: Watch) -> None:
        if watch.subscription is None:
            return
        with reading("Graph"):
            answer = self._graph.call("DELETE", _subscription(watch))
            if answer.status not in (204, 404):
                raise ReadFailed(refused(answer))

    def news(self, cursor: str | None) -> News:
        now = datetime.now(UTC)
        if not cursor:
            return News(cursor=_written(now))
        with reading("Graph"):
            since = datetime.fromisoformat(cursor) - OVERLAP
            asked = {
                "$filter": f"receivedDateTime ge {_written(since)}",
                "$orderby": "receivedDateTime",
                "$select": "id,receivedDateTime",
                "$top": str(PAGE),
            }
            found: list[str] = []
            for page in range(PAGES):
                items = object_of(self._graph.call("GET", _RECEIVED, params={**asked, "$skip": str(page * PAGE)}))[
                    "value"
                ]
                found += [str(item["id"]) for item in items]
                if len(items) < PAGE:
                    return News(locators=found, cursor=_written(now))
            reached = max(datetime.fromisoformat(str(items[-1]["receivedDateTime"])), since + timedelta(seconds=1))
            return News(locators=found, cursor=_written(reached + OVERLAP), more=True)  # the overlap comes off again

    def fetch(self, locator: str) -> Fetched | None:
        path = message_path(locator)
        with reading("Graph"):
            raw = self._graph.call("GET", f"{path}/$value", max_bytes=LARGEST_FETCH)
            if raw.status == 404:
                return None
            if raw.status != 200:
                raise ReadFailed(refused(raw))
            known = self._graph.call("GET", path, params={"$select": "conversationId"})
            thread = object_of(known).get("conversationId") if known.status == 200 else None
            return Fetched(raw=raw.body, provider_thread_id=thread)


def notices(request: HookRequest, client_state: str) -> list[ProviderEvent]:
    """What a call of Graph's tells: mail that came in, by id, or that something was missed. Raises BadSignature."""
    try:
        told = list(json.loads(request.body)["value"])
        states = [str(notice["clientState"]) for notice in told]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadSignature("the call is no change notification") from None
    genuine = [hmac.compare_digest(state.encode(errors="replace"), client_state.encode()) for state in states]
    if not all(genuine):
        raise BadSignature("the clientState is not ours")
    return [_event(notice) for notice in told if notice.get("changeType") == "created" or _lifecycle(notice)]


def _lifecycle(notice: Mapping[str, Any]) -> str | None:
    name = notice.get("lifecycleEvent")
    return str(name) if name in LIFECYCLE else None


def _event(notice: Mapping[str, Any]) -> ProviderEvent:
    """New mail by its id. A lifecycle notice asks to look for oneself, and under a new or renewed subscription."""
    lifecycle = _lifecycle(notice)
    message = SOMEWHERE if lifecycle else str((notice.get("resourceData") or {}).get("id") or SOMEWHERE)
    return ProviderEvent(
        type="received",
        at=datetime.now(UTC),
        natural_key=f"microsoft365:{notice.get('subscriptionId')}:{lifecycle or message}",
        provider_message_id=message or None,
        data={"renew": True} if lifecycle in ("reauthorizationRequired", "subscriptionRemoved") else {},
        locator=message,
    )


def _subscription(watch: Watch) -> str:
    return f"subscriptions/{quote(str(watch.subscription), safe='')}"


def _ends(subscription: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(subscription["expirationDateTime"]))


def _written(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
