"""The crm shape: the documented requests and answers, to the letter where they are documented so."""

import base64
from typing import Any
from uuid import UUID

import pytest

from api_shim.errors import ApiError, Fault, Missing
from api_shim.shapes import crm
from api_shim.submission import Shape
from models.content import Address
from models.message import State
from tests.api_shim.test_shapes import CRM, INJECTIONS, faults, parse, result

USER = "0190f3c5-0000-7000-8000-0000000000aa"
DOCUMENTED: dict[str, Any] = {
    "to_email": "client@example.com",
    "to_name": "Jane Doe",
    "subject": "Your CRM Setup Report",
    "html_body": "<h1>Hello!</h1><p>See attached report.</p>",
    "mode": "personal",
    "sender_user_id": USER,
    "attachments": [{"filename": "report.pdf", "mime_type": "application/pdf", "content": "JVBERi0xLjQg"}],
}


def test_a9_to_a25_the_documented_request_is_read_whole() -> None:
    submission = parse(DOCUMENTED)
    assert submission.shape is Shape.CRM
    assert submission.to == (Address("client@example.com", "Jane Doe"),)
    assert submission.subject == "Your CRM Setup Report"
    assert submission.html == "<h1>Hello!</h1><p>See attached report.</p>"
    assert submission.text is None
    assert submission.personal
    assert submission.sender_user_id == UUID(USER)
    assert not submission.individual
    (attachment,) = submission.attachments
    assert (attachment.filename, attachment.content_type, attachment.data) == (
        "report.pdf",
        "application/pdf",
        b"%PDF-1.4 ",
    )
    assert attachment.field == "attachments[0]"


def test_a9_a10_to_email_is_one_address_and_may_bring_its_name() -> None:
    assert parse(CRM | {"to_email": '"Doe, Jane" <jane@example.com>'}).to == (Address("jane@example.com", "Doe, Jane"),)
    assert parse(CRM | {"to_email": "Jane <j@x.test>", "to_name": "J. Doe"}).to == (Address("j@x.test", "J. Doe"),)
    assert "holds 2 addresses" in faults(CRM | {"to_email": "a@x.test, b@x.test"})["to_email"]
    assert set(faults(CRM | {"to_email": "nobody"})) == {"to_email"}


def test_a9_a11_a12_everything_missing_is_told_at_once() -> None:
    assert set(faults({"to_email": "", "cc": "x", "mode": 3, "priority": 9, "contact_id": "?"})) == {
        "to_email", "subject", "html_body", "cc", "mode", "priority", "contact_id",
    }  # fmt: skip


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("field", ["to_name", "to_email", "cc"])
def test_s3_no_line_break_gets_into_names_and_addresses(field: str, injection: str) -> None:
    value = f"x{injection}" if field == "to_name" else f"x{injection} <a@x.test>"
    assert set(faults(CRM | {field: value})) == {field}


def test_a15_an_alias_is_for_personal_mode_only() -> None:
    personal = CRM | {"mode": "personal", "sender_user_id": USER, "from_email": "Sales@Example.com"}
    assert parse(personal).from_alias == "Sales@example.com"
    assert set(faults(CRM | {"from_email": "sales@example.com"})) == {"from_email"}


def test_a23_cc_is_one_comma_separated_text() -> None:
    submission = parse(CRM | {"cc": 'alice@example.com, "Bob, B." <bob@example.com>,'})
    assert submission.cc == (Address("alice@example.com"), Address("bob@example.com", "Bob, B."))
    found = faults(CRM | {"cc": "alice@example.com, bob, carol@"})
    assert "carol@" in found["cc"]
    assert set(faults(CRM | {"cc": ["alice@example.com"]})) == {"cc"}


def test_who_is_in_to_and_cc_gets_one_copy() -> None:
    assert parse(CRM | {"cc": "CLIENT@example.com, a@x.test, A@x.test"}).cc == (Address("a@x.test"),)


def test_one_message_takes_a_hundred_recipients_and_not_one_more() -> None:
    hundred = ", ".join(f"u{number}@x.test" for number in range(99))
    assert len(parse(CRM | {"cc": hundred}).cc) == 99
    assert "101 recipients" in faults(CRM | {"cc": f"{hundred}, last@x.test"})["to"]


def test_a24_the_email_config_is_named_by_its_id() -> None:
    assert parse(CRM | {"email_config_id": USER}).email_config_id == UUID(USER)
    assert set(faults(CRM | {"email_config_id": "default"})) == {"email_config_id"}


def attached(**changes: Any) -> dict[str, Any]:
    return CRM | {"attachments": [{"filename": "a.txt", "mime_type": "text/plain", "content": "eA=="} | changes]}


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "..", "a\r\nb", "a\x00b", "a\u202etxt.exe", "a" * 256, "a\u2028b", " "]
)
def test_s3_a_filename_is_a_name_and_nothing_more(name: str) -> None:
    assert set(faults(attached(filename=name))) == {"attachments[0].filename"}


@pytest.mark.parametrize("data", ["eA", "eA==!", "e-_=", "data:text/plain;base64,eA==", "é", "====", "", 7])
def test_a25_content_is_strict_base64(data: Any) -> None:
    assert set(faults(attached(content=data))) == {"attachments[0].content"}


