"""Html as its reader meets it: links with their words, forms, plain words. One pass, in time linear to its length."""

import re
from dataclasses import dataclass, field

import turbohtml
from turbohtml import Token, TokenType

_CONDITIONAL = re.compile(r"<!--\[if[^\]>]{0,200}\]>|<!\[endif\]-->", re.IGNORECASE)
"""What hides html from all but Outlook, which shows it."""

_UNSEEN = frozenset(("style", "script", "title"))
_INLINE = frozenset(
    ("a", "abbr", "b", "bdi", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "u", "wbr")
)
"""Elements that do not end a word."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link as its reader sees it and as it leads."""

    href: str
    text: str


@dataclass(slots=True, kw_only=True)
class Outline:
    """What a reader of the html is shown and asked for."""

    anchors: list[Anchor] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)
    """Where each form sends what is entered; empty where it does not say."""
    asks_for_password: bool = False
    text: str = ""


def outline(source: str) -> Outline:
    """Reads html as it stands, without values for its variables."""
    reading = _Reading()
    for token in turbohtml.tokenize(_CONDITIONAL.sub("", source)):
        reading.take(token)
    reading.end_anchor()
    reading.outline.text = "".join(reading.words)
    return reading.outline


@dataclass(slots=True)
class _Reading:
    outline: Outline = field(default_factory=Outline)
    words: list[str] = field(default_factory=list)
    href: str | None = None
    """Of the link that is open."""
    anchor_from: int = 0
    """Where its words begin in ``words``."""
    unseen: str | None = None
    """The element whose content is not shown."""

    def take(self, token: Token) -> None:
        if token.type is TokenType.TEXT:
            if self.unseen is None:
                self.words.append(token.data or "")
        elif token.type is TokenType.START_TAG:
            self._start(token, token.tag or "")
        elif token.type is TokenType.END_TAG:
            self._end(token.tag or "")

    def _start(self, token: Token, tag: str) -> None:
        if tag not in _INLINE:
            self.words.append(" ")
        if tag in _UNSEEN:
            self.unseen = tag
        elif tag in ("a", "area"):
            self.end_anchor()
            self.href = token.attr("href")
            self.anchor_from = len(self.words)
        elif tag == "form":
            self.outline.forms.append(token.attr("action") or "")
        elif tag == "input" and (token.attr("type") or "").strip().lower() == "password":
            self.outline.asks_for_password = True

    def _end(self, tag: str) -> None:
        if tag == "a":
            self.end_anchor()
        if tag == self.unseen:
            self.unseen = None
        if tag not in _INLINE:
            self.words.append(" ")

    def end_anchor(self) -> None:
        if self.href is not None:
            self.outline.anchors.append(Anchor(self.href, "".join(self.words[self.anchor_from :])))
        self.href = None
