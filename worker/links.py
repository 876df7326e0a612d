"""Html as its author wrote it, with holes where something differs per message.

The tokenizer only tells where things stand; what is not replaced stays as it is, byte for byte. What an Outlook
conditional comment hides is never tracked, but its addresses are guarded like any other.
"""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import turbohtml
from turbohtml import PlainText, Token, TokenType

from worker.template import (
    SLOT,
    UNSUBSCRIBE_URL,
    AttributeValue,
    Piece,
    Variable,
    could_become_script,
    escape_bare,
    raw,
)
from worker.tracking import WEB

_ATTRIBUTE = re.compile(
    r"[\t\n\f\r /]*([^\t\n\f\r />][^\t\n\f\r />=]*)(?:[\t\n\f\r ]*=[\t\n\f\r ]*(\"[^\"]*\"|'[^']*'|[^\t\n\f\r >]*))?"
)
_TAG_NAME = re.compile(r"<[^\t\n\f\r />]*")
_ADDRESSES = frozenset((
    "href", "src", "action", "formaction", "background", "poster", "cite", "data", "longdesc", "ping", "xlink:href",
    "codebase", "dynsrc", "lowsrc", "manifest",
))  # fmt: skip
_LINKS = ("a", "area")
_UNTRACKED = ("data-no-track", "data-unsubscribe")
_TABLE = (("thead", "tbody", "tfoot"), ("tr",), ("td", "th"), ())
"""What stands in a table, in its sections, in their rows, and in the cells."""
_MOST_PADDED = 5_000_000
"""Characters of tables that are written in columns, with their padding."""
_TIDY = (
    (re.compile(r" \( *#[^ )\n]{0,999}\)"), ""),  # leads nowhere from a text
    (re.compile(r"(?<!\S)(\S{1,999}) \( *(?:mailto:|tel:)?\1 *\)"), r"\1"),
    (re.compile(r"(?:[\u00a0\u00ad\u034f\u200b-\u200d\u2007\ufeff] ?){4,}"), " "),  # fills up an inbox's preview
    (re.compile(r"(?<! ) +$|^ (?=\()", re.MULTILINE), ""),
)


@dataclass(frozen=True, slots=True)
class _Attribute:
    name: str
    start: int
    """Of the value, inside its quotes."""
    end: int
    bare: bool


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    pieces: tuple[Piece, ...]


@dataclass(slots=True)
class _Reading:
    """One pass over a piece of html whose variables were replaced by marks."""

    marks: "_Marks"
    track: bool
    edits: list[_Edit] = field(default_factory=list)
    body_end: int | None = None

    def read(self, source: str, offset: int = 0) -> None:
        for start, token in _tokens(source):
            if token.type is TokenType.START_TAG:
                self._start_tag(token, token.source or "", offset + start)
            elif token.type is TokenType.COMMENT:
                self._comment(token.source or "", offset + start)
            elif token.type is TokenType.END_TAG and token.tag == "body":
                self.body_end = start

    def _comment(self, source: str, offset: int) -> None:
        inner = source.find("]>") + 2
        if source.startswith("<!--[if") and inner >= 2:
            hidden = _Reading(self.marks, track=False)
            hidden.read(source[inner:], offset + inner)
            self.edits += hidden.edits

    def _start_tag(self, token: Token, source: str, offset: int) -> None:
        track = self.track and token.tag in _LINKS and not any(token.attr(name) is not None for name in _UNTRACKED)
        if not track and not self.marks.found_in(source):
            return
        done = 0
        seen = set()
        for attribute in _attributes(source):
            if attribute.name in seen:
                continue
            seen.add(attribute.name)
            self._loose(source[done : attribute.start], offset + done)
            done = attribute.end
            shown = source[attribute.start : attribute.end]
            self._value(attribute, shown, token.attr(attribute.name) or "", offset, track)
        self._loose(source[done:], offset + done)

    def _value(self, attribute: _Attribute, shown: str, meant: str, offset: int, track: bool) -> None:
        pieces = self.marks.pieces(meant, raw)
        variables = [piece.name for piece in pieces if isinstance(piece, Variable)]
        start = pieces[0] if pieces and isinstance(pieces[0], str) else ""
        tracked = track and attribute.name == "href" and _may_be_web(start, variables)
        guarded = bool(variables) and attribute.name in _ADDRESSES and could_become_script(start)
        if not (tracked or guarded or (variables and attribute.bare)):
            return
        value = AttributeValue(
            shown=self.marks.pieces(shown, escape_bare if attribute.bare else html.escape),
            meant=pieces,
            tracked=tracked,
            guarded=guarded,
            bare=attribute.bare,
        )
        self.edits.append(_Edit(offset + attribute.start, offset + attribute.end, (value,)))

    def _loose(self, source: str, offset: int) -> None:
        """Variables among the names of a tag: they may become part of a name, never an attribute of their own."""
        if self.marks.found_in(source):
            self.edits.append(_Edit(offset, offset + len(source), self.marks.pieces(source, escape_bare)))


