"""A mail as Postmark's JSON, and what of it cannot be said there."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import idna

from providers.base import Failed, File, Mailbox, OutboundEmail, Outcome, Result

MAX_BYTES = 10 * 1024 * 1024
"""Of one mail, its attachments as they are encoded."""


class Unsupported(Failed):
    """Postmark cannot express this."""

    def __init__(self, what: str) -> None:
        super().__init__(Outcome(result=Result.PERMANENT, detail=what))


def payload(email: OutboundEmail, stream: str) -> dict[str, Any]:
    """The mail as Postmark's JSON. Raises Unsupported for what it cannot carry."""
    if email.fields is None:
        raise Unsupported("postmark needs the mail as fields")
    if email.ip_pool:
        raise Unsupported("postmark has no IP pools; leave ip_pool out or use a message stream")
    fields, (to, cc, bcc) = email.named()
    body = {
        "From": _address(fields.sender),
        "To": _addresses(to),
        "Cc": _addresses(cc),
        "Bcc": _addresses(bcc),
        "ReplyTo": _addresses(fields.reply_to),
        "Subject": fields.subject,
        "HtmlBody": fields.html,
        "TextBody": fields.text,
        "Headers": [
            *({"Name": name, "Value": value} for name, value in fields.headers.items()),
            {"Name": "Message-ID", "Value": email.rfc_message_id},
            {"Name": "X-PM-KeepID", "Value": "true"},
        ],
        "Attachments": [_attachment(file) for file in fields.files],
        "Metadata": {"ref": email.ref},
        "MessageStream": stream,
        "TrackOpens": False,
        "TrackLinks": "None",
    }
    body = {name: value for name, value in body.items() if value is not None and value not in ("", [])}
    if bytes_of(body) > MAX_BYTES:
        raise Unsupported(f"postmark takes mails of up to {MAX_BYTES} bytes, encoded attachments included")
    return body


def _address(box: Mailbox) -> str:
    local, _, domain = box.email.rpartition("@")
    if not local.isascii():
        raise Unsupported("postmark takes no address with characters beyond ASCII before the @")
    try:
        ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise Unsupported("the domain of an address has no ASCII form") from error
    address = f"{local}@{ascii_domain}"
    if not box.name:
        return address
    name = box.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{address}>'


def _addresses(boxes: Sequence[Mailbox]) -> str:
    return ", ".join(_address(box) for box in boxes)


def _attachment(file: File) -> dict[str, str]:
    if file.inline and not file.content_id:
        raise Unsupported(f"postmark shows {file.filename} inline only with a content id")
    encoded = {
        "Name": file.filename,
        "Content": base64.b64encode(file.data).decode(),
        "ContentType": file.content_type,
    }
    return encoded | ({"ContentID": f"cid:{file.content_id}"} if file.content_id else {})


def bytes_of(body: Mapping[str, Any]) -> int:
    """Bytes of a mail, near enough: its texts and encoded attachments."""
    texts = sum(len(body.get(name) or "") for name in ("Subject", "HtmlBody", "TextBody"))
    return texts + sum(len(file["Content"]) for file in body.get("Attachments", ()))
