"""What Mailgun's webhooks report, one signed event a call, and the mail that its routes bring."""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from providers.base import BadSignature, HookRequest, ProviderEvent
from providers.http import fields_of
from providers.mailgun_inbox import is_form, read_form, received

EVENTS: dict[tuple[str, str | None], str] = {
    ("accepted", None): "accepted",
    ("delivered", None): "delivered",
    ("failed", "permanent"): "bounced",
    ("failed", "temporary"): "deferred",
    ("rejected", None): "bounced",
    ("opened", None): "opened",
    ("clicked", None): "clicked",
    ("unsubscribed", None): "unsubscribed",
    ("complained", None): "complained",
}
"""Event and severity -> our word. Others (list uploads) say nothing about a mail; ``stored`` brings one."""

BOUNCE_CLASSES = {
    "bounce": "hard",
    "suppress-bounce": "hard",
    "suppress-complaint": "complaint",
    "suppress-unsubscribe": "unsubscribe",
    "espblock": "blocked",
    "old": "soft",
}
"""Reason of a failure for good -> class. The ``suppress-`` ones were stopped by Mailgun's own list."""

REPLAY_SECONDS = 24 * 3600
"""Older signatures are refused. Mailgun repeats a call for 8 hours; a stored report is read again when applied."""
CLOCK_SKEW_SECONDS = 300
REMEMBERED_TOKENS = 50_000


_spent: dict[str, str] = {}
"""Token -> digest of the event it came with."""


def hook_events(request: HookRequest, signing_key: str) -> list[ProviderEvent]:
    """The event of one call, or none for what says nothing about a mail. Raises BadSignature.

    The signature covers timestamp and token but no body, so a token counts for one body only.
    """
    if is_form(request):
        return [_routed(request, signing_key)]
    try:
        payload = json.loads(request.body)
        signature, data = payload["signature"], payload["event-data"]
        timestamp, token, signed = (str(signature[name]) for name in ("timestamp", "token", "signature"))
        at, identity = datetime.fromtimestamp(float(data["timestamp"]), UTC), str(data["id"])
    except (ValueError, KeyError, TypeError, OverflowError):
        raise BadSignature("the call is no signed Mailgun event") from None
    check_signature(signing_key, timestamp, token, signed)
    _spend(token, data)
    # An id is unique within a day only.
    event = _event(data, at, natural_key=f"mailgun:{identity}:{at:%Y%m%d}")
    return [event] if event else []


def _routed(request: HookRequest, signing_key: str) -> ProviderEvent:
    try:
        form = read_form(request)
        timestamp, token, signed = (form.fields[name] for name in ("timestamp", "token", "signature"))
        check_signature(signing_key, timestamp, token, signed)
        _spend(token, form.digest())
        return received(form)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise BadSignature("the call is no signed mail of a Mailgun route") from None


def ref_of(data: Mapping[str, Any]) -> str | None:
    """Our reference in one of Mailgun's events."""
    return fields_of(data.get("user-variables")).get("ref")


def message_id_of(data: Mapping[str, Any]) -> str | None:
    """The Message-ID of an event's mail, with the brackets that Mailgun leaves out there."""
    bare = fields_of(fields_of(data.get("message")).get("headers")).get("message-id")
    return f"<{bare}>" if bare else None


def check_signature(key: str, timestamp: str, token: str, signature: str) -> None:
    """Raises BadSignature unless ``signature`` is the HMAC-SHA256 of timestamp and token, and not old."""
    if not key:
        raise BadSignature("the account has no signing_key")
    expected = hmac.new(key.encode(), f"{timestamp}{token}".encode(errors="replace"), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
        raise BadSignature("the signature does not match")
    age = time.time() - float(timestamp)
    if not -CLOCK_SKEW_SECONDS <= age <= REPLAY_SECONDS:
        raise BadSignature("the signature is too old")


def _spend(token: str, data: object) -> None:
    """Binds a token to the event it first came with, as long as it is remembered."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    if _spent.setdefault(token, digest) != digest:
        raise BadSignature("the token was used for another event")
    if len(_spent) > REMEMBERED_TOKENS:
        _spent.pop(next(iter(_spent)), None)


def _event(data: Mapping[str, Any], at: datetime, *, natural_key: str) -> ProviderEvent | None:
    name = str(data.get("event"))
    if name == "stored":
        return _stored(data, at, natural_key)
    kind = EVENTS.get((name, data.get("severity"))) or EVENTS.get((name, None))
    if kind is None:
        return None
    message_id = message_id_of(data)
    return ProviderEvent(
        type=kind,
        at=at,
        natural_key=natural_key,
        ref=ref_of(data),
        provider_message_id=message_id,
        rfc_message_id=message_id,
        recipient=data.get("recipient"),
        data=_particulars(data),
    )


def _stored(data: Mapping[str, Any], at: datetime, natural_key: str) -> ProviderEvent | None:
    """A mail that came in and that a route keeps."""
    url = (data.get("storage") or {}).get("url")
    locator = url[0] if isinstance(url, list) and url else url
    if not isinstance(locator, str):
        return None
    return ProviderEvent(
        type="received", at=at, natural_key=natural_key, rfc_message_id=message_id_of(data), locator=locator
    )


def _particulars(data: Mapping[str, Any]) -> dict[str, Any]:
    status, client, reason = data.get("delivery-status") or {}, data.get("client-info") or {}, data.get("reason")
    found = {
        "bounce_type": reason,
        "bounce_class": _bounce_class(data),
        "code": status.get("code"),
        "reason": status.get("message") or status.get("description") or reason,
        "url": data.get("url"),
        "user_agent": client.get("user-agent"),
        "ip": data.get("ip"),
    }
    return {name: value for name, value in found.items() if value}


def _bounce_class(data: Mapping[str, Any]) -> str | None:
    if data.get("event") == "rejected":
        return "blocked"
    if data.get("event") != "failed":
        return None
    return "soft" if data.get("severity") == "temporary" else BOUNCE_CLASSES.get(str(data.get("reason")), "blocked")
