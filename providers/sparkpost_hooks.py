"""What SparkPost's webhooks report: batches of events, and inbound mail of relay webhooks.

SparkPost signs nothing. Its webhook can present a secret, as HTTP Basic password or as webhook token; where none is
set, the token in our hook URL is the only one.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from providers.base import BadSignature, HookRequest, ProviderEvent
from providers.http import fields_of

EVENTS: dict[str, str] = {
    "injection": "accepted",
    "delivery": "delivered",
    "delay": "deferred",
    "bounce": "bounced",
    "out_of_band": "bounced",
    "policy_rejection": "bounced",
    "generation_rejection": "bounced",
    "generation_failure": "generation_failed",
    "spam_complaint": "complained",
    "open": "opened",
    "initial_open": "opened",
    "amp_open": "opened",
    "amp_initial_open": "opened",
    "click": "clicked",
    "amp_click": "clicked",
    "list_unsubscribe": "unsubscribed",
    "link_unsubscribe": "unsubscribed",
}

BOUNCE_CLASSES: dict[str, str] = {
    **dict.fromkeys(("10", "30", "25"), "hard"),
    **dict.fromkeys(("1", "20", "21", "22", "23", "24", "40", "70"), "soft"),
    **dict.fromkeys(("50", "51", "52", "53", "54"), "blocked"),
    "90": "unsubscribe",
}
NO_BOUNCES = {"60", "80", "100"}
"""Automatic replies, subscriptions and challenges: answers to a mail, no news of its delivery."""


def hook_events(request: HookRequest, secret: str) -> list[ProviderEvent]:
    """The events of one batch; a ping has none. Raises BadSignature."""
    _check_secret(request, secret)
    try:
        return [event for entry in json.loads(request.body) for event in _events(entry["msys"])]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise BadSignature("the call is no batch of SparkPost events") from None


def ref_of(event: Mapping[str, Any]) -> str | None:
    """Our reference in one of SparkPost's events."""
    return fields_of(event.get("rcpt_meta")).get("ref")


def _check_secret(request: HookRequest, secret: str) -> None:
    """Raises BadSignature unless the call presents the secret, as HTTP Basic password or as webhook token."""
    if not secret:
        return
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    presented = request.headers.get("x-messagesystems-webhook-token", "").encode()
    if scheme.lower() == "basic":
        try:
            presented = base64.b64decode(encoded, validate=True).partition(b":")[2]
        except binascii.Error:
            presented = b""
    if not hmac.compare_digest(presented, secret.encode()):
        raise BadSignature("the secret of the hook is missing or wrong")


def _events(entry: Mapping[str, Mapping[str, Any]]) -> Iterator[ProviderEvent]:
    for kind, body in entry.items():
        if kind == "relay_message":
            yield _received(body)
        elif body.get("type") in EVENTS and str(body.get("bounce_class")) not in NO_BOUNCES:
            yield _event(body)


def _event(body: Mapping[str, Any]) -> ProviderEvent:
    kind = EVENTS[body["type"]]
    bounce_class = BOUNCE_CLASSES.get(str(body.get("bounce_class")), "blocked") if kind == "bounced" else None
    found = {
        "bounce_type": body.get("bounce_class"),
        "bounce_class": bounce_class,
        "code": body.get("error_code"),
        "reason": body.get("raw_reason") or body.get("reason"),
        "url": body.get("target_link_url"),
        "user_agent": body.get("user_agent"),
        "ip": body.get("ip_address"),
    }
    return ProviderEvent(
        type="unsubscribed" if bounce_class == "unsubscribe" else kind,
        at=datetime.fromtimestamp(float(body["timestamp"]), UTC),
        natural_key=f"sparkpost:{body['event_id']}",
        ref=ref_of(body),
        provider_message_id=body.get("transmission_id"),
        recipient=body.get("raw_rcpt_to") or body.get("rcpt_to"),
        data={name: value for name, value in found.items() if value},
    )


def _received(body: Mapping[str, Any]) -> ProviderEvent:
    """An inbound mail. ``data``: raw (the whole mail), envelope_from. It has no id: the mail itself is its identity."""
    content = body["content"]
    written = str(content["email_rfc822"])
    raw = base64.b64decode(written) if content.get("email_rfc822_is_base64") else written.encode(errors="replace")
    digest = hashlib.sha256(f"{body.get('rcpt_to')}\n".encode(errors="replace") + raw).hexdigest()
    return ProviderEvent(
        type="received",
        at=datetime.now(UTC),
        natural_key=f"sparkpost:relay:{digest}",
        recipient=body.get("rcpt_to"),
        data={"raw": raw, "envelope_from": body.get("msg_from")},
    )