class _Marks:
    """Variables as plain words that no tokenizer takes apart, so that ``href={{ x }}`` is one value."""

    def __init__(self, source: str, wanted: Callable[[str], bool]) -> None:
        self._key = "pslot"
        while self._key in source.lower():
            self._key += "q"
        self._names: list[str] = []
        self._pattern = re.compile(rf"{self._key}(\d+)z", re.IGNORECASE)
        self.text = SLOT.sub(lambda match: self._mark(match[1]) if wanted(match[1]) else match[0], source)

    def _mark(self, name: str) -> str:
        self._names.append(name)
        return f"{self._key}{len(self._names) - 1}z"

    def found_in(self, text: str) -> bool:
        return bool(self._names) and self._pattern.search(text) is not None

    def pieces(self, text: str, escape: Callable[[str], str]) -> tuple[Piece, ...]:
        if not self._names:
            return (text,) if text else ()
        parts = self._pattern.split(text)
        made: list[Piece] = [
            Variable(self._names[int(part)], escape) if number % 2 else part for number, part in enumerate(parts)
        ]
        return tuple(piece for piece in made if piece != "")


def html_pieces(
    source: str, *, wanted: Callable[[str], bool], track: bool, tail: tuple[Piece, ...] = ()
) -> tuple[Piece, ...]:
    """The html in pieces.

    wanted: which names of ``{{name}}`` are variables. track: links lead through click addresses.
    tail: comes before ``</body>``, or at the end where there is none. Line ends must be LF.
    """
    marks = _Marks(source, wanted)
    reading = _Reading(marks, track)
    reading.read(marks.text)
    end = len(marks.text) if reading.body_end is None else reading.body_end
    edits = sorted([*reading.edits, _Edit(end, end, tail)], key=lambda edit: edit.start)
    pieces: list[Piece] = []
    done = 0
    for edit in edits:
        pieces += [*marks.pieces(marks.text[done : edit.start], html.escape), *edit.pieces]
        done = edit.end
    return (*pieces, *marks.pieces(marks.text[done:], html.escape))


def has_unsubscribe_link(source: str) -> bool:
    """Whether the author placed the unsubscribe link: by the variable, or by an element with ``data-unsubscribe``.

    One in a comment is none: not everybody sees it, if anybody does.
    """
    tokens = [token for _, token in _tokens(source)]
    hidden = sum(_unsubscribe_urls(token.source) for token in tokens if token.type is TokenType.COMMENT)
    if _unsubscribe_urls(source) > hidden:
        return True
    return any(token.attr("data-unsubscribe") is not None for token in tokens if token.type is TokenType.START_TAG)


def _unsubscribe_urls(source: str | None) -> int:
    return SLOT.findall(source or "").count(UNSUBSCRIBE_URL)


def text_from_html(source: str, wanted: Callable[[str], bool]) -> tuple[Piece, ...]:
    """What the html says as plain text, in pieces: images by their alt, links with their target in brackets, tables in
    rows unless they only place things.

    Empty where it says nothing in words. wanted: as of `html_pieces`. What reads like a variable only as text, such as
    braces written as character references, is none. Line ends must be LF.
    """
    marks = _Marks(source, wanted)
    document = turbohtml.parse(marks.text)
    room = _MOST_PADDED
    for table in document.select("table"):
        room -= 0 if (places := _only_places(table)) else _grid(table)
        if places or room < 0:
            _make_blocks(table)
    text = document.to_text(PlainText(links="inline", images=True))
    for untidy, tidy in _TIDY:
        text = untidy.sub(tidy, text)
    text = text.strip()
    return marks.pieces(f"{text}\n", raw) if text else ()


def _only_places(table: turbohtml.Element) -> bool:
    return table.attr("role") == "presentation" or table.select_one("table") is not None


def _grid(table: turbohtml.Element) -> int:
    """Characters of the table, were all rows as wide as the widest and all cells as the longest: a bound."""
    rows = [[len(cell.html) for cell in row.children] for row in table.select("tr")]
    return len(rows) * max(map(len, rows), default=0) * max(map(max, filter(None, rows)), default=0)


def _make_blocks(table: turbohtml.Element) -> None:
    """The cells become blocks, one below the other."""
    level = [table]
    for names in _TABLE:
        for element in level:
            element.tag = "div"
        children = (child for element in level for child in element.children)
        level = [child for child in children if isinstance(child, turbohtml.Element) and child.tag in names]


def _tokens(source: str) -> Iterator[tuple[int, Token]]:
    """The tags and comments, each with its offset."""
    lines = [0, *(match.end() for match in re.finditer("\n", source))]
    for token in turbohtml.tokenize(source, capture_source=True):
        if token.source:
            yield lines[token.line - 1] + token.col, token


def _attributes(source: str) -> Iterator[_Attribute]:
    """The attributes of a start tag as the WHATWG tokenizer delimits them."""
    name = _TAG_NAME.match(source)
    for match in _ATTRIBUTE.finditer(source, name.end() if name else 0, len(source) - 1):
        if match[2] is None:
            yield _Attribute(match[1].lower(), match.end(1), match.end(1), bare=True)
        else:
            quoted = match[2][:1] in ('"', "'")
            yield _Attribute(match[1].lower(), match.start(2) + quoted, match.end(2) - quoted, not quoted)


def _may_be_web(start: str, variables: list[str]) -> bool:
    """Whether an address that begins with ``start`` is one of the web, or becomes one by its variables."""
    if UNSUBSCRIBE_URL in variables:
        return False
    start = start.lstrip().lower()
    if WEB.match(start):
        return True
    return bool(variables) and ("https://".startswith(start) or "http://".startswith(start))
