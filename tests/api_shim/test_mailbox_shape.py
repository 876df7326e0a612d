"""The mailbox shape: addresses as text, two bodies, lower-case codes."""

from typing import Any
from uuid import UUID

import pytest

from api_shim.errors import CODES, ApiError
from api_shim.shapes import mailbox
from models.content import Address
from models.message import State
from tests.api_shim.test_shapes import INJECTIONS, MAILBOX, faults, parse, result


@pytest.mark.parametrize(
    ("to", "addresses"),
    [
        ("jane@example.com", [("jane@example.com", None)]),
        ("Jane Doe <jane@example.com>", [("jane@example.com", "Jane Doe")]),
        ('"Doe, \\"J\\"" <jane@example.com>', [("jane@example.com", 'Doe, "J"')]),
        ("jane@example.com (Jane)", [("jane@example.com", "Jane")]),
        ("<jane@example.com>", [("jane@example.com", None)]),
        ("Jörg <jörg@bücher.example>", [("jörg@xn--bcher-kva.example", "Jörg")]),
        ('"a,b"@example.com', [('"a,b"@example.com', None)]),
        ("a@x.test, Bob <b@x.test>", [("a@x.test", None), ("b@x.test", "Bob")]),
        (["a@x.test", "Bob <b@x.test>"], [("a@x.test", None), ("b@x.test", "Bob")]),
    ],
)
def test_b4_recipients_are_texts_in_rfc_5322(to: Any, addresses: list[tuple[str, str | None]]) -> None:
    assert parse(MAILBOX | {"to": to}).to == tuple(Address(*address) for address in addresses)


@pytest.mark.parametrize(
    "to",
    [
        "nobody", "Jane <jane>", "Jane <a@x.test", "a@x.test> Jane", "Jane <a@x.test> Doe", "a@x.test b@x.test",
        "<a@x.test> <b@x.test>", "Team: a@x.test, b@x.test;", '"Jane <a@x.test>', "(" * 1000 + "a@x.test", "a@x.test; b@x.test",
        "a" * 40_000 + "@x.test", "Doe, Jane <a@x.test>",
    ],
)  # fmt: skip
def test_b4_what_is_no_address_list_is_refused(to: str) -> None:
    assert set(faults(MAILBOX | {"to": to})) == {"to"}


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to"])
def test_s3_no_line_break_gets_into_an_address_field(field: str, injection: str) -> None:
    assert set(faults(MAILBOX | {field: f"x{injection} <a@x.test>"})) == {field}


def test_each_bad_entry_of_a_list_is_named_by_its_place() -> None:
    assert set(faults(MAILBOX | {"to": ["a@x.test", "b", 3, ""], "cc": [None, "c@x.test"]})) == {
        "to[1]", "to[2]", "to[3]", "cc[0]",
    }  # fmt: skip


def test_b5_to_b12_every_field_is_read() -> None:
    submission = parse(
        {
            "to": ["a@x.test"], "cc": ["c@x.test"], "bcc": "d@x.test", "subject": "s", "body_html": "<p>x</p>",
            "body_text": "x", "reply_to": "Desk <desk@x.test>", "mailer_id": str(UUID(int=1)), "thread_id": str(UUID(int=2)),
            "attachments": [
                {"filename": "a.txt", "mime_type": "Text/Plain", "content_base64": "eA=="},
                {"filename": "b.pdf", "mime_type": "application/pdf", "storage_path": "2026/b.pdf"},
            ],
        }
    )  # fmt: skip
    assert (submission.html, submission.text) == ("<p>x</p>", "x")
    assert submission.bcc == (Address("d@x.test"),)
    assert submission.reply_to == (Address("desk@x.test", "Desk"),)
    assert submission.mailer_id == UUID(int=1)
    assert submission.thread_id == UUID(int=2)
    assert [(file.data, file.storage_path) for file in submission.attachments] == [(b"x", None), (None, "2026/b.pdf")]
    assert submission.attachments[0].content_type == "text/plain"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "s3://x/y", "a/", "a\nb", "a" * 1025]
)
def test_b12_a_storage_path_stays_inside_the_store(path: str) -> None:
    body = MAILBOX | {"attachments": [{"filename": "a.txt", "mime_type": "text/plain", "storage_path": path}]}
    assert set(faults(body)) == {"attachments[0].storage_path"}


