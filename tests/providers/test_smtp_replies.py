"""The table of replies."""

import pytest

from providers import smtp_replies
from providers.base import Result
from providers.smtp_wire import Reply


@pytest.mark.parametrize(
    ("code", "text", "result"),
    [
        (421, "4.7.0 try again later", Result.THROTTLED),
        (432, "4.3.2 concurrent connections", Result.THROTTLED),
        (450, "4.2.1 receiving too fast", Result.THROTTLED),
        (450, "4.7.1 greylisted", Result.THROTTLED),
        (451, "4.7.650 rate limited", Result.THROTTLED),
        (452, "4.5.3 too many recipients", Result.THROTTLED),
        (450, "4.2.0 mailbox busy", Result.TRANSIENT),
        (450, "later", Result.TRANSIENT),
        (451, "4.3.0 local error", Result.TRANSIENT),
        (452, "4.2.2 mailbox full", Result.TRANSIENT),
        (452, "4.3.1 no space", Result.TRANSIENT),
        (454, "4.7.0 no TLS now", Result.TRANSIENT),
        (501, "syntax", Result.PERMANENT),
        (530, "5.7.0 log in", Result.CREDENTIALS),
        (534, "5.7.9 app password", Result.CREDENTIALS),
        (535, "5.7.8 bad", Result.CREDENTIALS),
        (538, "5.7.11 encrypt", Result.CREDENTIALS),
        (535, "5.7.139 SMTP AUTH disabled", Result.CREDENTIALS),
        (550, "5.7.30 basic auth", Result.CREDENTIALS),
        (550, "5.1.1 unknown", Result.PERMANENT),
        (550, "5.4.5 daily limit", Result.THROTTLED),
        (550, "5.1.90 too many", Result.THROTTLED),
        (554, "5.2.0 SubmissionQuotaExceeded", Result.THROTTLED),
        (550, "5.2.0 mailbox refuses", Result.PERMANENT),
        (550, "5.2.01 no status code", Result.PERMANENT),
        (550, "5.7.1 policy", Result.PERMANENT),
        (552, "5.2.2 over quota", Result.PERMANENT),
        (552, "5.3.4 size", Result.PERMANENT),
        (554, "5.2.252 SendAsDenied", Result.PERMANENT),
    ],
)
def test_a_reply_means(code: int, text: str, result: Result) -> None:
    assert smtp_replies.refusal(Reply(code, text.encode())).result is result


@pytest.mark.parametrize(
    ("code", "text", "result"),
    [
        (450, "4.2.1 receiving too fast", Result.TRANSIENT),
        (451, "4.7.1 greylisted", Result.TRANSIENT),
        (451, "4.7.500 server busy", Result.THROTTLED),
        (452, "4.5.3 too many recipients", Result.THROTTLED),
        (432, "4.7.0 concurrent connections", Result.THROTTLED),
        (550, "5.4.5 daily limit", Result.THROTTLED),
        (550, "5.1.1 unknown", Result.PERMANENT),
    ],
)
def test_of_a_recipient_it_means(code: int, text: str, result: Result) -> None:
    assert smtp_replies.recipient_refusal(Reply(code, text.encode())).result is result


def test_a_quota_is_looked_at_again_in_an_hour() -> None:
    assert smtp_replies.refusal(Reply(550, b"5.4.5 daily limit")).retry_after == 3600


def test_the_code_names_the_enhanced_status_where_there_is_one() -> None:
    codes = [smtp_replies.refusal(Reply(550, text)).code for text in (b"5.1.1 unknown", b"unknown", b"5.1.1")]
    assert codes == ["550 5.1.1", "550", "550 5.1.1"]


def test_a_long_answer_is_cut_and_odd_bytes_do_no_harm() -> None:
    outcome = smtp_replies.refusal(Reply(550, b"5.1.1 one\n5.1.1 \xff" + b"x" * 1000))
    assert len(outcome.detail) <= 500
    assert outcome.detail.startswith("5.1.1 one 5.1.1 ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2.0.0 Ok: queued as 4F12AB", "4F12AB"),
        ("Queued as <x>", None),
        ("2.0.0 OK: queued as a-b.c.", "a-b.c"),
        ("OK", None),
    ],
)
def test_the_queue_id_is_read_from_the_words_of_acceptance(text: str, found: str | None) -> None:
    assert smtp_replies.acceptance(Reply(250, text.encode()), {}).provider_message_id == found
