"""What filters hold against a mail's form, as SpamAssassin 4 names it where it has a name. Contents are the author's."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cached_property

from tests.worker.samples import DATE

_ONCE = (
    "from", "to", "cc", "reply-to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding", "list-id", "list-unsubscribe", "list-unsubscribe-post",
)  # fmt: skip
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
    r" \d\d:\d\d:\d\d [+-]\d{4}"
)
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bq]\?[^?\s]*\?=", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Mail:
    raw: bytes
    smtputf8: bool = False
    """Headers may hold UTF-8 (RFC 6532)."""
    now: datetime = DATE

    @cached_property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @cached_property
    def head_lines(self) -> list[str]:
        return self.head.decode("utf-8", "replace").split("\r\n")

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case and values, unfolded, as they stand on the wire."""
        unfolded = "\n".join(self.head_lines).replace("\n ", " ").replace("\n\t", "\t")
        return [
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in unfolded.split("\n"))
        ]

    def header(self, name: str) -> str:
        return dict(self.headers).get(name, "")

    @cached_property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message

    def text(self, subtype: str) -> str:
        part = self.message.get_body((subtype,))
        return "" if part is None else str(part.get_content())

    def bodies(self, encoding: str) -> list[list[str]]:
        """The lines of the parts in a transfer encoding, as they travel."""
        parts = (part for part in self.message.walk() if not part.is_multipart())
        return [
            str(part.get_payload()).splitlines()
            for part in parts
            if str(part.get("Content-Transfer-Encoding", "7bit")).lower() == encoding
        ]


def _far_from_now(mail: Mail) -> bool:
    return bool(abs(mail.message["Date"].datetime - mail.now) > timedelta(days=1))


def _doubled(mail: Mail) -> bool:
    counts = Counter(name for name, _ in mail.headers)
    return any(counts[name] > 1 for name in _ONCE)


def _illegal_octets(mail: Mail) -> bool:
    return not mail.head.isascii() and not mail.smtputf8


def _needlessly_encoded(mail: Mail) -> bool:
    """An encoded word of plain ASCII that a header could hold as it is."""
    for name in ("subject", "from", "to", "reply-to"):
        shown = str(mail.message[name] or "")
        plain = shown.isascii() and "=?" not in shown and max(map(len, shown.split()), default=0) <= 60
        if plain and _ENCODED_WORD.search(mail.header(name)):
            return True
    return False


def _foldable(line: str) -> bool:
    """Longer than 78 though there is a place to fold: white space behind the first word of the line's content."""
    content = re.sub(r"^[!-9;-~]+:", "", line).strip()
    return len(line) > 78 and bool(re.search(r"\s", content))


def _alternatives_differ(mail: Mail) -> bool:
    """Half the words of the html are missing in the text."""
    html = re.sub(r"<(style|title|script).*?</\1>|<!--.*?-->|<[^>]*>|&\w+;", " ", mail.text("html"), flags=re.DOTALL)
    words = set(_WORD.findall(html))
    return bool(mail.text("plain")) and len(words & set(_WORD.findall(mail.text("plain")))) * 2 < len(words)


def _html_alone(mail: Mail) -> bool:
    return bool(mail.text("html")) and not mail.text("plain").strip()


def _one_click_is_broken(mail: Mail) -> bool:
    """RFC 8058: both headers or neither, an https address among them."""
    post, link = mail.header("list-unsubscribe-post"), mail.header("list-unsubscribe")
    return bool(post) and (post != "List-Unsubscribe=One-Click" or not re.match(r"<https://[^<>\s]+>", link))


CHECKS: Mapping[str, Callable[[Mail], object]] = {
    "MISSING_DATE": lambda mail: not mail.header("date"),
    "INVALID_DATE": lambda mail: not _DATE.fullmatch(mail.header("date")),
    "DATE_IN_PAST_OR_FUTURE": _far_from_now,
    "MISSING_MID": lambda mail: not mail.header("message-id"),
    "INVALID_MSGID": lambda mail: not re.fullmatch(r"<[^<>\s@]{10,}@[^<>\s@]+\.[^<>\s@]+>", mail.header("message-id")),
    "MISSING_FROM": lambda mail: not mail.header("from"),
    "FROM_NO_ADDRESS": lambda mail: not re.search(r"[^\s<>]+@[^\s<>]+", mail.header("from")),
    "MISSING_HEADERS": lambda mail: not mail.header("to"),
    "MISSING_SUBJECT": lambda mail: "subject" not in dict(mail.headers),
    "MISSING_MIME_VERSION": lambda mail: mail.header("mime-version") != "1.0",
    "MISSING_MIMEOLE": lambda mail: mail.header("x-msmail-priority") and not mail.header("x-mimeole"),
    "DUPLICATE_HEADERS": _doubled,
    "HEAD_ILLEGAL_CHARS": _illegal_octets,
    "SUBJ_EXCESS_BASE64, FROM_EXCESS_BASE64": _needlessly_encoded,
    "FOLDABLE_HEADER_LINE": lambda mail: any(map(_foldable, mail.head_lines)),
    "BLANK_HEADER_LINE": lambda mail: any(not line.strip() for line in mail.head_lines),
    "LINE_OVER_998": lambda mail: max(map(len, mail.raw.split(b"\r\n"))) > 998,
    "BARE_LF": lambda mail: b"\n" in mail.raw.replace(b"\r\n", b""),
    "BARE_CR": lambda mail: b"\r" in mail.raw.replace(b"\r\n", b""),
    "NUL": lambda mail: b"\0" in mail.raw,
    "MIME_QP_LONG_LINE": lambda mail: any(len(line) > 76 for body in mail.bodies("quoted-printable") for line in body),
    "MIME_BASE64_BLANKS": lambda mail: any("" in body[:-1] for body in mail.bodies("base64")),
    "BASE64_LENGTH_79_INF": lambda mail: any(len(line) > 76 for body in mail.bodies("base64") for line in body),
    "PP_MIME_FAKE_ASCII_TEXT": lambda mail: not all(line.isascii() for body in mail.bodies("7bit") for line in body),
    "MIME_HTML_ONLY": _html_alone,
    "MPART_ALT_DIFF": _alternatives_differ,
    "MIME_BOUND_DIGITS": lambda mail: re.match(r"-*[\d.]+$|-{4}=_NextPart", mail.message.get_boundary() or ""),
    "EMPTY_MESSAGE": lambda mail: not (mail.text("plain") + mail.text("html")).strip(),
    "ONE_CLICK": _one_click_is_broken,
}
"""Name of the fault -> whether a mail has it."""


def faults(mail: Mail) -> set[str]:
    return {name for name, check in CHECKS.items() if check(mail)}
