"""A mail as Microsoft Graph's JSON message resource, and what of it cannot be said there.

Exchange keeps one body, in whatever form a message comes in, and writes the plain text beside HTML itself (MS-OXCMAIL
2.1.3.3.4): with HTML given, the text is not carried. It chooses the envelope sender (the mailbox) and the conversation
(by In-Reply-To and References).
"""

from collections.abc import Mapping
from typing import Any

from providers.base import Mailbox, OutboundEmail
from providers.microsoft365_attachments import attachment, split

REF_PROPERTY = "String {3f2b8a54-7c1d-4e0a-9d6e-5b1c2f90a7e3} Name PostroadRef"
"""The MAPI property with our own reference: searchable, unseen by recipients. The GUID is ours and must not change."""

MAPI_HEADERS: dict[str, str] = {
    "in-reply-to": "String 0x1042",  # PidTagInReplyToId
    "references": "String 0x1039",  # PidTagInternetReferences
    "list-unsubscribe": "String 0x1045",  # PidTagListUnsubscribe
}
"""Headers with a property of their own; ``internetMessageHeaders`` takes names with ``x-`` only."""
INTERNET_HEADERS = "String {00020386-0000-0000-C000-000000000046} Name "
"""PS_INTERNET_HEADERS: Exchange writes properties of this set as headers of that name (MS-OXCMAIL 2.1.3.2)."""
MAX_X_HEADERS = 5
UNSENDABLE_HEADERS = {"auto-submitted", "return-path", "sender"}
"""Exchange strips or overwrites these, whichever way they are given."""


def draft(email: OutboundEmail) -> dict[str, Any]:
    """The body of ``POST /me/messages``, with as many attachments as fit."""
    fields, (to, cc, bcc) = email.named()
    x_headers, properties = _headers(fields.headers)
    message = {
        "subject": fields.subject,
        "body": {"contentType": "text" if fields.html is None else "html", "content": fields.html or fields.text or ""},
        "from": _box(fields.sender),
        "toRecipients": [_box(box) for box in to],
        "ccRecipients": [_box(box) for box in cc],
        "bccRecipients": [_box(box) for box in bcc],
        "replyTo": [_box(box) for box in fields.reply_to],
        "internetMessageId": email.rfc_message_id,
        "singleValueExtendedProperties": [{"id": REF_PROPERTY, "value": email.ref}, *properties],
    }
    first, _ = split(fields.files)
    if x_headers:
        message["internetMessageHeaders"] = x_headers
    if first:
        message["attachments"] = [attachment(file) for file in first]
    return message


def _headers(headers: Mapping[str, str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The first headers with ``x-`` as such, every other as a property."""
    x_headers: list[dict[str, str]] = []
    properties: list[dict[str, str]] = []
    for name, value in headers.items():
        if name.lower().startswith("x-") and len(x_headers) < MAX_X_HEADERS:
            x_headers.append({"name": name, "value": value})
        else:
            properties.append({"id": MAPI_HEADERS.get(name.lower(), INTERNET_HEADERS + name), "value": value})
    return x_headers, properties


def _box(box: Mailbox) -> dict[str, Any]:
    return {"emailAddress": {"address": box.email, **({"name": box.name} if box.name else {})}}
