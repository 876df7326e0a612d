"""Addresses as the three shapes write them: objects, text, lists and comma-separated lists of text."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from email_validator import ValidatedEmail, validate_email

from api_shim.shapes.fields import CONTROLS, Faults, Form, kind_of, line_fault, shown
from models.content import Address

MAX_NAME: Final = 255
MAX_SHARED: Final = 100
"""Recipients of one shared message, Cc and Bcc included."""
_MAX_LIST_TEXT: Final = 32_768

_ATEXT: Final = r"[A-Za-z0-9_!#$%&'*+/=?^`{|}~-]+"
_COMMON: Final = re.compile(
    rf"(?=.{{1,64}}@.{{4,253}}\Z)(?!.*--)(?:{_ATEXT})(?:\.{_ATEXT})*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}\Z"
)
"""Plain ASCII addresses. What is rarer (IDN, EAI, quoted local parts) goes through email-validator, 50 times slower."""

_LOCAL: Final = re.compile(rf"(?=.{{1,64}}\Z){_ATEXT}(?:\.{_ATEXT})*")

_TOKEN: Final = re.compile(
    r'(?P<quoted>"(?:[^"\\]|\\.)*")|<(?P<angle>(?:"(?:[^"\\]|\\.)*"|[^<>"])*)>|(?P<comma>,)'
    r'|\((?P<comment>[^()\\]*)\)|(?P<word>[^"<>(),;]+)|(?P<stray>.)'
)


class NotAnAddressListError(ValueError):
    """Why a text is no address list: the rest of a sentence."""


def normalised(email: str) -> str | None:
    """The address with its domain in lower case and in ASCII (A-labels), or None where it is none.

    RFC 5322 without comments, RFC 6531 local parts, RFC 5890 domains; nothing is looked up. A domain needs a dot;
    special-use domains such as ``.test`` pass, for relays of one's own serve them.
    """
    if _COMMON.match(email) and len(email) <= 254:
        local, _, domain = email.rpartition("@")
        return email if domain.islower() else f"{local}@{domain.lower()}"
    return _rare(email)


def _rare(email: str) -> str | None:
    if len(email) > 320 or CONTROLS.search(email):
        return None
    local, _, domain = email.rpartition("@")
    ascii_domain = _ascii_domain(domain)
    if ascii_domain is None:
        return None
    if _LOCAL.fullmatch(local) and len(local) + len(ascii_domain) < 254:
        return f"{local}@{ascii_domain}"
    found = _validated(f"{local}@{ascii_domain}")
    return f"{found.local_part}@{ascii_domain}" if found else None


@lru_cache(maxsize=4096)
def _ascii_domain(domain: str) -> str | None:
    found = _validated(f"a@{domain}")
    return found.ascii_domain.lower() if found and "." in found.ascii_domain else None


def _validated(email: str) -> ValidatedEmail | None:
    try:
        return validate_email(
            email, check_deliverability=False, test_environment=True, allow_quoted_local=True, strict=True
        )
    except ValueError:
        return None


def key_of(email: str) -> str:
    """What two spellings of one recipient have in common."""
    return email if email.islower() else email.lower()


def split_mailboxes(text: str) -> Iterator[tuple[str | None, str]]:
    """Name and address of each mailbox in an RFC 5322 address list (no groups).

    Raises NotAnAddressListError.
    """
    if len(text) > _MAX_LIST_TEXT:
        raise NotAnAddressListError(f"is {len(text)} characters long; shorten it to {_MAX_LIST_TEXT} or fewer.")
    part: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "stray":
            raise NotAnAddressListError(
                f"is no address list: {shown(token.group())} at position {token.start()} is out of place; "
                'write addresses as "Name" <user@domain>, separated by commas.'
            )
        if token.lastgroup == "comma":
            yield from _mailbox(part)
            part = []
        else:
            part.append(token)
    yield from _mailbox(part)


def _mailbox(part: Sequence[re.Match[str]]) -> Iterator[tuple[str | None, str]]:
    angles = [token for token in part if token.lastgroup == "angle"]
    plain = [token for token in part if token.lastgroup in ("word", "quoted")]
    written = "".join(token.group() for token in plain).strip()
    if not angles and not written:
        return  # a trailing or doubled comma: RFC 5322 obs-addr-list
    if not angles:
        comments = [token["comment"] for token in part if token.lastgroup == "comment"]
        yield (comments[0].strip() or None if comments else None), written
        return
    tail = part[part.index(angles[0]) + 1 :]
    if any(token.group().strip() for token in tail if token.lastgroup != "comment"):
        raise NotAnAddressListError(f"holds {shown(angles[0].group())} amid other text; separate addresses by commas.")
    name = "".join(_unquoted(token) for token in plain)
    yield " ".join(name.split(" ")).strip() or None, angles[0]["angle"].strip()


def _unquoted(token: re.Match[str]) -> str:
    if token.lastgroup == "quoted":
        return re.sub(r"\\(.)", r"\1", token.group()[1:-1])
    return token.group()


def parse_mailboxes(text: str, where: str, faults: Faults) -> tuple[Address, ...]:
    """The mailboxes of one text. Faults name ``where`` and the address."""
    control = line_fault(text, _MAX_LIST_TEXT)
    if control:
        faults.add(where, f"{where} {control}", "email_format")
        return ()
    found: list[Address] = []
    try:
        for name, email in split_mailboxes(text):
            address = checked(email, name, where, faults)
            if address:
                found.append(address)
    except NotAnAddressListError as fault:
        faults.add(where, f"{where} {fault}", "email_format")
    return tuple(found)


def checked(email: str, name: str | None, where: str, faults: Faults) -> Address | None:
    """An address with its name, both fit for a header."""
    good = normalised(email)
    problem = line_fault(name, MAX_NAME) if name else None
    if problem:
        faults.add(where, f"{where}: the name {problem}")
    if good is None:
        faults.add(
            where, f"{where}: {shown(email)} is not a valid email address; write it as user@domain.", "email_format"
        )
        return None
    return None if problem else Address(good, name)


def text_mailboxes(form: Form, name: str) -> tuple[Address, ...]:
    """A field that is one text or a list of texts, each of which may hold several mailboxes."""
    value = form.body.get(name)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return parse_mailboxes(value, form.at(name), form.faults)
    if not isinstance(value, list):
        form.fault(name, f"is {kind_of(value)}; send an address or a list of addresses.")
        return ()
    if too_many(form, name, len(value)):
        return ()
    found: list[Address] = []
    for index, item in enumerate(value):
        where = f"{form.at(name)}[{index}]"
        if isinstance(item, str) and item.strip():
            found += parse_mailboxes(item, where, form.faults)
        else:
            form.faults.add(where, f"{where} is {'empty' if item == '' else kind_of(item)}; send an address.")
    return tuple(found)


_KEYS: Final = frozenset({"email", "name"})


def object_mailboxes(form: Form, name: str) -> tuple[Address, ...]:
    """A list of ``{"email", "name"}`` objects. Made for a hundred thousand of them."""
    found: list[Address] = []
    path = form.at(name)
    for index, item in enumerate(form.items(name)):
        address = _plain(item) or object_mailbox(item, f"{path}[{index}]", form.faults)
        if address is not None:
            found.append(address)
        elif form.faults.full:
            break
    return tuple(found)


def _plain(item: Any) -> Address | None:
    """The common case, checked with as little work as possible; None sends the item the long way."""
    if type(item) is not dict or not item.keys() <= _KEYS:
        return None
    email, name = item.get("email"), item.get("name")
    if type(email) is not str or not _COMMON.match(email):
        return None
    if name is not None and (type(name) is not str or not name.isprintable() or len(name) > MAX_NAME or "=?" in name):
        return None
    good = normalised(email)
    return Address(good, name.strip() or None if name else None) if good else None


def object_mailbox(item: Any, where: str, faults: Faults) -> Address | None:
    """One ``{"email", "name"}`` object."""
    if not isinstance(item, dict):
        faults.add(where, f'{where} is {kind_of(item)}; send an object such as {{"email": "user@domain"}}.')
        return None
    form = Form(item, faults, where)
    form.only("email", "name")
    email = form.text("email", required="give the address.")
    name = form.text("name")
    if email is None:
        return None
    good = normalised(email)
    if good is None:
        form.fault(
            "email", f"is {shown(email)}, which is not a valid email address; write it as user@domain.", "email_format"
        )
    problem = line_fault(name, MAX_NAME) if name else None
    if problem:
        form.fault("name", problem)
    return None if good is None or problem else Address(good, name.strip() if name else None)


def too_many(form: Form, name: str, count: int) -> bool:
    """Whether one message cannot take so many recipients, with the fault for it."""
    if count <= MAX_SHARED:
        return False
    problem = f"{count} recipients share one message, which takes {MAX_SHARED}; send to fewer, or individually."
    form.faults.add(name, problem, "too_many_recipients")
    return True


def shared_once(
    form: Form, to: tuple[Address, ...], cc: tuple[Address, ...], bcc: tuple[Address, ...]
) -> tuple[tuple[Address, ...], tuple[Address, ...], tuple[Address, ...]]:
    """The recipients of one shared message, each address in the first list that names it; it gets one copy anyway."""
    too_many(form, "to", len(to) + len(cc) + len(bcc))
    seen: set[str] = set()

    def first(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        fresh = []
        for address in addresses:
            if key_of(address.email) not in seen:
                seen.add(key_of(address.email))
                fresh.append(address)
        return tuple(fresh)

    return first(to), first(cc), first(bcc)
