"""No mail of ours has a form that filters hold against it, and each of their checks can find its fault."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.content import Address, Content, SendSettings
from tests.worker.golden_mails import MAILS, mjml, newsletter
from tests.worker.samples import EVERYTHING, attached, compiled, content, letter, stored
from tests.worker.spam_checks import CHECKS, Mail, faults

PLAIN = b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'


def _authors_own(mail: Content) -> set[str]:
    """Who writes both versions decides what they say."""
    return {"MPART_ALT_DIFF"} if mail.html and mail.text else set()


@pytest.mark.parametrize("name", MAILS)
def test_no_golden_mail_has_a_fault_of_form(name: str) -> None:
    mail = MAILS[name]()
    assert faults(Mail(mail.raw, smtputf8=name == "eai")) - _authors_own(mail.content) == set()


LINE = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")) | st.sampled_from("  \"'=?é語😀"), max_size=120
)
BODY = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]) | st.sampled_from("\n\r\0.=- é語😀"), max_size=400
)
WORDS = BODY.map(lambda text: f"word {text}")
NAMES = LINE | st.lists(st.text("abc ", max_size=30), max_size=9).map(" ".join)
EMAIL = st.from_regex(r"[a-z0-9][a-z0-9.+_-]{0,50}[a-z0-9]@([a-z0-9]{1,20}\.){1,5}test", fullmatch=True).filter(
    lambda email: ".." not in email
)
PEOPLE = st.builds(Address, EMAIL, st.none() | NAMES)
IDS = st.from_regex(r"<[A-Za-z0-9.$+/=_-]{1,200}@[a-z0-9.-]{1,60}>", fullmatch=True)
HEADERS = st.dictionaries(
    st.from_regex(r"X-[A-Z][a-z]{1,20}", fullmatch=True), LINE.filter(lambda line: bool(line.strip())), max_size=3
)
FILES = st.lists(st.tuples(st.binary(max_size=300), LINE.filter(lambda name: bool(name.strip()))), max_size=3)


@settings(max_examples=90, deadline=None)
@given(
    subject=LINE, html=st.none() | WORDS.map(lambda text: f"<p>{text}</p>"), text=st.none() | WORDS, sender=PEOPLE, to=PEOPLE,
    reply_to=st.lists(PEOPLE, max_size=3), references=st.lists(IDS, max_size=9), headers=HEADERS, files=FILES, value=LINE,
    switches=st.sampled_from([EVERYTHING, SendSettings(), SendSettings(unsubscribe=True, list_id="news")]),
)  # fmt: skip
def test_no_mail_at_all_has_a_fault_of_form(
    subject: str, html: str | None, text: str | None, sender: Address, to: Address, reply_to: list[Address],
    references: list[str], headers: dict[str, str], files: list[tuple[bytes, str]], value: str, switches: SendSettings,
) -> None:  # fmt: skip
    mail = content(
        sender=sender,
        subject=f"{{{{name}}}} {subject}",
        html=html,
        text=text if html or text else "word",
        reply_to=tuple(reply_to),
        references=tuple(references),
        in_reply_to=references[-1] if references else None,
        headers=headers,
        attachments=tuple(attached(data, name, "application/pdf") for data, name in files),
        settings=switches,
    )
    values = dict.fromkeys(re.findall(r"\{\{ *([A-Za-z_][\w.-]*) *\}\}", f"{subject}{html}{text}"), value) | {
        "name": value
    }
    note = letter(values, to=to, recipients=(to.email,))
    raw = compiled(mail, files=stored(*(data for data, _ in files))).email(note).mime
    assert raw is not None
    assert faults(Mail(raw)) - _authors_own(mail) == set()


def _swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def swap(raw: bytes) -> bytes:
        assert old in raw
        return raw.replace(old, new, 1)

    return swap


def _without(name: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: re.sub(rb"(?m)^" + name + rb":.*\r\n(?:[ \t].*\r\n)*", b"", raw, count=1)


def _with(header: bytes) -> Callable[[bytes], bytes]:
    return _swap(b"MIME-Version: 1.0\r\n", b"MIME-Version: 1.0\r\n" + header + b"\r\n")


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "MISSING_DATE": _without(b"Date"),
    "INVALID_DATE": _swap(b"Date: Sat, ", b"Date: "),
    "DATE_IN_PAST_OR_FUTURE": _swap(b" 2026 ", b" 2025 "),
    "MISSING_MID": _without(b"Message-ID"),
    "INVALID_MSGID": _swap(b"@demo.test>\r\nX-Postroad", b">\r\nX-Postroad"),
    "MISSING_FROM": _without(b"From"),
    "FROM_NO_ADDRESS": _swap(b" <news@demo.test>", b""),
    "MISSING_HEADERS": _without(b"To"),
    "MISSING_SUBJECT": _without(b"Subject"),
    "MISSING_MIME_VERSION": _without(b"MIME-Version"),
    "MISSING_MIMEOLE": _with(b"X-MSMail-Priority: High"),
    "DUPLICATE_HEADERS": _with(b"Subject: again"),
    "HEAD_ILLEGAL_CHARS": _with("X-Raw: é".encode()),
    "SUBJ_EXCESS_BASE64, FROM_EXCESS_BASE64": _swap(b"Subject: Ann", b"Subject: =?utf-8?b?QW5u?="),
    "FOLDABLE_HEADER_LINE": _with(b"X-Words:" + b" word" * 20),
    "BLANK_HEADER_LINE": _with(b"X-Words:\r\n \r\n word"),
    "LINE_OVER_998": _with(b"X-Long: " + b"x" * 999),
    "BARE_LF": _with(b"X-Bare: a\n b"),
    "BARE_CR": _with(b"X-Bare: a\rb"),
    "NUL": _with(b"X-Null: \0"),
    "MIME_QP_LONG_LINE": _swap(PLAIN, PLAIN + b"x" * 80 + b"\r\n"),
    "MIME_BASE64_BLANKS": _swap(PLAIN, PLAIN.replace(b"quoted-printable", b"base64") + b"QUFB\r\n\r\n"),
    "BASE64_LENGTH_79_INF": _swap(PLAIN, PLAIN.replace(b"quoted-printable", b"base64") + b"QUFB" * 30 + b"\r\n"),
    "PP_MIME_FAKE_ASCII_TEXT": _swap(PLAIN, PLAIN.replace(b"quoted-printable", b"7bit") + "é\r\n".encode()),
    "MIME_HTML_ONLY": lambda raw: re.sub(rb"(?s)(quoted-printable\r\n\r\n).*?(\r\n--=)", rb"\1\2", raw, count=1),
    "MPART_ALT_DIFF": lambda raw: re.sub(rb"(?s)(quoted-printable\r\n\r\n).*?(\r\n--=)", rb"\1Buy this\r\n\2", raw, count=1),
    "MIME_BOUND_DIGITS": lambda raw: re.sub(rb"=_[0-9a-f]{32}", b"--12345", raw),
    "EMPTY_MESSAGE": lambda raw: re.sub(rb"(?s)(quoted-printable\r\n\r\n).*?(\r\n--=)", rb"\1\2", raw),
    "ONE_CLICK": _swap(b"List-Unsubscribe: <https:", b"List-Unsubscribe: <http:"),
}  # fmt: skip


def test_every_check_has_a_mail_that_it_finds() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_its_fault(name: str) -> None:
    good = (mjml() if name == "MPART_ALT_DIFF" else newsletter()).raw
    assert not CHECKS[name](Mail(good))
    assert CHECKS[name](Mail(BROKEN[name](good)))
