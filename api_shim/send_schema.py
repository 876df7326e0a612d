"""The documentation of ``POST /v1/email/send``, which is a plain endpoint that FastAPI knows nothing about."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from api_shim.errors import CODES, ApiError, Fault, Missing
from api_shim.reception import SCOPE
from api_shim.send import LONGEST_WAIT_SECONDS, WAIT_SECONDS, queued
from api_shim.shapes import SHAPES
from api_shim.shapes.schemas import SCHEMAS
from api_shim.submission import Accepted, SendResult, Shape
from models.base import ulid
from models.message import State

_ID: Final = UUID("0193e0a2-9a4b-7c3d-8e5f-0123456789ab")
_REF_ID: Final = ulid(_ID)

_TEXT: Final = {"type": "string"}
_MAYBE: Final = {"type": ["string", "null"]}
_UUID: Final = {"type": "string", "format": "uuid"}
_MESSAGE_ID: Final = "<postroad0193e0a2-9a4b-7c3d-8e5f-0123456789ab@demo.test>"

_ENTRIES: Final = {
    "fields": {
        "type": "array",
        "items": {"type": "object", "required": ["field", "message"], "properties": {"field": _TEXT, "message": _TEXT}},
        "description": "Everything that is wrong, each with the field as it was sent.",
    },
    "missing_entities": {
        "type": "array",
        "items": {"type": "object", "required": ["field", "id"], "properties": {"field": _TEXT, "id": _TEXT}},
        "description": "Ids that do not exist in the workspace.",
    },
}
DETAILS: Final[dict[str, Any]] = {"type": "object", "properties": _ENTRIES}

SCHEMA_COMPONENTS: Final[Mapping[str, dict[str, Any]]] = {
    "SendCrm": SCHEMAS[Shape.CRM],
    "SendMailbox": SCHEMAS[Shape.MAILBOX],
    "SendMailer": SCHEMAS[Shape.MAILER],
    "SendResult": {
        "title": "SendResult",
        "description": "Answer of the crm and mailbox shapes.",
        "type": "object",
        "required": ["id", "ref_id", "status", "message_id", "provider_message_id", "thread_id", "provider"],
        "properties": {
            "id": {**_UUID, "description": "The message, see `GET /v1/messages/{message_id}`."},
            "ref_id": {**_TEXT, "description": "The submission, a ULID."},
            "status": {**_TEXT, "description": "`queued` where the outcome is not known yet."},
            "message_id": {**_TEXT, "description": "The RFC 5322 Message-ID with its angle brackets."},
            "provider_message_id": {**_MAYBE, "description": "The provider's own id."},
            "thread_id": {"type": ["string", "null"], "format": "uuid"},
            "provider": _TEXT,
        },
    },
    "SendAccepted": {
        "title": "SendAccepted",
        "description": "Answer of the mailer shape.",
        "type": "object",
        "required": ["success", "ref_id"],
        "properties": {"success": {"const": True}, "ref_id": {**_TEXT, "description": "The submission, a ULID."}},
    },
    "Rehearsal": {
        "title": "Rehearsal",
        "description": "Answer to a dry run.",
        "type": "object",
        "required": [
            "success",
            "dry_run",
            "total",
            "mailer_id",
            "provider",
            "from",
            "send_at",
            "suppressed",
            "invalid",
            "phishing",
            "mails",
        ],
        "properties": {
            "success": {"const": True},
            "dry_run": {"const": True},
            "total": {"type": "integer", "description": "Mails that would be sent."},
            "mailer_id": _UUID,
            "provider": _TEXT,
            "from": _TEXT,
            "send_at": {"type": ["string", "null"], "format": "date-time"},
            "suppressed": {"type": "array", "items": {"type": "object"}},
            "invalid": {
                "type": ["array", "null"],
                "items": {"type": "object"},
                "description": "Recipients that `settings.validate` skips; null where it is off.",
            },
            "phishing": {
                "type": ["object", "null"],
                "description": "Score and reasons; null where `settings.phishing_protection` is off.",
            },
            "mails": {"type": "array", "items": {"type": "object"}, "description": "The first ten, rendered."},
        },
    },
    "MailboxError": {
        "title": "MailboxError",
        "description": "Errors of the mailbox shape.",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": _TEXT, "message": _TEXT, "details": DETAILS},
            }
        },
    },
    "MailerError": {
        "title": "MailerError",
        "description": "Errors of the mailer shape.",
        "type": "object",
        "required": ["success", "error", "errors"],
        "properties": {
            "success": {"const": False},
            "error": {**_TEXT, "description": "The first of `errors`."},
            "errors": {"type": "array", "items": _TEXT},
            "details": DETAILS,
        },
    },
}

ERROR_SCHEMAS: Final = {Shape.CRM: "Error", Shape.MAILBOX: "MailboxError", Shape.MAILER: "MailerError"}

STATUSES: Final = (400, 401, 403, 404, 409, 413, 415, 422, 429, 502, 503)
"""What a send may answer beside success, in each of the three envelopes."""

_ELSEWHERE: Final = frozenset({"FROM_EMAIL_NOT_WRITABLE", "INVALID_FROM_EMAIL_HANDLE", "GMAIL_USER_REQUIRED"})
"""Codes of these statuses that other routes answer."""

HEADERS: Final = {
    "Idempotency-Key": {"schema": {"type": "string", "maxLength": 256}, "description":
        "A repeat within 24 hours with the same key and body gets the first answer and sends nothing."},
    "Prefer": {"schema": {"type": "string"}, "description":
        f"`wait=N` holds the answer until the outcome is known, N seconds at most, up to {LONGEST_WAIT_SECONDS:.0f}; "
        "`respond-async` never waits."},
}  # fmt: skip

_DESCRIPTION: Final = f"""Takes a mail in one of three shapes, told apart by the names of the fields, and answers in
the same shape. All that is wrong with a body is reported at once.

