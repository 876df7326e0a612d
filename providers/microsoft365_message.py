"""A mail as Microsoft Graph's JSON message resource, and what of it cannot be said there.

Exchange keeps one body and makes the plain text from the HTML itself: with HTML given, the text is not carried. It
chooses the envelope sender (the mailbox) and the conversation (by In-Reply-To and References).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from providers.base import File, Mailbox, OutboundEmail

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

MAX_RECIPIENTS = 500
WHOLE_REQUEST_BYTES = 3 * 1024 * 1024
"""Encoded attachments that go with the draft itself. A request may have 4 MB; bodies need the rest."""
SESSION_BYTES = 3 * 1024 * 1024
"""Attachments from here on need an upload session, which takes none smaller."""


def refusal(email: OutboundEmail) -> str | None:
    """Why Microsoft 365 cannot carry this mail, or None."""
    if email.fields is None:
        return "Microsoft 365 needs the mail as fields"
    if email.ip_pool:
        return "Microsoft 365 has no IP pools; leave ip_pool out"
    if len(email.recipients) > MAX_RECIPIENTS:
        return f"Microsoft 365 takes {MAX_RECIPIENTS} recipients a message; this one has {len(email.recipients)}"
    unsendable = sorted(name for name in email.fields.headers if name.lower() in UNSENDABLE_HEADERS)
    if unsendable:
        return f"Microsoft 365 does not send the header {', '.join(unsendable)}"
    return None


def draft(email: OutboundEmail) -> dict[str, Any]:
    """The body of ``POST /me/messages``, with as many attachments as fit. Only for a mail without `refusal`."""
    fields = email.fields
    assert fields is not None  # noqa: S101
    to, cc, bcc = _still_to_be_served(email)
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


def split(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """The attachments that go with the draft, and those that follow it one by one."""
    first: list[File] = []
    later: list[File] = []
    room = WHOLE_REQUEST_BYTES
    for file in files:
        encoded = len(file.data) * 4 // 3 + 4
        (first if encoded <= room and not later else later).append(file)
        room -= encoded
    return first, later


def attachment(file: File) -> dict[str, Any]:
    """A fileAttachment resource."""
    return {
        "@odata.type": "#microsoft.graph.fileAttachment",
        **_description(file),
        "contentBytes": base64.b64encode(file.data).decode(),
    }


def upload_session(file: File) -> dict[str, Any]:
    """The body of ``createUploadSession``."""
    return {"AttachmentItem": {"attachmentType": "file", "size": len(file.data), **_description(file)}}


def _description(file: File) -> dict[str, Any]:
    named = {"name": file.filename, "contentType": file.content_type, "isInline": file.inline}
    return named | ({"contentId": file.content_id} if file.content_id else {})


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


def _still_to_be_served(email: OutboundEmail) -> list[list[Mailbox]]:
    """To, Cc and Bcc without those already served: Graph sends to whom these name. The rest of them is blind."""
    fields = email.fields
    assert fields is not None  # noqa: S101
    wanted = {address.casefold(): address for address in email.recipients}
    groups = [
        [box for box in group if wanted.pop(box.email.casefold(), None)] for group in (fields.to, fields.cc, fields.bcc)
    ]
    groups[2] += [Mailbox(email=address) for address in wanted.values()]
    return groups
