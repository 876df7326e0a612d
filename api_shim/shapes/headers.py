"""Custom headers: which may be set, and those that have a field of their own in a `Submission`."""

import re
from dataclasses import dataclass, field
from typing import Final

from api_shim.shapes.fields import Form, kind_of, line_fault, shown
from worker.headers import check_header

MAX_COUNT: Final = 100
MAX_VALUE: Final = 998
MAX_REFERENCES: Final = 200
MAX_REFERENCES_TEXT: Final = 32_768

_OURS: Final = frozenset({"received-spf", "authentication-results", "delivered-to", "errors-to", "domainkey-signature"})
"""What only a receiving or signing server writes, beside the names that the composer keeps for itself."""
_PLACED: Final = frozenset({"message-id", "in-reply-to", "references", "thread-id"})
"""What has a field of its own."""
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,250}>")
_CUSTOM_ID: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAX_CUSTOM_ID: Final = 150
_THREAD_ID: Final = re.compile(r"[!-~]{1,255}")


@dataclass(slots=True)
class CustomHeaders:
    others: dict[str, str] = field(default_factory=dict)
    message_id: str | None = None
    """The caller's own id without brackets and domain."""
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    thread_id: str | None = None


def read_headers(form: Form) -> CustomHeaders:
    """The ``headers`` object. Names count in any case; no header may be given twice."""
    found = CustomHeaders()
    headers = form.object("headers")
    if headers is None:
        return found
    if len(headers.body) > MAX_COUNT:
        form.fault("headers", f"holds {len(headers.body)} headers; send {MAX_COUNT} or fewer.")
        return found
    seen: set[str] = set()
    for name in headers.body:
        value = _checked(headers, name)
        if value is None:
            continue
        if name.lower() in seen:
            headers.fault(name, "is given twice in different case; send it once.")
        seen.add(name.lower())
        _place(headers, name, value, found)
    return found


def _checked(headers: Form, name: str) -> str | None:
    """The value of a header that may be set, as one line; None with a fault otherwise. Empty values are left out."""
    where, value = f"headers.{shown(name)[1:-1]}", headers.body[name]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    complaint = "is written by the server and cannot be set" if name.lower() in _OURS else check_header(name, "")
    if complaint and name.lower() not in _PLACED:
        headers.faults.add(
            where, f"{where} {complaint}; remove it, or use the field of the request that stands for it."
        )
    elif value is not None and not isinstance(value, str):
        headers.faults.add(where, f"{where} is {kind_of(value)}; send a string.")
    elif value:
        problem = line_fault(value, MAX_REFERENCES_TEXT if name.lower() == "references" else MAX_VALUE)
        if problem is None:
            return value
        headers.faults.add(where, f"{where} {problem}")
    return None


def _place(headers: Form, name: str, value: str, found: CustomHeaders) -> None:
    match name.lower():
        case "message-id":
            found.message_id = _own_id(headers, name, value)
        case "in-reply-to":
            ids = _message_ids(headers, name, value, 1)
            found.in_reply_to = ids[0] if ids else None
        case "references":
            found.references = _message_ids(headers, name, value, MAX_REFERENCES)
        case "thread-id":
            if _THREAD_ID.fullmatch(value.strip()):
                found.thread_id = value.strip()
            else:
                headers.fault(name, f"is {shown(value)}; send the thread id exactly as an event named it.")
        case _:
            found.others[name] = value


def _own_id(headers: Form, name: str, value: str) -> str | None:
    own = value.strip().removeprefix("<").removesuffix(">").partition("@")[0]
    if len(own) <= _MAX_CUSTOM_ID and _CUSTOM_ID.fullmatch(own):
        return own
    headers.fault(name, f"is {shown(value)}; use up to {_MAX_CUSTOM_ID} letters, digits and - _ . without spaces.")
    return None


def _message_ids(headers: Form, name: str, value: str, limit: int) -> tuple[str, ...]:
    """Message-IDs with their brackets; ids written without them get them."""
    ids = tuple(part if part.startswith("<") else f"<{part}>" for part in value.split())
    bad = next((part for part in ids if not _MESSAGE_ID.fullmatch(part)), None)
    if bad is not None:
        headers.fault(name, f"holds {shown(bad)}, which is not a Message-ID; write <id@domain>, separated by spaces.")
    elif len(ids) > limit:
        headers.fault(name, f"holds {len(ids)} Message-IDs; send {limit} at most.")
    else:
        return ids
    return ()
