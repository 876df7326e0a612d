"""The one written rule: which field names a shape has, and by which of them a body is recognised."""

import difflib
from collections.abc import Mapping
from typing import Any, Final

from api_shim.shapes.fields import Faults, shown
from api_shim.submission import Shape

_LINKS: Final = frozenset(
    {"contact_id", "deal_id", "opportunity_id", "customer_id", "company_id", "thread_id", "mode", "sender_user_id"}
)
_SHARED: Final = _LINKS | {"subject", "attachments", "cc", "priority"}

FIELDS: Final[Mapping[Shape, frozenset[str]]] = {
    Shape.CRM: _SHARED | {"to_email", "to_name", "html_body", "from_email", "email_config_id"},
    Shape.MAILBOX: _SHARED | {"to", "bcc", "body_html", "body_text", "reply_to", "mailer_id"},
    Shape.MAILER: _SHARED
    | {
        "from", "to", "bcc", "process_email_inbulk", "replyTo", "content", "template_id", "headers", "substitutions",
        "mailer_id", "settings", "campaign_id", "custom_args", "send_at", "expires_at", "dry_run",
    },
}  # fmt: skip
"""Every field a body of the shape may have."""

RECOGNISED_BY: Final[Mapping[Shape, frozenset[str]]] = {
    Shape.CRM: frozenset({"to_email", "html_body"}),
    Shape.MAILBOX: frozenset({"body_html", "body_text"}),
}
"""Fields that make a body one of the shape, in the order in which the shapes are tried."""

MAX_NAMED = 50


def shape_of(body: object) -> Shape:
    """The shape a body is written in. What is recognised as nothing else, even a non-object, is of the mailer shape."""
    if not isinstance(body, Mapping):
        return Shape.MAILER
    for shape, names in RECOGNISED_BY.items():
        if names & body.keys():
            return shape
    return Shape.MAILBOX if _addresses_are_text(body.get("to")) else Shape.MAILER


def refuse_other_names(shape: Shape, body: Mapping[str, Any], faults: Faults) -> None:
    """A fault for every field of another shape, and for every field that no shape has."""
    others = sorted(body.keys() - FIELDS[shape])
    for name in others[:MAX_NAMED]:
        homes = [other for other, fields in FIELDS.items() if name in fields]
        if homes:
            faults.add(name, _foreign(name, shape, homes, body), "foreign")
        else:
            faults.add(name, f"{shown(name)} is not a field of this request{_guess(name, shape)}", "unknown")
    if len(others) > MAX_NAMED:
        faults.add("", f"{len(others) - MAX_NAMED} more fields are not fields of this request; remove them.", "unknown")


def _addresses_are_text(to: object) -> bool:
    return isinstance(to, str) or (isinstance(to, list) and bool(to) and isinstance(to[0], str))


def _foreign(name: str, shape: Shape, homes: list[Shape], body: Mapping[str, Any]) -> str:
    because = sorted(RECOGNISED_BY.get(shape, frozenset()) & body.keys())
    if not because and shape is Shape.MAILBOX:
        because = ["to as text"]
    reason = f" because of {', '.join(because)}" if because else ""
    return (
        f"{name} is a field of the {' and '.join(homes)} shape, but the body is read in the {shape} shape{reason}; "
        f"remove {name} or write the whole body in one shape."
    )


def _guess(name: str, shape: Shape) -> str:
    near = difflib.get_close_matches(name[:60], sorted(FIELDS[shape]), 1, 0.75)
    return f"; did you mean {near[0]}?" if near else "; remove it."
