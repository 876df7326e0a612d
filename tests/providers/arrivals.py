"""What a provider has of a mail, in one form whatever it was sent as."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

from providers.base import Fields, File, Mailbox
from providers.microsoft365_message import INTERNET_HEADERS, MAPI_HEADERS

GRAPH_HEADERS = {identifier: name for name, identifier in MAPI_HEADERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    sender: Mailbox
    to: Sequence[Mailbox]
    cc: Sequence[Mailbox]
    reply_to: Sequence[Mailbox]
    served: frozenset[str]
    """Everybody who gets it."""
    subject: str
    html: str | None
    text: str | None
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    files: Sequence[File]


def composed(fields: Fields, message_id: str) -> bytes:
    """A mail of these fields as MIME, by the standard library."""
    ascii_only = all(box.email.isascii() for box in (fields.sender, *fields.to, *fields.cc, *fields.reply_to))
    message = EmailMessage(policy=policy.SMTP if ascii_only else policy.SMTPUTF8)
    boxes = {"From": (fields.sender,), "To": fields.to, "Cc": fields.cc, "Reply-To": fields.reply_to}
    for name, found in boxes.items():
        if found:
            message[name] = [HeaderAddress(box.name or "", *box.email.split("@")) for box in found]
    message["Subject"] = fields.subject
    message["Message-ID"] = message_id
    for name, value in fields.headers.items():
        message[name] = value
    if fields.text is not None:
        message.set_content(fields.text)
    if fields.html is not None and fields.text is not None:
        message.add_alternative(fields.html, subtype="html")
    elif fields.html is not None:
        message.set_content(fields.html, subtype="html")
    for file in fields.files:
        _attach(message, file)
    return message.as_bytes()


def _attach(message: EmailMessage, file: File) -> None:
    kind, _, subtype = file.content_type.partition("/")
    message.add_attachment(
        file.data,
        maintype=kind,
        subtype=subtype,
        filename=file.filename,
        disposition="inline" if file.inline else "attachment",
        cid=f"<{file.content_id}>" if file.content_id else None,
    )


def from_mime(mime: bytes, served: Sequence[str]) -> Arrival:
    message = message_from_bytes(mime, policy=policy.default)
    html, text = message.get_body(("html",)), message.get_body(("plain",))
    return Arrival(
        sender=_mailboxes(message, "From")[0],
        to=_mailboxes(message, "To"),
        cc=_mailboxes(message, "Cc"),
        reply_to=_mailboxes(message, "Reply-To"),
        served=frozenset(served),
        subject=str(message["Subject"]),
        html=None if html is None else _content(html),
        text=None if text is None else _content(text),
        headers={name.lower(): str(value) for name, value in message.items()},
        files=[_file(part) for part in message.iter_attachments()],
    )


def _content(part: Any) -> str:
    return str(part.get_content()).rstrip("\r\n")


def _file(part: Any) -> File:
    return File(
        filename=part.get_filename(),
        content_type=part.get_content_type(),
        data=part.get_payload(decode=True),
        inline=part.get_content_disposition() == "inline",
        content_id=str(part["Content-ID"]).strip("<>") if part["Content-ID"] else None,
    )


def _mailboxes(message: Any, name: str) -> list[Mailbox]:
    found = message[name].addresses if message[name] is not None else ()
    # The parser leaves UTF-8 of a header (RFC 6532) as escaped bytes.
    plain = [box.addr_spec.encode("utf-8", "surrogateescape").decode() for box in found]
    return [Mailbox(email=email, name=box.display_name or None) for email, box in zip(plain, found, strict=True)]


def from_postmark(fields: Mapping[str, Any], data_of: Any) -> Arrival:
    """data_of: decodes an attachment's content."""
    named = {item["Name"].lower(): item["Value"] for item in fields.get("Headers", ())}
    to, cc, bcc, sender, reply_to = (_parsed(fields.get(name)) for name in ("To", "Cc", "Bcc", "From", "ReplyTo"))
    return Arrival(
        sender=sender[0],
        to=to,
        cc=cc,
        reply_to=reply_to,
        served=frozenset(box.email for box in (*to, *cc, *bcc)),
        subject=fields["Subject"],
        html=fields.get("HtmlBody"),
        text=fields.get("TextBody"),
        headers=named,
        files=[
            File(
                filename=item["Name"],
                content_type=item["ContentType"],
                data=data_of(item["Content"]),
                inline="ContentID" in item,
                content_id=item.get("ContentID", "").removeprefix("cid:") or None,
            )
            for item in fields.get("Attachments", ())
        ],
    )


def _parsed(text: str | None) -> list[Mailbox]:
    return [Mailbox(email=email, name=name or None) for name, email in getaddresses([text or ""]) if email]


def from_graph(resource: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> Arrival:
    boxes = {kind: [_graph_box(one) for one in resource[f"{kind}Recipients"]] for kind in ("to", "cc", "bcc")}
    properties = {item["id"]: item["value"] for item in resource["singleValueExtendedProperties"]}
    named = {
        GRAPH_HEADERS.get(identifier, identifier.removeprefix(INTERNET_HEADERS)).lower(): value
        for identifier, value in properties.items()
    }
    named |= {item["name"].lower(): item["value"] for item in resource.get("internetMessageHeaders", ())}
    body = resource["body"]
    return Arrival(
        sender=_graph_box(resource["from"]),
        to=boxes["to"],
        cc=boxes["cc"],
        reply_to=[_graph_box(one) for one in resource["replyTo"]],
        served=frozenset(box.email for group in boxes.values() for box in group),
        subject=resource["subject"],
        html=body["content"] if body["contentType"] == "html" else None,
        text=body["content"] if body["contentType"] == "text" else None,
        headers=named | {"message-id": resource["internetMessageId"]},
        files=[
            File(
                filename=item["name"],
                content_type=item["contentType"],
                data=item["data"],
                inline=item["isInline"],
                content_id=item.get("contentId"),
            )
            for item in files
        ],
    )


def _graph_box(value: Mapping[str, Any]) -> Mailbox:
    return Mailbox(email=value["emailAddress"]["address"], name=value["emailAddress"].get("name"))
