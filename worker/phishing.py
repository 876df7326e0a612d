"""How much content looks like phishing: a table of signs, each with its points. Nothing is looked up or fetched.

One strong sign, or two that belong together, reach the default threshold of 60; an honest mail may well show a weak
one. What the variables of a mail stand for is read from the values that are handed in.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from models.content import AttachmentRef, Content
from worker.hosts import (
    WebAddress,
    brand_in_front,
    has_known_end,
    imitated,
    is_numeric,
    mixes_scripts,
    registrable,
    scheme,
    unicode_host,
    web_address,
)
from worker.outline import Anchor, Outline, outline
from worker.template import SLOT

READ = 500_000
"""Characters that are read of html and of text: of anything longer the first and the last half."""
LINKS = 2_000
"""Different links that are looked at, the first and the last half."""
EXAMPLES = 3

_SHORTENERS = frozenset((
    "bit.ly", "buff.ly", "cutt.ly", "goo.gl", "is.gd", "ow.ly", "rb.gy", "rebrand.ly", "s.id", "shorturl.at", "t.co",
    "t.ly", "tiny.cc", "tinyurl.com", "v.gd",
))  # fmt: skip
_RUNS = frozenset((
    "apk", "appx", "bat", "chm", "cmd", "com", "cpl", "dll", "exe", "hta", "img", "iso", "jar", "js", "jse", "lnk",
    "msi", "msp", "pif", "ps1", "reg", "scf", "scr", "sh", "url", "vbe", "vbs", "vhd", "wsf", "wsh",
))  # fmt: skip
"""Extensions of files that a double click runs or mounts."""
_RUN_TYPES = frozenset((
    "application/x-dosexec", "application/x-ms-installer", "application/x-msdos-program", "application/x-msdownload",
    "application/x-msi", "application/x-sh", "application/javascript", "application/x-javascript", "text/javascript",
    "application/hta",
))  # fmt: skip
_MACROS = frozenset(("docm", "dotm", "potm", "ppam", "ppsm", "pptm", "xlam", "xlsm", "xltm"))
_PAGES = frozenset(("htm", "html", "mht", "mhtml", "shtml", "svg", "xhtml"))
_DOCUMENTS = frozenset(
    ("csv", "doc", "docx", "jpeg", "jpg", "pdf", "png", "ppt", "pptx", "rtf", "txt", "xls", "xlsx", "zip")
)

_PRESSURE = re.compile(
    r"\b(?:urgent(?:ly)?|immediate(?:ly)?|within (?:the next )?\d+ (?:hours?|minutes?)|final (?:notice|warning)"
    r"|(?:been|be|is|get) (?:suspended|locked|limited|restricted|blocked|closed|deactivated|terminated)"
    r"|unusual (?:activity|sign-?in)|unauthori[sz]ed (?:access|transaction)"
    r"|dringend|umgehend|sofort|gesperrt|eingeschränkt|letzte (?:mahnung|warnung))\b"
)
_SECRETS = re.compile(
    r"\b(?:passwords?|passcode|log ?in|sign ?in|credentials|bank (?:account|details)|card (?:number|details)"
    r"|(?:verify|confirm|update|validate) your (?:account|identity|billing|payment|information|details)"
    r"|passwort|kennwort|zugangsdaten|anmelden|kontodaten|konto (?:bestätigen|verifizieren))\b"
)
_URL = re.compile(r"https?://[^\s<>\"'(),;]{1,2000}", re.IGNORECASE)
_SHOWN_URL = re.compile(r"(?:https?://|\bwww\.)[^\s/?#<>\"'(),;!|]{1,300}", re.IGNORECASE)
_SHOWN_HOST = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?=[/:?#]|\Z)\S{0,500}")
_NAMED_HOST = re.compile(r"(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}\b")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the content; ``to`` where it leads into the web."""

    anchor: Anchor
    to: WebAddress | None


