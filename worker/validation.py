"""What is to be said about a recipient address: rules alone; what the DNS knows is handed in.

Only what surely cannot be delivered is invalid. Everything else is a hint for the sender to think about.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from worker.domains import Mail


class Standing(enum.StrEnum):
    """How an address looks."""

    VALID = "valid"
    """Its domain takes mail. Whether the mailbox exists only the delivery can tell."""
    INVALID = "invalid"
    """Surely undeliverable: not sent to under ``settings.validate``."""
    RISKY = "risky"
    """Deliverable as far as one can see, but disposable, or likely misspelt."""
    UNKNOWN = "unknown"
    """The DNS gave no clear answer, or is not asked about such a domain."""


class Hint(enum.StrEnum):
    """What may be wrong with an address that can be delivered."""

    DISPOSABLE = "disposable"
    """The domain gives out mailboxes for minutes."""
    ROLE = "role"
    """A function, not a person, reads it."""
    TYPO = "typo"
    """The domain is nearly that of a large provider; see the suggestion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressVerdict:
    """What is known of one address."""

    email: str
    standing: Standing
    reason: str | None = None
    """Why it is invalid, risky or unknown, for a person."""
    suggestion: str | None = None
    """The address that was probably meant."""
    hints: tuple[Hint, ...] = ()


REFUSALS = {
    Mail.NO_DOMAIN: "the domain {} does not exist",
    Mail.NO_SERVER: "the domain {} has no mail server: neither an MX nor an address record",
    Mail.REFUSED: "the domain {} takes no mail: its MX record says so (RFC 7505)",
}
"""Why a domain's mail cannot be delivered."""

_LARGE = (
    "gmail.com", "googlemail.com", "yahoo.com", "yahoo.co.uk", "ymail.com", "hotmail.com", "hotmail.co.uk",
    "outlook.com", "icloud.com", "protonmail.com", "fastmail.com", "comcast.net", "verizon.net", "sbcglobal.net",
    "bellsouth.net", "btinternet.com", "rediffmail.com", "t-online.de", "freenet.de", "wanadoo.fr",
)  # fmt: skip
"""Where most mailboxes are, and so most misspellings."""

_MISSPELT_ENDS = frozenset(
    ("co", "cm", "om", "con", "cmo", "ocm", "coma", "comm", "vom", "xom", "cpm", "cim", "nte", "ent")
)
"""Ends of misspelt domains whose first part is right; any other end may be the provider's own in a country."""

LONG_NAME = 9
"""Letters from which a name may have two mistakes in it; with fewer it would be another name."""

_ROLES = frozenset((
    "abuse", "accounts", "admin", "administrator", "billing", "careers", "contact", "enquiries", "feedback", "finance",
    "hello", "help", "helpdesk", "hostmaster", "hr", "info", "jobs", "kontakt", "legal", "mail", "mailer-daemon",
    "marketing", "news", "newsletter", "no-reply", "noc", "noreply", "office", "orders", "postmaster", "press",
    "privacy", "root", "sales", "security", "service", "support", "sysadmin", "team", "webmaster",
))  # fmt: skip
"""Local parts of functions, those of RFC 2142 among them."""


def examine(email: str, mail: Mail) -> AddressVerdict:
    """The verdict on a well-formed address whose domain is ``mail`` to mail."""
    local, _, domain = email.rpartition("@")
    meant = meant_domain(domain)
    suggestion = f"{local}@{meant}" if meant else None
    hints = tuple(_hints(local, domain, meant))
    if why := refusal(domain, mail):
        return AddressVerdict(email=email, standing=Standing.INVALID, reason=why, suggestion=suggestion, hints=hints)
    standing, reason = _standing(domain, mail, meant, hints)
    return AddressVerdict(email=email, standing=standing, reason=reason, suggestion=suggestion, hints=hints)


def malformed(email: str) -> AddressVerdict:
    """The verdict on what is no address at all."""
    return AddressVerdict(
        email=email, standing=Standing.INVALID, reason="not an email address; write it as user@domain"
    )


def refusal(domain: str, mail: Mail) -> str | None:
    """Why mail to the domain surely cannot be delivered, or None."""
    return REFUSALS[mail].format(domain) if mail in REFUSALS else None


def meant_domain(domain: str) -> str | None:
    """The large provider's domain that this one is a misspelling of, or None."""
    domain = domain.lower()
    if domain in _LARGE:
        return None
    return next((large for large in _LARGE if _misspelt(domain, large)), None)


def is_disposable(domain: str) -> bool:
    """Whether the domain, or the one it belongs to, is known for throw-away mailboxes."""
    labels = domain.lower().split(".")
    return any(".".join(labels[start:]) in _disposable() for start in range(len(labels) - 1))


def _standing(domain: str, mail: Mail, meant: str | None, hints: tuple[Hint, ...]) -> tuple[Standing, str | None]:
    if Hint.DISPOSABLE in hints:
        return Standing.RISKY, f"{domain} gives out disposable mailboxes"
    if meant:
        return Standing.RISKY, f"{domain} looks like a misspelt {meant}"
    if mail is Mail.UNKNOWN:
        return Standing.UNKNOWN, f"the DNS said nothing clear about {domain}"
    return Standing.VALID, None


def _hints(local: str, domain: str, meant: str | None) -> Iterable[Hint]:
    if is_disposable(domain):
        yield Hint.DISPOSABLE
    if local.partition("+")[0].lower() in _ROLES:
        yield Hint.ROLE
    if meant:
        yield Hint.TYPO


def _misspelt(domain: str, large: str) -> bool:
    name, _, end = domain.partition(".")
    right_name, _, right_end = large.partition(".")
    if name == right_name:
        return end in _MISSPELT_ENDS
    # Nobody gets the first letter wrong: amail.com and postmail.com are domains of their own.
    if end != right_end or name[:1] != right_name[0]:
        return False
    allowed = 2 if len(right_name) >= LONG_NAME else 1
    return abs(len(name) - len(right_name)) <= allowed and edits(name, right_name) <= allowed


def edits(one: str, other: str) -> int:
    """Letters to add, drop, change or swap with their neighbour to get from one to the other (optimal alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        current = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, current[-1] + 1, last[column - 1] + (letter != wanted))
            swapped = row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == wanted
            current.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, current
    return last[-1]


@cache
def _disposable() -> frozenset[str]:
    lines = files("worker").joinpath("disposable.txt").read_text(encoding="ascii").splitlines()
    return frozenset(line for line in map(str.strip, lines) if line and not line.startswith("#"))