`crm` (`to_email`, `html_body`) and `mailbox` (`body_html`, `body_text`, `to` as text) wait up to {WAIT_SECONDS:.0f}
seconds for the outcome: 200 when the provider took the mail, 202 while it may still go. `mailer` (everything else)
is answered 202 at once."""


def operation() -> dict[str, Any]:
    """The OpenAPI operation. Its examples of answers are made by the shapes themselves."""
    return {
        "tags": ["email"],
        "summary": "Send",
        "description": _DESCRIPTION,
        "security": [{"bearer": [SCOPE]}],
        "parameters": [{"name": name, "in": "header", "required": False, **rest} for name, rest in HEADERS.items()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [_ref(schema["title"]) for schema in SCHEMAS.values()]},
                    "examples": _requests(),
                }
            },
        },
        "responses": {"200": _taken(), "202": _queued(), **{str(status): _error(status) for status in STATUSES}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _requests() -> dict[str, Any]:
    return {
        f"{shape}_{'all' if index else 'least'}": {"summary": f"{shape} shape", "value": value}
        for shape, schema in SCHEMAS.items()
        for index, value in enumerate(schema["examples"])
    }


def _sent(**changes: Any) -> SendResult:
    values: dict[str, Any] = {
        "ref_id": _REF_ID,
        "id": _ID,
        "state": State.SENT,
        "rfc_message_id": _MESSAGE_ID,
        "provider_message_id": "queued as 4D1F2",
        "thread_id": None,
        "provider": "smtp",
    }
    return SendResult(**(values | changes))


def _taken() -> dict[str, Any]:
    shown = {shape: {"value": SHAPES[shape].render(_sent())[1]} for shape in (Shape.CRM, Shape.MAILBOX)}
    schema = {"anyOf": [_ref("SendResult"), _ref("SendAccepted"), _ref("Rehearsal")]}
    return {
        "description": "The provider took it, or a dry run.",
        "content": {"application/json": {"schema": schema, "examples": shown}},
    }


def _queued() -> dict[str, Any]:
    accepted = Accepted(
        submission_id=_ID, message_id=_ID, total=1, rfc_message_id=_MESSAGE_ID, thread_id=None, provider="smtp"
    )
    shown = {shape: {"value": module.render(queued(accepted))[1]} for shape, module in SHAPES.items()}
    return {
        "description": "Queued: stored for good, sent as soon as may be. Location says where to look.",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "`/v1/submissions/{ref_id}`"}},
        "content": {
            "application/json": {
                "schema": {"anyOf": [_ref("SendAccepted"), _ref("SendResult")]},
                "examples": shown,
            }
        },
    }


def _error(status: int) -> dict[str, Any]:
    names = [name for name, code in CODES.items() if code.status == status and name not in _ELSEWHERE]
    shown = {
        f"{name}_{shape}": {"value": SHAPES[shape].render_error(sample(name))[1]} for name in names for shape in SHAPES
    }
    return {
        "description": " ".join(CODES[name].sentence for name in names[:1]),
        "content": {
            "application/json": {
                "schema": {"anyOf": [_ref(name) for name in ERROR_SCHEMAS.values()]},
                "examples": shown,
            },
            "application/problem+json": {"schema": _ref("Problem")},
        },
    }


def sample(name: str) -> ApiError:
    """An error of this code as it typically is."""
    match name:
        case "VALIDATION_ERROR":
            fault = Fault("subject", "subject is required; give the line the recipient sees.", "required")
            return ApiError(name, faults=[fault], missing=[Missing("contact_id", str(_ID))])
        case "EMAIL_LOG_FAILED":
            return ApiError(name, message_id=_MESSAGE_ID)
        case "FORBIDDEN":
            return ApiError(name, details={"required_scope": SCOPE})
        case "EMAIL_DELIVERY_FAILED":
            return ApiError(name, details={"reason": "550 5.1.1 no such user", "status": State.FAILED.value})
    return ApiError(name)
