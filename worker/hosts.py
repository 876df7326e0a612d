"""Web addresses as a browser reads them, and what a host's name pretends to be."""

import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from urllib.parse import unquote

import idna
from publicsuffixlist import PublicSuffixList

_WEB = re.compile(r"(?:https?:/*|//+)([^/?#]*)", re.IGNORECASE)
_PORT = re.compile(r":\d*\Z")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENDS = frozenset(("com", "net", "org", "co", "de", "fr", "uk", "us", "eu", "info"))

BRANDS = (
    "adobe", "amazon", "apple", "bankofamerica", "barclays", "binance", "citibank", "coinbase", "docusign", "dropbox",
    "facebook", "fedex", "google", "icloud", "instagram", "linkedin", "mastercard", "microsoft", "netflix",
    "office365", "outlook", "paypal", "santander", "sharepoint", "telekom", "wellsfargo", "whatsapp",
)  # fmt: skip
"""Names that are most often imitated. Five letters at least: shorter ones are near to too many honest names."""

_ALIKE = str.maketrans({
    **dict(zip("аеорсухіјѕԁһӏԛԝкпг", "aeopcyxijsdhlqwknr", strict=True)),  # Cyrillic
    **dict(zip("οανρικυ", "oavpiku", strict=True)),  # Greek
    **dict(zip("ıłɡɩøđ", "ilgiod", strict=True)),
    **dict(zip("0135", "oles", strict=True)),
})  # fmt: skip
"""Letters that look like a Latin one: the part of Unicode's confusables (UTS 39) that host names are forged with."""
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))

_TOGETHER = (
    frozenset(("CJK", "HIRAGANA", "KATAKANA", "LATIN")),
    frozenset(("CJK", "HANGUL", "LATIN")),
    frozenset(("CJK", "BOPOMOFO", "LATIN")),
)
"""Scripts that one word may be written in (UTS 39 section 5.2, highly restrictive)."""


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Where a link leads."""

    host: str
    """In lower case, A-labels where it is international."""
    has_userinfo: bool
    """Something stands before an @ that is easily taken for the host."""

    @property
    def domain(self) -> str:
        return registrable(self.host)


def web_address(href: str) -> WebAddress | None:
    """The address of an http(s) link, however it is spelled (WHATWG URL), or None for any other."""
    plain = re.sub(r"[\t\r\n]", "", href).strip("".join(map(chr, range(33)))).replace("\\", "/")
    found = _WEB.match(plain)
    if found is None:
        return None
    userinfo, at, host = found[1].rpartition("@")
    if "{{" in host:
        return None
    host = _ascii(unquote(_PORT.sub("", host)))
    return WebAddress(host, bool(at) and bool(userinfo)) if host else None


def scheme(href: str) -> str:
    """The scheme of a link in lower case, or an empty text."""
    found = re.match(r"([a-z][a-z0-9+.-]*):", re.sub(r"[\x00-\x20]", "", href[:200]).lower())
    return found[1] if found else ""


def registrable(host: str) -> str:
    """The part of a host that somebody registered: example.co.uk of www.example.co.uk; the host where there is none."""
    return host if is_numeric(host) else _suffixes().privatesuffix(host) or host


def is_public_suffix(host: str) -> bool:
    """Whether strangers register domains directly under it: ``com``, ``co.uk``."""
    return _suffixes().is_public(host)


def has_known_end(host: str) -> bool:
    """Whether the host ends in a public suffix, and so is surely meant as one."""
    return _suffixes().publicsuffix(host, accept_unknown=False) is not None


def is_numeric(host: str) -> bool:
    """Whether the host is an IP address, in any notation that browsers take (``127.1``, ``0x7f000001``)."""
    with suppress(ValueError):
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        return True
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


@lru_cache(maxsize=4096)
def imitated(host: str) -> str | None:
    """Which name the host is made to look like, by letters that resemble others; None if it is honest."""
    shown = unicode_host(registrable(host))
    label = shown.partition(".")[0]
    for word in (label, *label.split("-")):
        name = _look().get(_skeleton(word))
        if name is not None and name != word:
            return name
    return None


@lru_cache(maxsize=4096)
def mixes_scripts(host: str) -> bool:
    """Whether a part of the name is written in several scripts that do not belong together, or is no valid name."""
    shown = unicode_host(host)
    return "xn--" in shown or any(_mixed(label) for label in shown.split("."))


def brand_in_front(host: str) -> str | None:
    """The well-known host that another's host begins with (``paypal.com.example.org``), or None."""
    labels = host.removesuffix(registrable(host)).rstrip(".").split(".")
    for label, end in pairwise(labels):
        if label in BRANDS and end in _ENDS:
            return f"{label}.{end}"
    return None


def unicode_host(host: str) -> str:
    """The host as a reader sees it; labels that decode to nothing valid stay as they are."""
    return ".".join(_unicode_label(label) for label in host.split("."))


def _unicode_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    with suppress(idna.IDNAError, UnicodeError):
        return idna.decode(label)
    return label


@lru_cache(maxsize=4096)
def _ascii(host: str) -> str:
    host = unicodedata.normalize("NFKC", host[:1000]).lower().rstrip(".")
    if host.isascii():
        return host
    with suppress(idna.IDNAError, UnicodeError):
        return idna.encode(host, uts46=True).decode()
    return host


def _mixed(label: str) -> bool:
    scripts = frozenset(_scripts(label))
    return len(scripts) > 1 and not any(scripts <= allowed for allowed in _TOGETHER)


def _scripts(label: str) -> Iterator[str]:
    for letter in label:
        if letter.isalpha():
            script = unicodedata.name(letter, "UNNAMED").replace("-", " ").partition(" ")[0]
            yield "CJK" if script == "IDEOGRAPHIC" else script


def _skeleton(word: str) -> str:
    """What two words that look alike have in common."""
    bare = "".join(letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter))
    bare = bare.translate(_ALIKE)
    for pair, letter in _PAIRS:
        bare = bare.replace(pair, letter)
    return bare


@cache
def _look() -> dict[str, str]:
    return {_skeleton(brand): brand for brand in BRANDS}


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
