"""Header lines of a mail: what may stand in them, and how it is written (RFC 5322, 2047, 2231, 6532)."""

import base64
import re
from collections.abc import Iterable, Sequence
from email.errors import HeaderParseError
from email.header import decode_header
from functools import lru_cache
from urllib.parse import quote

import idna

from models.content import Address

EOL = "\r\n"
WIDTH = 78
LONGEST = 998
"""Bytes in a line without its end (RFC 5322 section 2.1.1)."""

_NAME = re.compile(r"[!-9;-~]{1,76}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_NO_TAB = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_RESERVED = re.compile(
    r"(?:resent-)?(?:from|to|cc|bcc|sender|date|message-id)|subject|reply-to|in-reply-to|references|mime-version|received"
    r"|return-path|(?:content-|dkim|arc-|list-unsubscribe|x-postroad-).*",
    re.IGNORECASE,
)
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?: [A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*")
_QUOTED = re.compile(r'(["\\])')
_PLAIN_VALUE = re.compile(r"[ !#-:<-\[\]-~]{0,60}")
_WORD = re.compile(r"\s*\S+")
_ID = re.compile(r"<[!-;=?-~]{1,960}>")
_MAILBOX = re.compile(
    r"(?:[^\s\"(),:;<>@\[\\\]\x00-\x1f\x7f-\x9f]+|\"(?:[^\"\\\x00-\x1f\x7f-\x9f]|\\[ -~])*\")"
    r"@[^\s\"(),;<>@\\\x00-\x1f\x7f-\x9f]+"
)
_WORDLIKE = r"[A-Za-z0-9!#$&^_.+\-]+"
_MEDIA_TYPE = re.compile(rf'{_WORDLIKE}/{_WORDLIKE}(?:\s*;\s*{_WORDLIKE}=(?:{_WORDLIKE}|"[ !#-\[\]-~]*"))*')
_UNREADABLE = "\0"
"""Stands for base64 that is none: a reader that is less strict may find a line break in it."""
_ENCODED_BYTES = 45
"""Bytes of text that fit an encoded word of 75 characters with charset utf-8 in base64."""


def check_line(text: str) -> str | None:
    """What is wrong with a subject or a display name, or None. Encoded words are looked into."""
    if _CONTROL.search(text):
        return "contains a line break or another control character"
    if _CONTROL.search(_decoded(text)):
        return "contains an encoded word that hides a line break or another control character"
    return None


def check_header(name: str, value: str) -> str | None:
    """What is wrong with a caller's own header, or None."""
    if not _NAME.fullmatch(name):
        return "is not a header name: 1 to 76 printable ASCII characters without spaces and colons"
    if _RESERVED.fullmatch(name):
        return "is written by the server and cannot be set"
    if _CONTROL_NO_TAB.search(value) or _CONTROL_NO_TAB.search(_decoded(value)):
        return "has a value with a line break or another control character"
    return None


def check_media_type(text: str) -> str | None:
    """What is wrong with an attachment's content type, or None."""
    return None if len(text) <= 255 and _MEDIA_TYPE.fullmatch(text) else "is not a media type such as image/png"


def is_mailbox(email: str) -> bool:
    """Whether the address can be written into a header without changing the header's meaning."""
    if len(email) > 320 or not _MAILBOX.fullmatch(email):
        return False
    try:
        return bool(to_ascii_domain(email))
    except ValueError:
        return False


def is_message_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def needs_smtputf8(email: str) -> bool:
    """Whether the local part is outside ASCII; a domain never is, since it has A-labels."""
    return not email.isascii() and not email.rpartition("@")[0].isascii()


def to_ascii_domain(email: str) -> str:
    """The address with an internationalised domain as A-labels. Raises ValueError where the domain has none."""
    if email.isascii():
        return email
    local, _, domain = email.rpartition("@")
    return f"{local}@{_a_labels(domain)}"


@lru_cache(maxsize=4096)
def _a_labels(domain: str) -> str:
    return domain if domain.isascii() else idna.encode(domain, uts46=True).decode("ascii")


def mailbox(address: Address) -> str:
    """``name <email>``; a long or non-ASCII name as encoded words."""
    email = to_ascii_domain(address.email)
    if not address.name:
        return email
    name = phrase(address.name)
    fold = EOL if _last_line(name) + len(email) > WIDTH - 14 else ""  # room for "Reply-To: ", " <", ">" and a comma
    return f"{name}{fold} <{email}>"


def phrase(name: str) -> str:
    quoted = name if _PHRASE.fullmatch(name) else '"' + _QUOTED.sub(r"\\\1", name) + '"'
    if len(name) <= 60 and name.isascii() and "=?" not in name:
        return quoted
    words = _WORD.findall(quoted)
    if not name.isascii() or "=?" in name or max(map(len, words)) > 60:
        return f"{EOL} ".join(_encoded_words(name))
    start = " " * 10  # room for "Reply-To: "
    return _filled(start, words).removeprefix(start)


def address_line(name: str, addresses: Iterable[Address]) -> str:
    """A whole header line with its end, folded between the addresses."""
    return _joined(name, [mailbox(address) for address in addresses], ",")


def ids_line(name: str, ids: Sequence[str]) -> str:
    """Message-IDs as they are, folded between them: an encoded word would break threading at the receiver."""
    return _joined(name, ids, "")


def text_line(name: str, value: str) -> str:
    """An unstructured header line with its end."""
    value = value.strip()
    if value.isascii() and "=?" not in value:
        if len(name) + 2 + len(value) <= WIDTH:
            return f"{name}: {value}{EOL}"
        words = _WORD.findall(value)
        if all(len(word) <= WIDTH * 8 for word in words):
            return _filled(f"{name}:", [f" {words[0]}", *words[1:]]) + EOL
    return f"{name}: " + f"{EOL} ".join(_encoded_words(value, first=len(name) + 2)) + EOL


def parameter(name: str, value: str) -> str:
    """A MIME parameter with its leading fold: quoted where plain ASCII suffices, else as RFC 2231 says.

    What would need a backslash, and the semicolon, goes the latter way too: some readers end a value there.
    """
    if _PLAIN_VALUE.fullmatch(value):
        return f'{EOL} {name}="{value}"'
    letters = [quote(letter, safe="!#$&+-.^_`{}~") for letter in value]
    if sum(map(len, letters)) <= 60:
        return f"{EOL} {name}*=utf-8''{''.join(letters)}"
    return ";".join(
        f"{EOL} {name}*{number}*={section}" for number, section in enumerate(_sections(["utf-8''", *letters]))
    )


def _sections(letters: Iterable[str]) -> list[str]:
    """Sections of up to 60 characters in which no letter is torn apart: some readers decode each by itself."""
    sections = [""]
    for letter in letters:
        if len(sections[-1]) + len(letter) > 60:
            sections.append("")
        sections[-1] += letter
    return sections


def _decoded(text: str) -> str:
    if "=?" not in text:
        return text
    try:
        return "".join(_decoded_part(part, charset) for part, charset in decode_header(text))
    except (HeaderParseError, ValueError):
        return _UNREADABLE


def _decoded_part(part: bytes | str, charset: str | None) -> str:
    if isinstance(part, str):
        return part
    try:
        return part.decode(charset or "latin-1", "replace")
    except LookupError:
        return part.decode("latin-1")


def _encoded_words(text: str, first: int = 0) -> list[str]:
    """RFC 2047 words of whole characters, the first one shorter by what stands before it on its line."""
    words: list[str] = []
    room = max(_ENCODED_BYTES - 3 * -(-first // 4), 12)
    chunk = b""
    for char in text:
        data = char.encode()
        if len(chunk) + len(data) > room:
            words.append(_encoded_word(chunk))
            chunk, room = b"", _ENCODED_BYTES
        chunk += data
    words.append(_encoded_word(chunk))
    return words


def _encoded_word(chunk: bytes) -> str:
    return f"=?utf-8?b?{base64.b64encode(chunk).decode('ascii')}?="


def _filled(start: str, words: Iterable[str]) -> str:
    """The words, each with its own leading white space, folded before the one that would pass the width."""
    lines = []
    line = start
    for word in words:
        if _last_line(line) + len(word.partition(EOL)[0]) > WIDTH and line != start:
            lines.append(line)
            line = ""
        line += word
    lines.append(line)
    return EOL.join(lines)


def _last_line(text: str) -> int:
    """Characters in the last line of a folded text."""
    return len(text) - text.rfind("\n") - 1


def _joined(name: str, items: Sequence[str], separator: str) -> str:
    line = f"{name}: " + f"{separator} ".join(items)
    if len(line) <= WIDTH:
        return line + EOL
    last = len(items) - 1
    words = (f" {item}{separator if number < last else ''}" for number, item in enumerate(items))
    return _filled(f"{name}:", words) + EOL