def test_b12_an_attachment_has_bytes_or_a_path_and_not_both() -> None:
    file = {"filename": "a.txt", "mime_type": "text/plain"}
    assert set(faults(MAILBOX | {"attachments": [file]})) == {"attachments[0].content_base64"}
    both = file | {"storage_path": "a", "content_base64": "eA=="}
    assert set(faults(MAILBOX | {"attachments": [both]})) == {"attachments[0].storage_path"}
    assert set(faults(MAILBOX | {"attachments": [file | {"content": "eA=="}]})) == {
        "attachments[0].content", "attachments[0].content_base64",
    }  # fmt: skip


def test_b12_a_blank_storage_path_is_as_good_as_none() -> None:
    file = {"filename": "a.txt", "mime_type": "text/plain", "storage_path": " "}
    assert set(faults(MAILBOX | {"attachments": [file]})) == {"attachments[0].content_base64"}
    submission = mailbox.parse(MAILBOX | {"attachments": [file | {"content_base64": "eA=="}]})
    assert [(kept.data, kept.storage_path) for kept in submission.attachments] == [(b"x", None)]
    submission = mailbox.parse(MAILBOX | {"attachments": [file | {"content_base64": "", "storage_path": "a"}]})
    assert [(kept.data, kept.storage_path) for kept in submission.attachments] == [(None, "a")]


def test_b14_missing_recipient_subject_and_body_are_told_at_once() -> None:
    assert set(faults({"body_text": ""})) == {"to", "subject", "body_html"}


def test_a_long_list_is_refused_before_it_is_read() -> None:
    assert set(faults(MAILBOX | {"to": ["x"] * 101})) == {"to"}


ERRORS = [
    ("VALIDATION_ERROR", 400, "validation_error"),
    ("UNAUTHORIZED", 401, "invalid_key"),
    ("FORBIDDEN", 403, "insufficient_permissions"),
    ("NOT_CONNECTED", 403, "insufficient_permissions"),
    ("IDEMPOTENCY_CONFLICT", 409, "idempotency_conflict"),
    ("RATE_LIMITED", 429, "rate_limited"),
    ("EMAIL_DELIVERY_FAILED", 502, "provider_error"),
]


@pytest.mark.parametrize(("name", "status", "code"), ERRORS)
def test_b14_to_b18_each_code_has_the_word_and_status_of_the_table(name: str, status: int, code: str) -> None:
    assert mailbox.render_error(ApiError(name, details={"a": 1})) == (
        status,
        {"error": {"code": code, "message": f"{CODES[name].sentence} {CODES[name].fix}", "details": {"a": 1}}},
    )


def test_a_lone_fault_is_the_message() -> None:
    with pytest.raises(ApiError) as caught:
        parse(MAILBOX | {"subject": ""})
    _, body = mailbox.render_error(caught.value)
    assert body["error"]["message"] == "subject is required; give the line the recipient sees."
    assert body["error"]["details"]["fields"] == [{"field": "subject", "message": body["error"]["message"]}]


def test_b18_an_outcome_is_200_202_422_or_502() -> None:
    assert mailbox.render(result(state=State.DELIVERED))[1]["status"] == "delivered"
    assert mailbox.render(result(log_failed=True))[0] == 200
    assert mailbox.render(result(state=State.UNCERTAIN))[0] == 202
    for permanent, status in ((True, 422), (False, 502)):
        answered, body = mailbox.render(result(state=State.FAILED, permanent=permanent, reason="no"))
        assert (answered, body["error"]["code"], body["error"]["details"]["reason"]) == (status, "provider_error", "no")
