"""What Postmark's webhooks report: https://postmarkapp.com/developer/webhooks/webhooks-overview."""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from providers.base import BadSignature, HookRequest, ProviderEvent

_BOUNCES: dict[str, tuple[str, str] | None] = {
    "HardBounce": ("bounced", "hard"),
    "SoftBounce": ("bounced", "soft"),
    "VirusNotification": ("bounced", "blocked"),
    "BadEmailAddress": ("bounced", "hard"),
    "ManuallyDeactivated": ("bounced", "blocked"),
    "Blocked": ("bounced", "blocked"),
    "DMARCPolicy": ("bounced", "blocked"),
    "Unconfirmed": ("bounced", "blocked"),
    "Transient": ("deferred", "soft"),
    "DnsError": ("deferred", "soft"),
    "OpenRelayTest": ("deferred", "soft"),
    "Unknown": ("deferred", "soft"),
    "SpamNotification": ("complained", "complaint"),
    "SpamComplaint": ("complained", "complaint"),
    "SMTPApiError": ("generation_failed", "failure"),
    "TemplateRenderingFailed": ("generation_failed", "failure"),
    "Unsubscribe": ("unsubscribed", "unsubscribe"),
    "ManualSuppression": ("unsubscribed", "unsubscribe"),
    # Answers of people and machines to the mail, not news about its delivery.
    "AutoResponder": None,
    "AddressChange": None,
    "ChallengeVerification": None,
    "InboundError": None,
    "Subscribe": None,
}
"""Bounce ``Type`` -> event and class of bounce."""

_DETAILS = {
    "Details": "reason", "Description": "description", "OriginalLink": "url", "UserAgent": "user_agent",
    "FirstOpen": "first", "Platform": "platform", "ClickLocation": "location", "Geo": "geo",
    "SuppressionReason": "reason",
}  # fmt: skip


def hook_events(request: HookRequest, secret: str | None) -> list[ProviderEvent]:
    """The events of one call: one, or none for what says nothing about a mail of ours.

    secret: the password that the hook URL must carry as HTTP Basic user info; None where its path is enough.
    Raises BadSignature.
    """
    _check_secret(request, secret)
    try:
        report = json.loads(request.body)
    except ValueError as error:
        raise BadSignature("the body is not JSON") from error
    if not isinstance(report, dict):
        raise BadSignature("the body is not a JSON object")
    if "FromFull" in report:
        return [_received(report)]
    event = _event(report)
    return [event] if event else []


def _check_secret(request: HookRequest, secret: str | None) -> None:
    if not secret:
        return
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        password = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        password = b""
    if not hmac.compare_digest(password, secret.encode()) or scheme.lower() != "basic":
        raise BadSignature("the password of the hook URL is missing or wrong")


_RECORDS: dict[str, tuple[str, str, str]] = {
    "Delivery": ("delivered", "Recipient", "DeliveredAt"),
    "Open": ("opened", "Recipient", "ReceivedAt"),
    "Click": ("clicked", "Recipient", "ReceivedAt"),
    "Bounce": ("bounced", "Email", "BouncedAt"),
    "SpamComplaint": ("complained", "Email", "BouncedAt"),
    "SubscriptionChange": ("unsubscribed", "Recipient", "ChangedAt"),
}
"""``RecordType`` -> event, and the names of the fields with recipient and time."""


def _event(report: Mapping[str, Any]) -> ProviderEvent | None:
    record = str(report.get("RecordType"))
    if record not in _RECORDS:
        return None
    kind, recipient_field, at_field = _RECORDS[record]
    data = {ours: report[theirs] for theirs, ours in _DETAILS.items() if report.get(theirs) not in (None, "")}
    if record == "Bounce":
        bounce_type = str(report.get("Type"))
        meaning = _BOUNCES.get(bounce_type, _BOUNCES["Unknown"])
        if meaning is None:
            return None
        kind, data["bounce_class"] = meaning
        data["bounce_type"] = bounce_type
    # The other reasons for a suppression arrive as reports of their own.
    if record == "SubscriptionChange" and not _unsubscribes(report):
        return None
    # Only bounces have an id of their own.
    identity = report.get("ID") or f"{report.get(recipient_field)}:{report.get(at_field)}"
    return ProviderEvent(
        type=kind,
        at=_moment(report.get(at_field)),
        natural_key=f"postmark:{record}:{report.get('MessageID')}:{identity}",
        ref=(report.get("Metadata") or {}).get("ref"),
        provider_message_id=report.get("MessageID"),
        recipient=report.get(recipient_field),
        data=data,
    )


def _unsubscribes(report: Mapping[str, Any]) -> bool:
    return bool(report.get("SuppressSending")) and report.get("SuppressionReason") in (None, "ManualSuppression")


def _moment(text: Any) -> datetime:
    """Postmark writes up to seven digits of a second's fraction, and in some fields no zone, which is UTC then."""
    moment = datetime.fromisoformat(str(text)) if text else datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _received(report: Mapping[str, Any]) -> ProviderEvent:
    """An inbound mail.

    ``data``: from, to, cc, bcc (lists of {email, name}), subject, text, html, stripped_text, headers (list of [name,
    value]), date, original_recipient, mailbox_hash, attachments (list of {filename, content_type, content_base64,
    content_id}), raw (the whole mail, or None where the stream does not include it).
    """
    headers = [[str(item["Name"]), str(item["Value"])] for item in report.get("Headers") or ()]
    return ProviderEvent(
        type="received",
        at=datetime.now(UTC),
        natural_key=f"postmark:Inbound:{report.get('MessageID')}",
        provider_message_id=report.get("MessageID"),
        rfc_message_id=next((value for name, value in headers if name.lower() == "message-id"), None),
        recipient=report.get("OriginalRecipient"),
        data={
            "from": _boxes([report["FromFull"]]),
            **{name.lower(): _boxes(report.get(f"{name}Full") or ()) for name in ("To", "Cc", "Bcc")},
            "subject": report.get("Subject", ""),
            "text": report.get("TextBody"),
            "html": report.get("HtmlBody"),
            "stripped_text": report.get("StrippedTextReply"),
            "headers": headers,
            "date": report.get("Date"),
            "original_recipient": report.get("OriginalRecipient"),
            "mailbox_hash": report.get("MailboxHash"),
            "attachments": [_received_file(file) for file in report.get("Attachments") or ()],
            "raw": report.get("RawEmail"),
        },
    )


def _boxes(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"email": item.get("Email"), "name": item.get("Name") or None} for item in items]


def _received_file(file: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "filename": file.get("Name"),
        "content_type": file.get("ContentType"),
        "content_base64": file.get("Content") or file.get("Data"),  # the dashboard's test button says Data
        "content_id": file.get("ContentID") or None,
    }
