"""Fields that the shapes share: links to entities, who sends, how urgently."""

from typing import Final
from uuid import UUID

from api_shim.shapes.addresses import parse_mailboxes
from api_shim.shapes.fields import Form
from api_shim.submission import Link
from models.message import Priority

LINK_FIELDS: Final = {
    "contact": ("contact_id",),
    "deal": ("deal_id", "opportunity_id"),
    "customer": ("customer_id", "company_id"),
}
"""Kind of entity -> the names its id goes by."""

_PRIORITIES: Final = {
    0: Priority.NORMAL,
    1: Priority.HIGH,
    "normal": Priority.NORMAL,
    "high": Priority.HIGH,
}


def read_links(form: Form) -> tuple[Link, ...]:
    """The entities the mail belongs to, under the names the caller used."""
    found: list[Link] = []
    for kind, names in LINK_FIELDS.items():
        given = [(name, form.uuid(name)) for name in names if form.given(name)]
        if len(given) > 1 and given[0][1] != given[1][1]:
            form.fault(names[1], f"differs from {names[0]}, which means the same; send one of them.")
        found += [Link(field=name, kind=kind, id=value) for name, value in given if value][:1]
    return tuple(found)


def read_personal(form: Form) -> tuple[bool, UUID | None]:
    """``mode`` and ``sender_user_id``: whether to send through the mailbox of a user, and which user."""
    personal = form.choice("mode", {"company": False, "personal": True}, False)
    hint = 'with mode "personal"; see users in GET /v1/email/capabilities.' if personal else ""
    return personal, form.uuid("sender_user_id", required=hint)


def read_alias(form: Form, personal: bool) -> str | None:
    """``from_email``: the send-as address of a personal mailbox to write from."""
    text = form.text("from_email")
    if text is None:
        return None
    if not personal:
        form.fault("from_email", 'is only for mode "personal"; choose a company address with email_config_id.')
        return None
    found = parse_mailboxes(text, "from_email", form.faults)
    if len(found) > 1:
        form.fault("from_email", f"holds {len(found)} addresses; send one send-as alias.")
    return found[0].email if found else None


def read_priority(form: Form) -> Priority:
    return form.choice("priority", _PRIORITIES, Priority.NORMAL)
