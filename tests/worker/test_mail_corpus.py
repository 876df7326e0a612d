"""Bounces, delays, complaints and automatic answers as real servers write them, and what each of them means.

The mails lie in ``mails/``, made after the RFCs and the documented forms of each system. All are about one mail of ours.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import ProviderEvent
from worker.inbound_mail import InboundMail, read_inbound
from worker.mail_tree import read_mail
from worker.notice import is_hard
from worker.return_path import Kind, ReturnPaths
from worker.returned import Returned, read_returned

MAILS = Path(__file__).with_name("mails")
OURS = UUID("0198f2d0-0000-7000-8000-000000000001")
PATHS = ReturnPaths(["a secret of the tests"])

HARD = "bounced hard"
SOFT = "bounced soft"

REPORTS: dict[str, tuple[str, ...]] = {
    "postfix-user-unknown": (f"{HARD} ann@example.com 5.1.1",),
    "postfix-delayed": ("deferred ann@example.com 4.4.1",),
    "postfix-expired": (f"{SOFT} ann@example.com 4.4.1",),
    "postfix-host-not-found": (f"{HARD} ann@example.com 5.4.4",),
    "postfix-several": (
        f"{HARD} ann@example.com 5.1.1", f"{SOFT} bob@example.com 5.2.2", "deferred eve@example.com 4.2.0",
    ),
    "groups-not-separated": (f"{HARD} ann@example.com 5.1.1", f"{SOFT} bob@example.com 5.7.1"),
    "mailbox-full": (f"{SOFT} ann@example.com 5.2.2",),
    "blocked-as-spam": (f"{SOFT} ann@example.com 5.7.1",),
    "generic-status": (f"{HARD} ann@example.com 5.1.1",),
    "generic-status-words-only": (f"{HARD} ann@example.com 5.0.0",),
    "no-action": (f"{HARD} ann@example.com 5.1.10",),
    "no-status": (f"{HARD} ann@example.com 5.1.1",),
    "exchange-online": (f"{HARD} ann@example.com 5.1.10",),
    "exchange-quota": (f"{SOFT} ann@example.com 5.2.2",),
    "gmail": (f"{HARD} ann@example.com 5.1.1",),
    "gmail-delay": ("deferred ann@example.com 4.4.1",),
    "sendmail": (f"{HARD} ann@example.com 5.1.1",),
    "success": ("delivered ann@example.com 2.1.5",),
    "utf8": (f"{HARD} jörg@example.com 5.1.1",),
    "xtext": (f"{HARD} ann+news@example.com 5.2.1",),
    "forwarded-on": (f"{HARD} ann.private@elsewhere.example 5.1.1",),
    "encoded-status": (f"{HARD} ann@example.com 5.1.1",),
    "mixed-not-report": (f"{HARD} ann@example.com 5.1.1",),
    "outlook-nested": (f"{HARD} ann@example.com 5.1.1",),
    "exim-failed": (f"{HARD} ann@example.com 5.1.1",),
    "exim-delayed": ("deferred ann@example.com",),
    "exim-unrouteable": (f"{HARD} ann@example.com", f"{SOFT} bob@example.com"),
    "qmail": (f"{HARD} ann@example.com 5.1.1",),
    "qmail-no-code": (f"{HARD} ann@example.com 5.1.1",),
    "yahoo": (f"{HARD} ann@example.com 5.0.0",),
    "exchange-2003": (f"{HARD} ann@example.com 5.1.1",),
    "gmail-old": (f"{HARD} ann@example.com 5.1.1",),
    "sendmail-old": (f"{HARD} ann@example.com 5.0.0",),
    "german-prose": (f"{HARD} ann@example.com 5.1.1",),
    "html-only": (f"{HARD} ann@example.com 5.1.1",),
    "null-sender-noreply": (f"{HARD} ann@example.com 5.1.1",),
    "no-copy-at-all": (f"{HARD} ann@example.com 5.1.1",),
    "cut-off": (f"{HARD} ann@example.com 5.1.1",),
    "arf-abuse": ("complained ann@example.com",),
    "arf-no-recipient": ("complained",),
    "arf-fraud": ("complained ann@example.com",),
    "arf-two-recipients": ("complained ann@example.com", "complained bob@example.com"),
    "arf-opt-out": ("unsubscribed ann@example.com",),
    "arf-mixed": ("complained ann@example.com",),
    "arf-hotmail": ("complained ann@example.com",),
}  # fmt: skip
"""Mail -> what it says of whom."""

NAMELESS = frozenset({"no-copy-at-all", "cut-off", "exim-delayed"})
"""Those that do not tell a Message-ID of ours: their mail is found by recipient and subject, or by its return path."""

WRITTEN: dict[str, bool] = {
    "relayed": True,
    "arf-not-spam": True,
    "arf-auth-failure": True,
    "auto-rfc3834": True,
    "auto-precedence": True,
    "auto-x-autoreply": True,
    "auto-exchange": True,
    "auto-exchange-subject": True,
    "auto-french": True,
    "auto-japanese": True,
    "auto-ticket": True,
    "person": False,
    "person-about-absence": False,
    "person-through-exchange": False,
    "person-answers-note": False,
    "person-forwards-bounce": False,
}
"""Mail that reports nothing of ours -> whether a machine wrote it."""


def _raw(name: str) -> bytes:
    return (MAILS / f"{name}.eml").read_bytes()


def _returned(raw: bytes, recipient: str | None = None) -> Returned | None:
    return read_returned(read_mail(raw), PATHS, None, recipient)


def _received(raw: bytes) -> InboundMail | None:
    event = ProviderEvent(type="received", at=datetime.now(UTC), natural_key="k", data={"raw": raw})
    return read_inbound(event)


def test_the_corpus_and_the_tables_name_the_same_mails() -> None:
    assert {path.stem for path in MAILS.glob("*.eml")} == REPORTS.keys() | WRITTEN.keys()


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_says_what_happened_to_whom(name: str) -> None:
    found = _returned(_raw(name))
    assert found is not None
    said = tuple(
        " ".join(
            filter(None, (notice.type, notice.bounce_class, *_best(notice.recipients, REPORTS[name]), notice.status))
        )
        for notice in found.notices
    )
    # Prose may name more addresses; who is a recipient is known later.
    assert set(REPORTS[name]) <= set(said)
    assert (OURS in found.message_ids) is (name not in NAMELESS)


def _best(spellings: tuple[str, ...], expected: tuple[str, ...]) -> tuple[str, ...]:
    """The spelling that is expected, else the first."""
    wanted = {word for line in expected for word in line.split() if "@" in word}
    return tuple(spelling for spelling in spellings if spelling in wanted)[:1] or spellings[:1]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_mail_that_reports_nothing_of_ours_is_a_mail_and_its_writer_is_told_apart(name: str) -> None:
    assert not _returned(_raw(name))
    mail = _received(_raw(name))
    assert mail is not None
    assert mail.automatic is WRITTEN[name]


def test_the_return_path_leads_to_the_mail_where_nothing_else_does() -> None:
    for name in NAMELESS:
        found = _returned(_raw(name), PATHS.address(Kind.BOUNCE, OURS, "bounce.demo.test"))
        assert found is not None
        assert found.message_ids == (OURS,)


def test_a_complaint_knows_the_mail_by_the_return_path_it_quotes() -> None:
    address = PATHS.address(Kind.BOUNCE, OURS, "bounce.demo.test")
    raw = _raw("arf-abuse").replace(b"<hello@demo.test>", f"<{address}>".encode()).replace(b"postroad", b"x")
    found = _returned(raw)
    assert found is not None
    assert found.message_ids == (OURS,)


@pytest.mark.parametrize(
    ("status", "reason", "hard"),
    [
        ("5.1.1", "", True),
        ("5.1.2", "", True),
        ("5.2.1", "", True),
        ("5.2.2", "", False),
        ("5.3.4", "message too big", False),
        ("5.4.1", "", False),
        ("5.4.1", "Recipient address rejected: Access denied", True),  # Exchange Online, of who is not in its directory
        ("5.4.4", "", True),
        ("5.6.0", "", False),
        ("5.7.1", "relaying denied", False),
        ("5.7.1", "unknown recipient", True),
        ("4.4.7", "message expired", False),
        (None, "550 user unknown", True),
        (None, "550 mailbox full", False),
        ("5.0.0", "5.1.1 nobody", True),
        ("5.0.0", "user unknown, blocked as spam", False),
    ],
)
def test_only_an_address_that_is_no_good_is_a_hard_bounce(status: str | None, reason: str, hard: bool) -> None:
    assert is_hard(status, reason) is hard


def _mutated(raw: bytes, random: Random) -> bytes:
    """A mail with pieces cut out, doubled, swapped with noise."""
    data = bytearray(raw)
    for _ in range(random.randrange(1, 8)):
        at, length = random.randrange(len(data) + 1), random.randrange(80)
        match random.randrange(5):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = data[at : at + length] * random.randrange(1, 30)
            case 2:
                data[at : at + length] = random.randbytes(length)
            case 3:
                data[at:at] = random.choice(
                    (b"\r\n\r\n", b"\0", b"\xed\xa0\x80", b"=?utf-8?q?=ZZ?=", b"--=_b", b"(((", b"<<")
                )
            case _:
                data[at:at] = random.choice((b"\r\nContent-Type: message/rfc822\r\n\r\n", b"\r\n--=_b\r\n")) * length
    return bytes(data)


@settings(max_examples=300)
@given(st.sampled_from(sorted(REPORTS | WRITTEN)), st.randoms(use_true_random=False))
def test_a_damaged_mail_is_read_as_far_as_it_goes_within_a_second(name: str, random: Random) -> None:
    raw = _mutated(_raw(name), random)
    started = time.thread_time()
    _returned(raw)
    mail = _received(raw)
    assert time.thread_time() - started < 1.0
    if mail is not None:
        for text in (mail.subject, mail.text or "", mail.html or "", mail.rfc_message_id, mail.from_email):
            assert "\0" not in text
            text.encode()


def _bombs() -> Iterator[tuple[str, bytes]]:
    head = b"From: MAILER-DAEMON@x.test\r\nSubject: Undeliverable\r\nContent-Type: multipart/report; boundary=b\r\n\r\n"
    part = b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    yield "10,000 parts inside each other", head + part * 10_000
    yield (
        "10,000 attached mails inside each other",
        head + b"--b\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    )
    yield "a million parts", head + b"--b\r\n" * 1_000_000
    yield "a million headers", b"From: a@x.test\r\n" + b"X: y\r\n" * 1_000_000
    yield "a header of a megabyte", b"From: a@x.test\r\nTo: " + b"(" * 1_000_000
    yield (
        "a status of a megabyte",
        (head + b"--b\r\nContent-Type: message/delivery-status\r\n\r\n" + b"Final-Recipient: a@x.test\r\n" * 40_000),
    )
    yield "a prose of a megabyte", head.replace(b"multipart/report", b"text/plain") + b"a@x.test delayed\r\n" * 60_000
    yield "addresses without end", head.replace(b"multipart/report", b"text/plain") + b"a.a@" * 250_000
    encoded = b"\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    yield "base64 of ten megabytes", head + b"--b" + encoded + b"QUJD" * 2_500_000
    yield "encoded words", b"From: a@x.test\r\nSubject: " + b"=?utf-8?q?" * 100_000 + b"\r\n\r\n"
    yield "subject of reply marks", b"From: a@x.test\r\nSubject: " + b"Re: " * 100_000 + b"\r\n\r\n"


BOMBS = dict(_bombs())


@pytest.mark.parametrize("name", BOMBS)
def test_a_mail_made_to_be_slow_costs_less_than_a_second(name: str) -> None:
    raw = BOMBS[name]
    started = time.thread_time()
    _returned(raw)
    mail = _received(raw)
    assert mail is None or mail.answers is not None
    assert mail is None or mail.topic is None or mail.topic
    assert time.thread_time() - started < 1.0, name
