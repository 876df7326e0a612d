"""The texts of a mail with their holes: variables, tracked links, the pixel, the unsubscribe footer."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from models.content import Content
from worker.links import has_unsubscribe_link, html_pieces, text_from_html
from worker.template import (
    UNSUBSCRIBE_URL,
    CompositionError,
    LineVariable,
    Piece,
    Pixel,
    Variable,
    raw,
    split,
    variables_in,
)
from worker.tracking import Tracker

_PIXEL = ('<img src="', '" width="1" height="1" alt="" style="border:0;width:1px;height:1px">')
_HTML_FOOTER = (
    '<p style="font-size:12px;line-height:18px;color:#6b6b6b;text-align:center">'
    '<a href="{{unsubscribe_url}}" data-unsubscribe style="color:#6b6b6b">Unsubscribe</a></p>\n'
)
_TEXT_FOOTER = "\n\nUnsubscribe: "


@dataclass(frozen=True, slots=True, repr=False)
class Texts:
    """The parts of the content that are text. One of ``html`` and ``text`` is there.

    Html without a text brings its own words as one: a mail that is html alone is unreadable to some and spam to others.
    """

    subject: tuple[Piece, ...]
    html: tuple[Piece, ...] | None
    text: tuple[Piece, ...] | None


def compile_texts(content: Content, tracker: Tracker | None) -> Texts:
    """The texts of the content as its settings want them. Without a tracker, links and opens are left alone.

    Raises CompositionError.
    """
    wanted = _wanted(content)
    if content.settings.unsubscribe and UNSUBSCRIBE_URL in variables_in(content.subject):
        raise CompositionError("the unsubscribe link cannot stand in the subject")
    html = None if content.html is None else _unix_lines(content.html)
    text = None if content.text is None else _unix_lines(content.text)
    if html is None and text is None:
        text = ""
    words = _words(html, text, wanted)
    return Texts(
        subject=split(content.subject, wanted, LineVariable),
        html=None if html is None else _html_pieces(html, content, wanted, tracker),
        text=_with_footer(words) if words is not None and content.settings.unsubscribe else words,
    )


def _wanted(content: Content) -> Callable[[str], bool]:
    """Which names are variables: all where the content is personalised, and the unsubscribe link where it is on."""
    fills_unsubscribe = content.settings.unsubscribe
    return lambda name: content.personalised or (fills_unsubscribe and name == UNSUBSCRIBE_URL)


def _html_pieces(
    html: str, content: Content, wanted: Callable[[str], bool], tracker: Tracker | None
) -> tuple[Piece, ...]:
    settings = content.settings
    tail: list[Piece] = []
    if settings.unsubscribe and not has_unsubscribe_link(html):
        tail += split(_HTML_FOOTER, wanted, lambda name: Variable(name, escape))
    if settings.open_tracking and tracker:
        tail.append(Pixel(_PIXEL))
    return html_pieces(html, wanted=wanted, track=settings.click_tracking and tracker is not None, tail=tuple(tail))


def _words(html: str | None, text: str | None, wanted: Callable[[str], bool]) -> tuple[Piece, ...] | None:
    """The author's text, else the words of the html; None where the html has none."""
    if text is not None:
        return split(text, wanted, _raw_variable)
    return text_from_html(html or "", wanted) or None


def _with_footer(words: tuple[Piece, ...]) -> tuple[Piece, ...]:
    if _raw_variable(UNSUBSCRIBE_URL) in words:
        return words
    *others, last = words or ("",)
    joint = (last.rstrip("\n") + _TEXT_FOOTER,) if isinstance(last, str) else (last, _TEXT_FOOTER)
    return (*others, *joint, _raw_variable(UNSUBSCRIBE_URL), "\n")


def _raw_variable(name: str) -> Variable:
    return Variable(name, raw)


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
