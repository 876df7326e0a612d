"""What the body of a reply may hold: what is read is what is documented."""

from typing import Any, Final

_ID: Final = {"type": ["string", "null"], "format": "uuid"}
_TEXT: Final = {"type": ["string", "null"]}

SCHEMA: Final[dict[str, Any]] = {
    "title": "Reply",
    "type": "object",
    "required": ["thread_id"],
    "additionalProperties": False,
    "properties": {
        "thread_id": {"type": "string", "format": "uuid", "description": "The conversation to answer in."},
        "html_body": {**_TEXT, "description": "Or `text_body`; one of them is required."},
        "text_body": _TEXT,
        "body_html": {**_TEXT, "description": "Another name of `html_body`."},
        "body_text": {**_TEXT, "description": "Another name of `text_body`."},
        "subject": {**_TEXT, "maxLength": 998, "description": "By default the thread's, with one `Re:` before it."},
        "to_email": {**_TEXT, "description": "By default whoever wrote last, or was written to last."},
        "cc": {
            "description": "Addresses, separated by commas or in a list.",
            "anyOf": [_TEXT, {"type": "array", "items": {"type": "string"}}],
        },
        "mode": {"enum": ["company", "personal", None], "default": "company"},
        "sender_user_id": {**_ID, "description": "Whose mailbox sends; required with mode `personal`."},
        "from_email": {**_TEXT, "description": "A send-as alias of that mailbox."},
        "email_config_id": _ID,
        "contact_id": {**_ID, "description": "By default what the thread belongs to, as for the next four."},
        "deal_id": _ID,
        "opportunity_id": {**_ID, "description": "Another name of `deal_id`."},
        "customer_id": _ID,
        "company_id": {**_ID, "description": "Another name of `customer_id`."},
        "priority": {"enum": [0, 1, "normal", "high", None], "default": 0},
        "attachments": {
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "required": ["filename", "mime_type"],
                "additionalProperties": False,
                "properties": {
                    "filename": {"type": "string"},
                    "mime_type": {"type": "string"},
                    "content": {"type": "string", "contentEncoding": "base64"},
                    "storage_path": {"type": "string", "description": "In the place of `content`."},
                },
            },
        },
    },
    "example": {"thread_id": "0193e0a2-9a4b-7c3d-8e5f-0123456789ab", "html_body": "<p>Thank you!</p>"},
}

_STATUSES: Final = {
    "200": "The provider took it.",
    "202": "Not yet; it is queued and may still go.",
    "400": "Something in the body is wrong, or an id does not exist.",
    "409": "The Idempotency-Key came with another body before.",
    "422": "Refused for good, or sent and not yet logged (EMAIL_LOG_FAILED).",
    "502": "The provider did not take it.",
}

_HEADERS: Final = {
    "Idempotency-Key": "A repeat with the same key and body gets the first answer.",
    "Prefer": "`wait=N` waits N seconds at most, up to 30; `respond-async` does not wait.",
}

OPENAPI: Final[dict[str, Any]] = {
    "security": [{"bearer": ["email:send"]}],
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
        for name, description in _HEADERS.items()
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}},
    "responses": {status: {"description": description} for status, description in _STATUSES.items()},
}