def test_a25_base64_may_be_broken_into_lines() -> None:
    (attachment,) = parse(attached(content="aGVs\r\nbG8=\n")).attachments
    assert attachment.data == b"hello"


@pytest.mark.parametrize("kind", ["application/x-msdownload", "text", "text/plain\r\nX: y", "", 7])
def test_c11_only_listed_types_may_be_attached(kind: Any) -> None:
    assert set(faults(attached(mime_type=kind))) == {"attachments[0].mime_type"}


def test_a25_attachments_total_25_megabytes_and_not_one_byte_more() -> None:
    limit = 25 * 1024 * 1024
    full = base64.b64encode(bytes(limit - 1)).decode()
    (attachment,) = parse(attached(content=full)).attachments
    assert len(attachment.data or b"") == limit - 1
    body = attached(content=full)
    body["attachments"].append({"filename": "b.txt", "mime_type": "text/plain", "content": "eA=="})
    assert len(parse(body).attachments) == 2
    body["attachments"].append({"filename": "c.txt", "mime_type": "text/plain", "content": "eA=="})
    assert set(faults(body)) == {"attachments"}


def test_content_stays_below_25_megabytes() -> None:
    limit = 25 * 1024 * 1024
    assert parse(CRM | {"html_body": "x" * (limit - 1)}).html
    assert set(faults(CRM | {"html_body": "x" * limit})) == {"html_body"}
    assert set(faults(CRM | {"html_body": "é" * (limit // 2)})) == {"html_body"}


SUCCESS_KEYS = ["id", "ref_id", "status", "message_id", "provider_message_id", "thread_id", "provider"]


def test_a26_a_sent_mail_answers_200_with_exactly_the_agreed_keys() -> None:
    status, body = crm.render(result())
    assert status == 200
    assert list(body) == SUCCESS_KEYS
    assert body == {
        "id": str(UUID(int=7)), "ref_id": "01JC3BBW8S9YGX2VNKG5MD7BTA", "status": "sent", "message_id": "<a@demo.test>",
        "provider_message_id": "prov-1", "thread_id": str(UUID(int=8)), "provider": "smtp",
    }  # fmt: skip


@pytest.mark.parametrize("state", [State.QUEUED, State.CLAIMED, State.SENDING, State.UNCERTAIN])
def test_a27_what_has_no_outcome_yet_answers_202_queued(state: State) -> None:
    status, body = crm.render(result(state=state, provider_message_id=None, thread_id=None))
    assert (status, body["status"], body["thread_id"]) == (202, "queued", None)
    assert list(body) == SUCCESS_KEYS


def test_a30_a_sent_mail_without_its_log_row_answers_as_documented() -> None:
    assert crm.render(result(log_failed=True)) == (422, {"error": "EMAIL_LOG_FAILED", "message_id": "prov-1"})
    assert crm.render(result(log_failed=True, provider_message_id=None)) == (
        422,
        {"error": "EMAIL_LOG_FAILED", "message_id": "<a@demo.test>"},
    )


@pytest.mark.parametrize(
    ("state", "permanent", "status"),
    [
        (State.FAILED, True, 422),
        (State.FAILED, False, 502),
        (State.SUPPRESSED, False, 422),
        (State.EXPIRED, False, 422),
        (State.CANCELLED, False, 422),
        (State.SKIPPED, False, 422),
    ],
)
def test_a31_a_mail_that_will_not_go_says_why(state: State, permanent: bool, status: int) -> None:
    answered, body = crm.render(result(state=state, permanent=permanent, reason="550 no such user"))
    assert answered == status
    assert body["error"] == "EMAIL_DELIVERY_FAILED"
    assert body["details"]["reason"] == "550 no such user"
    assert body["details"]["ref_id"] == "01JC3BBW8S9YGX2VNKG5MD7BTA"


def test_a29_missing_entities_alone_answer_exactly_as_documented() -> None:
    error = ApiError("VALIDATION_ERROR", missing=[Missing("contact_id", "<uuid>")])
    assert crm.render_error(error) == (
        400,
        {"error": "VALIDATION_ERROR", "details": {"missing_entities": [{"field": "contact_id", "id": "<uuid>"}]}},
    )


def test_a22_faults_and_missing_entities_stand_side_by_side() -> None:
    error = ApiError("VALIDATION_ERROR", faults=[Fault("x", "x is wrong.")], missing=[Missing("deal_id", "1")])
    _, body = crm.render_error(error)
    assert body["details"] == {
        "missing_entities": [{"field": "deal_id", "id": "1"}],
        "fields": [{"field": "x", "message": "x is wrong."}],
    }


@pytest.mark.parametrize("name", ["UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "RATE_LIMITED", "ALIAS_NOT_CONNECTED"])
def test_a28_codes_are_upper_case_with_a_sentence_and_a_fix(name: str) -> None:
    error = ApiError(name, details={"limit": "per_second"})
    status, body = crm.render_error(error)
    assert status == error.code.status
    assert body == {
        "error": name,
        "message": f"{error.code.sentence} {error.code.fix}",
        "details": {"limit": "per_second"},
    }
