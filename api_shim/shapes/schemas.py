"""What the three bodies of a send may hold, as JSON schemas: for the documentation; `parse` of each shape decides.

A field is absent or null alike, so every property that is not required may be null.
"""

from collections.abc import Mapping
from typing import Any, Final

from api_shim.shapes.attachments import MAX_COUNT as MAX_ATTACHMENTS
from api_shim.shapes.attachments import MAX_FILENAME, TYPES
from api_shim.shapes.fields import MAX_SUBJECT
from api_shim.shapes.headers import MAX_COUNT as MAX_HEADERS
from api_shim.shapes.mailer import LIST_ID, MAX_CAMPAIGN_ID, MAX_LIST_ID
from api_shim.submission import Shape

Schema = dict[str, Any]

_SAMPLE_ID: Final = "0193e0a2-9a4b-7c3d-8e5f-0123456789ab"


def _object(required: tuple[str, ...], properties: Schema, **more: Any) -> Schema:
    found = {"type": "object", "additionalProperties": False, "properties": properties, **more}
    return {**found, "required": list(required)} if required else found


def _text(description: str, **more: Any) -> Schema:
    return {"type": ["string", "null"], "description": description, **more}


def _needed(description: str, **more: Any) -> Schema:
    return {"type": "string", "minLength": 1, "description": description, **more}


def _id(description: str) -> Schema:
    return _text(description, format="uuid")


def _flag(description: str) -> Schema:
    return {"type": ["boolean", "null"], "default": False, "description": description}


def _list(items: Schema, description: str, **more: Any) -> Schema:
    return {"type": ["array", "null"], "items": items, "description": description, **more}


def _attachments(content: str, type_name: str, *, with_path: bool = False, inline: bool = False) -> Schema:
    """A list of files, 25 MB together, under the names that a shape uses."""
    properties: Schema = {
        "filename": _needed("Name with its extension, without directories.", maxLength=MAX_FILENAME),
        type_name: {"type": "string", "description": "MIME type, in either case.", "examples": sorted(TYPES)},
        content: _text("The bytes in base64.", contentEncoding="base64"),
    }
    if with_path:
        properties["storage_path"] = _text(f"A path in the attachment store, in the place of `{content}`.")
    if inline:
        properties |= {
            "disposition": {"enum": ["attachment", "inline", None], "default": "attachment"},
            "contentId": _text("What `cid:` in the HTML refers to.", maxLength=257),
            "contentLocation": _text("Content-Location of the part."),
        }
    needed = ("filename", type_name) if with_path else ("filename", type_name, content)
    return _list(_object(needed, properties), "Files, 25 MB together.", maxItems=MAX_ATTACHMENTS)


_LINKS: Final[Schema] = {
    "contact_id": _id("The contact on whose timeline the mail belongs."),
    "deal_id": _id("The deal on whose timeline the mail belongs."),
    "opportunity_id": _id("Another name of `deal_id`."),
    "customer_id": _id("The customer on whose timeline the mail belongs."),
    "company_id": _id("Another name of `customer_id`."),
    "thread_id": _id("The conversation to continue; without it a new one begins."),
    "mode": {
        "enum": ["company", "personal", None],
        "default": "company",
        "description": "`personal` sends through the mailbox of `sender_user_id`.",
    },
    "sender_user_id": _id("The user whose mailbox sends; required with mode `personal`."),
    "priority": {
        "enum": [0, 1, "normal", "high", None],
        "default": 0,
        "description": "1 or `high` goes before all normal mail.",
    },
}

_SUBJECT: Final = _needed("The line the recipient sees.", maxLength=MAX_SUBJECT)
_MAILBOX: Final = _object(
    ("email",),
    {"email": _needed("RFC 5322 address; international ones too."), "name": _text("Display name.")},
)
_MAILBOXES: Final = _list(_MAILBOX, "")
_SWITCH: Final[Schema] = {**_object((), {"enable": _flag("")}), "type": ["object", "null"]}


def _texts(description: str) -> Schema:
    return {"anyOf": [_text(""), {"type": "array", "items": {"type": "string"}}], "description": description}


CRM: Final = _object(
    ("to_email", "subject", "html_body"),
    {
        "to_email": _needed("The recipient, one address."),
        "to_name": _text("The recipient's name; wins over one written beside the address."),
        "subject": _SUBJECT,
        "html_body": _needed("The HTML; the text part is made from it."),
        "cc": _text("Addresses, separated by commas."),
        "from_email": _text("A send-as alias of the personal mailbox; with mode `personal` only."),
        "email_config_id": _id("The company address to write from; see `GET /v1/email/configs`."),
        **_LINKS,
        "attachments": _attachments("content", "mime_type"),
    },
    title="SendCrm",
    description="Recognised by `to_email` or `html_body`. Waits for the outcome, 10 seconds at most.",
    examples=[
        {"to_email": "grace@example.com", "subject": "Your offer", "html_body": "<p>Here it is.</p>"},
        {
            "to_email": "grace@example.com",
            "to_name": "Grace Hopper",
            "subject": "Your offer",
            "html_body": "<p>Here it is.</p>",
            "cc": "Ada <ada@example.com>, alan@example.com",
            "contact_id": _SAMPLE_ID,
            "priority": "high",
            "attachments": [{"filename": "offer.txt", "mime_type": "text/plain", "content": "SGVsbG8="}],
        },
    ],
)