class Evidence:
    """Content as the signs look at it."""

    def __init__(self, content: Content, values: Mapping[str, str]) -> None:
        self.content = content
        self._html = _bounded(_filled(content.html or "", values, html.escape))
        self._text = _bounded(_filled(content.text or "", values, str))
        self.subject = _filled(content.subject, values, str)
        self.sender_domain = registrable(content.sender.domain)

    @cached_property
    def outline(self) -> Outline:
        return outline(self._html)

    @cached_property
    def links(self) -> Sequence[Link]:
        """Each different link once; the targets of forms and the addresses in the text among them."""
        anchors = dict.fromkeys([
            *self.outline.anchors,
            *(Anchor(action, "") for action in self.outline.forms),
            *(Anchor(found[0], "") for found in _URL.finditer(self._text)),
        ])  # fmt: skip
        some = [*anchors] if len(anchors) <= LINKS else [*anchors][: LINKS // 2] + [*anchors][-LINKS // 2 :]
        return [Link(anchor, web_address(anchor.href)) for anchor in some]

    @cached_property
    def hosts(self) -> Sequence[str]:
        return list(dict.fromkeys(link.to.host for link in self.links if link.to))

    @cached_property
    def words(self) -> str:
        plain = " ".join((self.subject, self.outline.text, self._text)).lower()
        return re.sub(r"\s+", " ", _visible(plain))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Something that phishing mail has."""

    name: str
    points: int
    explanation: str
    find: Callable[[Evidence], Iterable[str]]
    """Yields what it found, in a few words; nothing where the sign is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """What was found in content."""

    score: int
    """0 to 100."""
    reasons: tuple[dict[str, Any], ...]
    """``{"rule", "points", "explanation", "examples"}``, the gravest first."""

    def to_json(self) -> dict[str, Any]:
        return {"score": self.score, "reasons": list(self.reasons)}


def examine(content: Content, values: Mapping[str, str] | None = None) -> Suspicion:
    """Reads content for the signs of phishing.

    values: what its variables stand for; those that are not given are left as they are.
    """
    evidence = Evidence(content, values or {})
    reasons = [_reason(sign, examples) for sign in SIGNS if (examples := list(islice(sign.find(evidence), EXAMPLES)))]
    reasons.sort(key=lambda reason: -reason["points"])
    return Suspicion(score=min(sum(reason["points"] for reason in reasons), 100), reasons=tuple(reasons))


def _reason(sign: Sign, examples: Sequence[str]) -> dict[str, Any]:
    return {
        "rule": sign.name,
        "points": sign.points,
        "explanation": sign.explanation,
        "examples": [_fit(example) for example in examples],
    }


def _fit(example: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in example)
    return shown[:120]


def _link_mismatch(evidence: Evidence) -> Iterator[str]:
    for link in evidence.links:
        for shown in _shown_domains(link.anchor.text) if link.to else ():
            # One's own domain on a link through a tracker deceives nobody.
            if link.to and shown not in (link.to.domain, evidence.sender_domain):
                yield f"{shown} leads to {link.to.host}"


def _shown_domains(text: str) -> Iterator[str]:
    """The domains that the words of a link name."""
    words = _visible(text).strip()
    found = [match[0] for match in _SHOWN_URL.finditer(words)]
    if not found and "@" not in words and _SHOWN_HOST.fullmatch(words):
        host = re.split(r"[/:?#]", words, maxsplit=1)[0].lower()
        found = [host] if has_known_end(host) else []
    for one in dict.fromkeys(found):
        address = web_address(one if "://" in one else f"//{one}")
        if address and "." in address.host:
            yield address.domain


def _other_name(evidence: Evidence) -> Iterator[str]:
    name = _visible(evidence.content.sender.name or "").lower()
    for match in _NAMED_HOST.finditer(name):
        if has_known_end(match[0]) and registrable(match[0]) != evidence.sender_domain:
            yield f"{match[0]} in the name of {evidence.sender_domain}"


def _password(evidence: Evidence) -> Iterator[str]:
    if evidence.outline.asks_for_password:
        yield "an input of type password"


def _form(evidence: Evidence) -> Iterator[str]:
    if evidence.outline.forms and not evidence.outline.asks_for_password:
        yield "a form"


def _script(evidence: Evidence) -> Iterator[str]:
    yield from (f"a {kind}: link" for link in evidence.links if (kind := scheme(link.anchor.href)) in _SCRIPTS)


_SCRIPTS = ("javascript", "data", "vbscript")


def _wording(evidence: Evidence) -> Iterator[str]:
    if not evidence.hosts:
        return
    pressure, secret = _PRESSURE.search(evidence.words), _SECRETS.search(evidence.words)
    if pressure and secret:
        yield f"{pressure[0]}, {secret[0]}"


def _executable(evidence: Evidence) -> Iterator[str]:
    for file in evidence.content.attachments:
        if _extension(file) in _RUNS or file.content_type.lower() in _RUN_TYPES:
            yield file.filename


def _disguised(evidence: Evidence) -> Iterator[str]:
    for file in evidence.content.attachments:
        doubled = _extension(file) in _RUNS | _PAGES and _extension(file, -2) in _DOCUMENTS
        if doubled or _BIDI.search(file.filename):
            yield file.filename


def _ends_in(ends: frozenset[str]) -> Callable[[Evidence], Iterator[str]]:
    def find(evidence: Evidence) -> Iterator[str]:
        for file in evidence.content.attachments:
            if _extension(file) in ends:
                yield file.filename

    return find


def _extension(file: AttachmentRef, position: int = -1) -> str:
    """The last extension of the name, or the one before it; Windows drops dots and blanks at the end of a name."""
    plain = _BIDI.sub("", file.filename).lower().rstrip(" .")
    parts = plain.split(".")[1:]
    return parts[position].strip() if len(parts) >= -position else ""


def _hosts(bad: Callable[[str], object]) -> Callable[[Evidence], Iterator[str]]:
    """A sign that the name of a host shows."""

    def find(evidence: Evidence) -> Iterator[str]:
        return (unicode_host(host) for host in evidence.hosts if bad(host))

    return find


def _userinfo(evidence: Evidence) -> Iterator[str]:
    yield from (f"...@{link.to.host}" for link in evidence.links if link.to and link.to.has_userinfo)


SIGNS: tuple[Sign, ...] = tuple(
    Sign(name=name, points=points, explanation=explanation, find=find)
    for name, points, explanation, find in (
        ("password_field", 60, "The mail itself asks for a password.", _password),
        ("lookalike_host", 60, "A link's host imitates a well-known name by similar letters.", _hosts(imitated)),
        ("executable_attachment", 60, "An attachment is a program, or runs one.", _executable),
        ("mixed_script_host", 60, "A link's host mixes letters of several scripts.", _hosts(mixes_scripts)),
        ("script_link", 50, "A link runs a script or carries a page in itself.", _script),
        ("link_mismatch", 40, "A link shows one domain and leads to another.", _link_mismatch),
        ("numeric_host", 40, "A link leads to an IP address instead of a name.", _hosts(is_numeric)),
        ("userinfo_link", 40, "A link has something before an @ that looks like its host.", _userinfo),
        ("brand_subdomain", 40, "A link's host begins with the host of somebody else.", _hosts(brand_in_front)),
        ("disguised_attachment", 40, "An attachment's name hides what it is.", _disguised),
        ("macro_attachment", 30, "An attachment may hold macros.", _ends_in(_MACROS)),
        ("other_sender_name", 30, "The sender's name shows a domain that is not the sender's.", _other_name),
        ("urgent_wording", 20, "It presses for an account's secrets, and has a link.", _wording),
        ("form", 20, "The mail itself has a form to fill in.", _form),
        ("page_attachment", 15, "An attachment is a web page.", _ends_in(_PAGES)),
        ("shortened_link", 10, "A link hides where it leads behind a shortener.", _hosts(_SHORTENERS.__contains__)),
    )
)  # fmt: skip
"""Every sign. Each counts once, however often it is found."""


def _bounded(text: str) -> str:
    return text if len(text) <= READ else f"{text[: READ // 2]} {text[-READ // 2 :]}"


def _filled(text: str, values: Mapping[str, str], escape: Callable[[str], str]) -> str:
    if not values or "{{" not in text:
        return text
    return SLOT.sub(lambda match: escape(values[match[1]]) if match[1] in values else match[0], text)


def _visible(text: str) -> str:
    """The text without what is not seen: format characters such as soft hyphens and zero-width spaces."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFKC", text)
    return "".join(letter for letter in composed if unicodedata.category(letter) != "Cf")
