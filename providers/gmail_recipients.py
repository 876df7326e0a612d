"""Gmail takes a mail's recipients from its headers: these are made to name exactly those still to be served."""

import re
from collections.abc import Container
from email import message_from_string
from email.message import Message
from email.utils import formataddr, getaddresses

from providers.base import OutboundEmail

REF_HEADER = "X-Postroad-Ref"


def addressed(email: OutboundEmail) -> bytes:
    """The mail with our reference and with headers that name exactly the recipients.

    Gmail sends to those the headers name, and takes Bcc out itself.
    """
    mime = email.mime or b""
    end = mime.find(b"\r\n\r\n") + 2
    head = mime[:end].decode("utf-8", "surrogateescape")
    wanted = {address.casefold(): address for address in email.recipients}
    parsed = message_from_string(head)
    named = {address.casefold() for _, address in _boxes(parsed, "To", "Cc")}
    if not named <= wanted.keys():
        head = _without(head, parsed, wanted.keys())
    blind = [address for key, address in wanted.items() if key not in named]
    if blind:
        head = f"Bcc: {', '.join(blind)}\r\n{head}"
    if parsed[REF_HEADER] is None:
        head = f"{REF_HEADER}: {email.ref}\r\n{head}"
    return head.encode("utf-8", "surrogateescape") + mime[end:]


def _boxes(parsed: Message, *names: str) -> list[tuple[str, str]]:
    boxes = getaddresses([str(value) for name in names for value in parsed.get_all(name, [])])
    return [box for box in boxes if box[1]]


def _without(head: str, parsed: Message, wanted: Container[str]) -> str:
    """To and Cc without those that are already served or suppressed."""
    for name in ("To", "Cc"):
        kept = [formataddr(box) for box in _boxes(parsed, name) if box[1].casefold() in wanted]
        line = f"{name}: {', '.join(kept)}\r\n" if kept else ""
        field = re.compile(rf"^{name}:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
        head = line + field.sub("", head)
    return head