MAILBOX: Final = _object(
    ("to", "subject"),
    {
        "to": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ],
            "description": "An address, or a list of addresses; all share one mail.",
        },
        "cc": _texts("Addresses that all can see."),
        "bcc": _texts("Addresses that nobody sees."),
        "reply_to": _texts("Where answers go; by default to the sending mailbox."),
        "subject": _SUBJECT,
        "body_html": _text("HTML; this or `body_text` is required."),
        "body_text": _text("Plain text; this or `body_html` is required."),
        "mailer_id": _id("The connected account that sends; by default the workspace's default."),
        **_LINKS,
        "attachments": _attachments("content_base64", "mime_type", with_path=True),
    },
    title="SendMailbox",
    description="Recognised by `body_html`, `body_text` or `to` as text. Waits for the outcome, 10 seconds at most.",
    examples=[
        {"to": "grace@example.com", "subject": "Your offer", "body_text": "Here it is."},
        {
            "to": ["Grace Hopper <grace@example.com>", "ada@example.com"],
            "cc": ["alan@example.com"],
            "subject": "Your offer",
            "body_html": "<p>Here it is.</p>",
            "body_text": "Here it is.",
            "deal_id": _SAMPLE_ID,
            "attachments": [{"filename": "offer.txt", "mime_type": "text/plain", "content_base64": "SGVsbG8="}],
        },
    ],
)

MAILER: Final = _object(
    ("from", "to", "settings"),
    {
        "from": {**_MAILBOX, "description": "The sender, an address of the mailer."},
        "to": {
            "type": "array",
            "items": _MAILBOX,
            "minItems": 1,
            "description": "The recipients: each gets a mail of its own, unless `process_email_inbulk` is true.",
        },
        "cc": {**_MAILBOXES, "description": "With `process_email_inbulk` only."},
        "bcc": {**_MAILBOXES, "description": "With `process_email_inbulk` only."},
        "process_email_inbulk": _flag("One mail that up to 100 recipients share, in the place of one for each."),
        "replyTo": _text("Where answers go, addresses separated by commas."),
        "subject": _text("Required without `template_id`.", maxLength=MAX_SUBJECT),
        "content": _list(
            _object(
                ("type", "value"), {"type": {"enum": ["text/html", "text/plain"]}, "value": _needed("The part itself.")}
            ),
            "HTML, plain text or both; required without `template_id`.",
            maxItems=2,
        ),
        "template_id": _id("A stored template that has the subject and the content."),
        "substitutions": {
            "type": ["object", "null"],
            "additionalProperties": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
            "description": "Recipient's address -> variable -> value for `{{variable}}` in subject and content.",
        },
        "headers": {
            "type": ["object", "null"],
            "additionalProperties": {"type": ["string", "integer", "null"]},
            "maxProperties": MAX_HEADERS,
            "description": "More headers of the mail; those that the server writes are refused.",
        },
        "attachments": _attachments("content", "type", inline=True),
        "mailer_id": _id("The mailer to send through; required unless mode is `personal`."),
        **_LINKS,
        "campaign_id": _text(
            "Any name; counts and webhooks can be had by it.", default="NIL", maxLength=MAX_CAMPAIGN_ID
        ),
        "custom_args": {
            "type": ["object", "null"],
            "description": "Up to 64 KB of your own, that come back in every event.",
        },
        "settings": _object(
            (),
            {
                "open_tracking": {**_SWITCH, "description": "A pixel tells when the mail is opened."},
                "click_tracking": {**_SWITCH, "description": "Links lead through the server, which counts."},
                "validate": {**_SWITCH, "description": "Recipients whose domain takes no mail are skipped."},
                "phishing_protection": {**_SWITCH, "description": "Content that looks like phishing is refused."},
                "unsubscribe": _object(
                    (),
                    {
                        "enable": _flag("Adds one-click unsubscribing (RFC 8058)."),
                        "list_id": _text(
                            "The list that the mail belongs to: unsubscribing leaves it, and who left it gets none.",
                            maxLength=MAX_LIST_ID,
                            pattern=f"^({LIST_ID.pattern})?$",
                        ),
                    },
                )
                | {"type": ["object", "null"]},
                "ip_pool": _text("A pool of the mailer's `ip_pools`."),
            },
            description="Required; `{}` leaves every switch off.",
        ),
        "send_at": _text("Not before this time, up to 30 days ahead; a past time is now.", format="date-time"),
        "expires_at": _text("Not after this time.", format="date-time"),
        "dry_run": _flag("Answers 200 with the mails as they would be; stores and sends nothing."),
    },
    title="SendMailer",
    description="Everything that is of neither other shape. Answered at once; events tell what becomes of it.",
    examples=[
        {
            "from": {"email": "hello@demo.test"},
            "to": [{"email": "grace@example.com"}],
            "subject": "Your offer",
            "content": [{"type": "text/plain", "value": "Here it is."}],
            "mailer_id": _SAMPLE_ID,
            "settings": {},
        },
        {
            "from": {"email": "hello@demo.test", "name": "Demo"},
            "to": [{"email": "grace@example.com", "name": "Grace"}, {"email": "ada@example.com"}],
            "subject": "{{name}}, your offer",
            "content": [{"type": "text/html", "value": "<p>Hello {{name}}</p>"}],
            "substitutions": {"grace@example.com": {"name": "Grace"}, "ada@example.com": {"name": "Ada"}},
            "mailer_id": _SAMPLE_ID,
            "campaign_id": "autumn",
            "custom_args": {"order": 17},
            "settings": {"open_tracking": {"enable": True}, "unsubscribe": {"enable": True}},
            "priority": 1,
        },
    ],
)

SCHEMAS: Final[Mapping[Shape, Schema]] = {Shape.CRM: CRM, Shape.MAILBOX: MAILBOX, Shape.MAILER: MAILER}
