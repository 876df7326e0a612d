from email import message_from_bytes, policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.content import Address
from tests.worker.samples import assert_wire_format
from worker.headers import (
    address_line,
    check_header,
    check_line,
    ids_line,
    is_mailbox,
    is_message_id,
    text_line,
    to_ascii_domain,
)

CONTROLS = ["\r\n", "\n", "\r", "\0", "\x0b", "\x1f", "\x7f", "\x80", "\x85", "\x9f", "\u2028", "\u2029"]
HIDDEN = [
    "=?utf-8?q?x=0D=0ABcc:_a=40evil.test?=",
    "=?utf-8?b?DQpCY2M6IGFAZXZpbC50ZXN0?=",
    "=?latin-1?q?=85?=",
    "=?utf-8?b?DQpCY2M6IGFAZXZpbC50ZXN0A?=",
]


def read(line: str, name: str) -> str:
    return str(message_from_bytes((line + "\r\n").encode(), policy=policy.default)[name])


@pytest.mark.parametrize("bad", [f"a{control}b" for control in CONTROLS] + HIDDEN)
def test_no_line_break_gets_into_a_line_or_a_header_value(bad: str) -> None:
    assert check_line(bad) is not None
    assert check_header("X-Own", bad) is not None


@pytest.mark.parametrize(
    "fine", ["Hello", "", "50% =? off ?=", "=?utf-8?q?caf=C3=A9?=", "=?unknown-8?q?x?=", "語 😀", "a" * 998]
)
def test_ordinary_lines_pass(fine: str) -> None:
    assert check_line(fine) is None
    assert check_header("X-Own", fine) is None


@pytest.mark.parametrize("name", ["", "a b", "a:b", "X-Own\r\nBcc", "X-Own\n", "Ünï", "x" * 77, "\x7f"])
def test_what_is_no_header_name_is_refused(name: str) -> None:
    assert check_header(name, "x") is not None


@pytest.mark.parametrize(
    "name",
    ["From", "TO", "cc", "bCC", "Sender", "Date", "Subject", "Reply-To", "Message-ID", "In-Reply-To", "References",
     "MIME-Version", "Content-Type", "content-anything", "DKIM-Signature", "Received", "Return-Path", "List-Unsubscribe",
     "List-Unsubscribe-Post", "X-Postroad-Ref", "Resent-To"],
)  # fmt: skip
def test_the_servers_own_headers_are_refused(name: str) -> None:
    assert check_header(name, "x") == "is written by the server and cannot be set"


@pytest.mark.parametrize(
    "name", ["X-Own", "List-Id", "Precedence", "Auto-Submitted", "Importance", "X-From", "Subject-Line"]
)
def test_other_headers_are_the_callers(name: str) -> None:
    assert check_header(name, "some value\twith a tab") is None


SUBJECTS = [
    "Hello", "Grüße", "報告" * 60, "word " * 100 + "end", "x" * 600, "x" * 998, "=?utf-8?q?not_decoded?=", "a  b   c", "😀" * 50,
    "ends with colon:", "語 mixed with long ASCII text, some of it plain and going on for more than one line of a mail",
]  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_reads_back_as_it_was(subject: str) -> None:
    line = text_line("Subject", subject)
    assert line.isascii()
    assert_wire_format(line.encode())
    assert read(line, "Subject") == subject.strip()


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs")), max_size=300))
def test_any_line_survives_the_header(subject: str) -> None:
    line = text_line("Subject", subject)
    assert_wire_format(line.encode())
    assert all(part.startswith((" ", "Subject:")) for part in line.split("\r\n")[:-1])
    assert read(line, "Subject") == subject.strip()


@pytest.mark.parametrize("subject", ["word " * 100, "Grüße " * 50, "報告" * 60])
def test_long_lines_are_folded_at_78(subject: str) -> None:
    assert_wire_format(text_line("Subject", subject).encode(), 78)


NAMES = [
    "Ann", "Ann Lee", "Lee, Ann", 'The "Boss"', "back\\slash", "O'Neil (HR)", "a@b", "Dr. X", "Jürgen Müller", "山田 太郎",
    "محمد", "x" * 100, "語" * 60, "=?utf-8?q?x?=", "<script>", "a;b:c", "  spaced  out ",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reads_back_as_it_was(name: str) -> None:
    line = address_line("To", [Address("ann@example.test", name), Address("bob@example.test")])
    assert_wire_format(line.encode(), 78)
    message = message_from_bytes((line + "\r\n").encode(), policy=policy.default)
    first, second = message["To"].addresses
    # Python 3.11 leaves the white space between two encoded words of a phrase; RFC 2047 section 6.2 says it is dropped
    seen = first.display_name.strip() if len(name) < 60 else first.display_name.replace(" ", "")
    assert (seen, first.addr_spec) == (name.strip(), "ann@example.test")
    assert (second.display_name, second.addr_spec) == ("", "bob@example.test")


def test_a_hundred_addresses_are_folded_between_them() -> None:
    people = [Address(f"person{n}@example.test", f"Person {n}") for n in range(100)]
    line = address_line("Cc", people)
    assert_wire_format(line.encode(), 78)
    message = message_from_bytes((line + "\r\n").encode(), policy=policy.default)
    assert [address.addr_spec for address in message["Cc"].addresses] == [person.email for person in people]


def test_long_ids_are_never_encoded_words() -> None:
    ids = [f"<{'A' * 150}{n}@mail.outlook.example>" for n in range(30)] + [f"<{'B' * 950}@x>", "<short@x>", "<also@x>"]
    line = ids_line("References", ids)
    assert "=?" not in line
    assert_wire_format(line.encode())
    assert line.removeprefix("References:").split() == ids


def test_an_international_domain_is_written_in_ascii() -> None:
    assert to_ascii_domain("ann@bücher.test") == "ann@xn--bcher-kva.test"
    assert to_ascii_domain("jürgen@bücher.test") == "jürgen@xn--bcher-kva.test"


@pytest.mark.parametrize(
    "email", ["a@b.test", "a.b+c@b.test", '"a b"@b.test', "jürgen@b.test", "a@bücher.test", "o'neil@b.test"]
)
def test_addresses_pass(email: str) -> None:
    assert is_mailbox(email)


@pytest.mark.parametrize(
    "email",
    ["", "a", "@b.test", "a@", "a b@c.test", "a@b.test\r\nBcc: x@y.test", "a@b.test>", "<a@b.test", "a@b.test, c@d.test",
     "a@b.test\n", "a\0@b.test", '"a"b"@c.test', '"a\r\n"@c.test', "a@b c.test", "a@\u2028.test", "x" * 320 + "@b.test", "a@b@c",
     "a;b@c.test", "group:a@b.test"],
)  # fmt: skip
def test_what_would_change_a_headers_meaning_is_no_address(email: str) -> None:
    assert not is_mailbox(email)


@pytest.mark.parametrize("text", ["", "a@b", "<>", "<a b@c>", "<a@b>\r\n", "<a@b><c@d>", "<é@b>", f"<{'a' * 990}@b>"])
def test_what_is_no_message_id_is_told(text: str) -> None:
    assert not is_message_id(text)


def test_a_message_id_may_be_long() -> None:
    assert is_message_id(f"<{'a' * 900}@b>")
