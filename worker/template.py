"""``{{name}}`` in text: found once, filled per recipient. One pass, no logic, no recursion."""

import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from worker.headers import check_line
from worker.tracking import Tracker

UNSUBSCRIBE_URL = "unsubscribe_url"
"""The variable that the server fills itself where ``settings.unsubscribe`` is on."""

SLOT = re.compile(r"\{\{ *([A-Za-z_][A-Za-z0-9_.\-]*) *\}\}")
_BARE = re.compile(r"[\s=`/]")
_IGNORED_IN_SCHEME = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202f\u2060\ufeff]+")
_SCRIPT = ("javascript:", "data:", "vbscript:")


class CompositionError(Exception):
    """The mail cannot be composed; the text says what and why (no bodies, no addresses). Becomes GENERATION_FAILURE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a hole is filled from: one message."""

    message_id: UUID
    workspace: UUID
    variables: Mapping[str, str] = field(repr=False)
    unsubscribe_url: str = field(repr=False)
    tracker: Tracker | None

    def value(self, name: str) -> str:
        if self.unsubscribe_url and name == UNSUBSCRIBE_URL:
            return self.unsubscribe_url
        try:
            return self.variables[name]
        except KeyError:
            raise CompositionError(f"the variable {name} has no value for this recipient") from None


class Hole(Protocol):
    """A place that is filled anew for each message."""

    def fill(self, scene: Scene) -> str:
        """Raises CompositionError."""


Piece = str | Hole


def escape_bare(value: str) -> str:
    """A value for a tag outside quotes: what would end it becomes a character reference."""
    return _BARE.sub(lambda match: f"&#{ord(match[0])};", html.escape(value))


def raw(value: str) -> str:
    return value


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    escape: Callable[[str], str]

    def fill(self, scene: Scene) -> str:
        return self.escape(scene.value(self.name))


@dataclass(frozen=True, slots=True)
class LineVariable:
    """A variable in the subject."""

    name: str

    def fill(self, scene: Scene) -> str:
        value = scene.value(self.name)
        complaint = check_line(value)
        if complaint:
            raise CompositionError(f"the variable {self.name} stands in the subject and {complaint}")
        return value


@dataclass(frozen=True, slots=True)
class Pixel:
    markup: tuple[str, str]

    def fill(self, scene: Scene) -> str:
        if scene.tracker is None:
            return ""
        return self.markup[0] + scene.tracker.open_url(scene.message_id, scene.workspace) + self.markup[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeValue:
    """The value of an html attribute that needs more than its variables escaped.

    shown: what it reads if it is left as it is. meant: the same with character references resolved.
    """

    shown: tuple[Piece, ...]
    meant: tuple[Piece, ...]
    tracked: bool = False
    """An http or https address is replaced by a click address."""
    guarded: bool = False
    """Its variables decide the scheme of an address: one that runs a script is refused."""
    bare: bool = False
    """It stands without quotes."""

    def fill(self, scene: Scene) -> str:
        if self.tracked or self.guarded:
            address = self._address(join(self.meant, scene), scene)
            if address:
                return address
        return join(self.shown, scene) or ('""' if self.bare else "")

    def _address(self, meant: str, scene: Scene) -> str | None:
        if self.guarded and may_run_script(meant):
            names = sorted({piece.name for piece in self.meant if isinstance(piece, Variable)})
            raise CompositionError(f"the value of {', '.join(names)} makes an address run a script")
        return click_address(scene, meant) if self.tracked else None


def click_address(scene: Scene, url: str) -> str | None:
    """The tracked address, escaped for an attribute; None where the address is none of the web, or too long."""
    if scene.tracker is None:
        return None
    try:
        return html.escape(scene.tracker.click_url(scene.message_id, scene.workspace, url))
    except ValueError:
        return None


def may_run_script(url: str) -> bool:
    """Whether a mail program could take the address for code, read as leniently as any of them does."""
    for reading in (url, html.unescape(url)):
        if _IGNORED_IN_SCHEME.sub("", reading[:4096]).lower().startswith(_SCRIPT):
            return True
    return False


def could_become_script(start: str) -> bool:
    """Whether an address that begins with ``start`` and goes on with a variable could run a script."""
    compact = _IGNORED_IN_SCHEME.sub("", start).lower()
    if compact.startswith("data:image/"):  # the author's own choice, and no image runs a script
        return False
    return compact.startswith(_SCRIPT) or any(scheme.startswith(compact) for scheme in _SCRIPT)


def variables_in(*texts: str | None) -> frozenset[str]:
    """The names that the texts ask for. `UNSUBSCRIBE_URL` is among them: the server fills it if asked to."""
    return frozenset(name for text in texts if text for name in SLOT.findall(text))


def split(text: str, wanted: Callable[[str], bool], hole: Callable[[str], Hole]) -> tuple[Piece, ...]:
    """The text with a hole for every wanted name; other braces stay what they are."""
    pieces: list[Piece] = []
    end = 0
    for match in SLOT.finditer(text):
        if wanted(match[1]):
            pieces += [text[end : match.start()], hole(match[1])]
            end = match.end()
    pieces.append(text[end:])
    return tuple(piece for piece in pieces if piece != "")


def join(pieces: Iterable[Piece], scene: Scene) -> str:
    return "".join([piece if isinstance(piece, str) else piece.fill(scene) for piece in pieces])
