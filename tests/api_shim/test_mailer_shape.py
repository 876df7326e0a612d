"""The mailer shape: the documented examples, the nine sentences, and what it takes beyond its source."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api_shim.errors import ApiError, Fault
from api_shim.shapes import mailer
from models.content import Address, SendSettings
from models.message import Priority, State
from tests.api_shim.test_shapes import INJECTIONS, MAILER, faults, parse, result

MAILER_ID = str(MAILER["mailer_id"])
SCHEMA: dict[str, Any] = {
    "from": {"email": "sender@mail.yourcompany.com", "name": "Your Company"},
    "to": [{"email": "recipient@example.com", "name": "John Doe"}],
    "cc": [],
    "bcc": [],
    "replyTo": "support@yourcompany.com",
    "subject": "Your Order Confirmation",
    "content": [
        {"type": "text/html", "value": "<html>...</html>"},
        {"type": "text/plain", "value": "Plain text version..."},
    ],
    "attachments": [],
    "headers": {},
    "substitutions": {},
    "custom_args": {},
    "campaign_id": "order-confirmation-2024",
    "mailer_id": MAILER_ID,
    "template_id": "",
    "settings": {
        "open_tracking": {"enable": True},
        "click_tracking": {"enable": True},
        "validate": {"enable": True},
        "phishing_protection": {"enable": False},
        "unsubscribe": {"enable": True},
        "ip_pool": "",
    },
    "process_email_inbulk": False,
    "priority": 0,
}
COMPLETE: dict[str, Any] = {
    "from": {"email": "orders@mail.yourcompany.com", "name": "YourCompany Orders"},
    "to": [{"email": "customer@example.com", "name": "John Customer"}],
    "replyTo": "support@yourcompany.com",
    "subject": "Your Order #12345 Has Been Confirmed",
    "content": [
        {
            "type": "text/html",
            "value": '<p>Hi {{first_name}},</p><p>#{{order_id}} <a href="{{tracking_url}}">x</a></p>',
        },
        {"type": "text/plain", "value": "{{order_id}}\n\nTrack your order: {{tracking_url}}"},
    ],
    "substitutions": {
        "customer@example.com": {"first_name": "John", "order_id": "12345", "tracking_url": "https://t.example/12345"}
    },
    "attachments": [{"content": "JVBERi0xLjQK", "filename": "invoice_12345.pdf", "type": "application/pdf"}],
    "mailer_id": MAILER_ID,
    "campaign_id": "order-confirmation",
    "settings": {
        "open_tracking": {"enable": True},
        "click_tracking": {"enable": True},
        "validate": {"enable": True},
        "unsubscribe": {"enable": False},
    },
    "custom_args": {"order_id": "12345", "user_id": "usr_67890"},
    "priority": 1,
}


def sentences(body: Any) -> list[str]:
    """The ``errors`` of the answer to a body that must be refused."""
    with pytest.raises(ApiError) as caught:
        mailer.parse(body)
    status, answer = mailer.render_error(caught.value)
    assert status == 400
    assert answer["success"] is False
    assert answer["error"] == answer["errors"][0]
    assert len(answer["details"]["fields"]) == len(answer["errors"])
    return list(answer["errors"])


def recipients(count: int) -> list[dict[str, str]]:
    return [{"email": f"u{number}@x.test"} for number in range(count)]


def test_c2_to_c24_the_complete_schema_with_its_empty_defaults_is_read() -> None:
    submission = parse(SCHEMA)
    assert submission.sender == Address("sender@mail.yourcompany.com", "Your Company")
    assert submission.to == (Address("recipient@example.com", "John Doe"),)
    assert submission.reply_to == (Address("support@yourcompany.com"),)
    assert (submission.html, submission.text) == ("<html>...</html>", "Plain text version...")
    assert submission.template_id is None
    assert submission.substitutions is None
    assert submission.custom_args is None
    assert submission.individual
    assert submission.settings == SendSettings(open_tracking=True, click_tracking=True, validate=True, unsubscribe=True)


def test_c13_c23_c24_the_complete_example_is_read() -> None:
    submission = parse(COMPLETE)
    assert submission.substitutions == COMPLETE["substitutions"]
    assert submission.priority is Priority.HIGH
    assert submission.campaign_id == "order-confirmation"
    assert submission.custom_args == {"order_id": "12345", "user_id": "usr_67890"}
    assert submission.attachments[0].data == b"%PDF-1.4\n"
    assert submission.mailer_id == UUID(MAILER_ID)


def test_c23_without_a_campaign_it_is_nil() -> None:
    assert parse(MAILER).campaign_id == parse(MAILER | {"campaign_id": ""}).campaign_id == "NIL"


BULK = MAILER | {"process_email_inbulk": True}
DOCUMENTED_ERRORS = [
    (MAILER | {"subject": ""}, "subject is required when template_id is not provided"),
    (MAILER | {"content": []}, "content is required when template_id is not provided"),
    (MAILER | {"cc": recipients(1)}, "cc recipients are not allowed when processing emails individually"),
    (MAILER | {"bcc": recipients(1)}, "bcc recipients are not allowed when processing emails individually"),
    (BULK | {"substitutions": {"a@x.test": {}}}, "substitutions are not allowed when processing emails in bulk"),
    (BULK | {"to": recipients(101)}, "total recipients cannot exceed 100"),
    (
        BULK | {"settings": {"unsubscribe": {"enable": True}}},
        "unsubscribe is not allowed when processing emails in bulk",
    ),
    (MAILER | {"to": [{"email": "nobody"}]}, "invalid email format"),
]


@pytest.mark.parametrize(("body", "sentence"), DOCUMENTED_ERRORS)
def test_c4_c5_c7_c8_c20_c37_a_documented_sentence_is_given_to_the_letter(body: Any, sentence: str) -> None:
    assert sentences(body) == [sentence]


def test_c37_a_sender_that_is_not_of_the_mailer_has_its_sentence() -> None:
    error = ApiError("VALIDATION_ERROR", faults=[Fault("from.email", "from.email is not ...", "from_unknown")])
    assert mailer.render_error(error) == (
        400,
        {
            "success": False,
            "error": "from address does not exist with the provided mailer_id",
            "errors": ["from address does not exist with the provided mailer_id"],
            "details": {"fields": [{"field": "from.email", "message": "from.email is not ..."}]},
        },
    )


def test_c34_c37_all_faults_are_told_together_and_documented_sentences_first() -> None:
    found = sentences(
        {
            "from": {},
            "to": [{"email": "x"}, 7, {"email": "a@x.test", "nme": 1}],
            "cc": recipients(1),
            "settings": 1,
            "zzz": 1,
        }
    )
    assert found[:4] == [
        "invalid email format",
        "cc recipients are not allowed when processing emails individually",
        "subject is required when template_id is not provided",
        "content is required when template_id is not provided",
    ]
    assert len(found) == 10
    assert {sentence.split()[0] for sentence in found[4:]} == {
        "from.email", "to[1]", "to[2].nme", "settings", "mailer_id", '"zzz"',
    }  # fmt: skip


def test_c4_c5_a_shared_email_takes_a_hundred_recipients_with_cc_and_bcc() -> None:
    copies = {"cc": [{"email": "c@x.test"}], "bcc": [{"email": "d@x.test"}]}
    submission = parse(BULK | copies | {"to": recipients(98)})
    assert not submission.individual
    assert (len(submission.to), len(submission.cc), len(submission.bcc)) == (98, 1, 1)
    assert sentences(BULK | copies | {"to": recipients(99)}) == ["total recipients cannot exceed 100"]


def test_c3_individual_emails_have_no_limit_but_nobody_is_listed_twice() -> None:
    assert len(parse(MAILER | {"to": recipients(101)}).to) == 101
    found = faults(MAILER | {"to": [{"email": "a@x.test"}, {"email": "A@X.test"}]})
    assert "A@x.test" in found["to"]
    assert "twice" in found["to"]


@pytest.mark.parametrize(
    ("reply_to", "addresses"),
    [
        ("support@yourcompany.com", [("support@yourcompany.com", None)]),
        ("Customer Support <support@yourcompany.com>", [("support@yourcompany.com", "Customer Support")]),
        ("support@yourcompany.com, billing@yourcompany.com", [("support@yourcompany.com", None), ("billing@yourcompany.com", None)]),
    ],
)  # fmt: skip
def test_c6_reply_to_is_read_in_each_documented_form(reply_to: str, addresses: list[tuple[str, str | None]]) -> None:
    assert parse(MAILER | {"replyTo": reply_to}).reply_to == tuple(Address(*address) for address in addresses)


def test_c7_c9_a_template_makes_subject_and_content_optional_and_they_still_override() -> None:
    template = str(UUID(int=5))
    bare = {name: value for name, value in MAILER.items() if name not in ("subject", "content")}
    submission = parse(bare | {"template_id": template})
    assert (submission.template_id, submission.subject, submission.html, submission.text) == (
        UUID(int=5),
        None,
        None,
        None,
    )
    assert parse(MAILER | {"template_id": template}).text == "x"


@pytest.mark.parametrize(
    "content",
    [
        "x", {}, [7], [{"type": "text/markdown", "value": "x"}], [{"value": "x"}], [{"type": "text/html", "value": 7}],
        [{"type": "text/html", "value": "x", "charset": "utf-8"}],
        [{"type": "text/html", "value": "x"}, {"type": "text/html", "value": "y"}],
    ],
)  # fmt: skip
def test_c8_malformed_content_is_named_once(content: Any) -> None:
    assert len(sentences(MAILER | {"content": content})) >= 1
    assert all(field.startswith("content") for field in faults(MAILER | {"content": content}))


def test_c10_an_inline_image_keeps_its_content_id() -> None:
    file = {
        "content": "iVBORw0KGgo=", "filename": "logo.png", "type": "image/png", "disposition": "inline",
        "contentId": "<company-logo>", "contentLocation": "https://x.test/logo.png",
    }  # fmt: skip
    (attachment,) = parse(MAILER | {"attachments": [file]}).attachments
    assert (attachment.inline, attachment.content_id) == (True, "company-logo")
    assert attachment.content_location == "https://x.test/logo.png"
    bad = file | {"disposition": "both", "contentId": "a b", "contentLocation": "x\ny", "extra": 1}
    assert set(faults(MAILER | {"attachments": [bad]})) == {
        f"attachments[0].{name}" for name in ("disposition", "contentId", "contentLocation", "extra")
    }


def test_c12_c28_c29_threading_headers_have_their_own_fields() -> None:
    submission = parse(
        MAILER
        | {
            "headers": {
                "X-Custom-Header": "custom-value", "X-Priority": 1, "message-id": "<unique-id@yourcompany.com>",
                "In-Reply-To": "<customer_msg2@gmail.com>", "References": "<m1@x.test> <customer_msg2@gmail.com>",
                "Thread-Id": "18c5a1b2d3e4f5g6", "X-Empty": "",
            }
        }
    )  # fmt: skip
    assert submission.headers == {"X-Custom-Header": "custom-value", "X-Priority": "1"}
    assert submission.custom_message_id == "unique-id"
    assert submission.in_reply_to == "<customer_msg2@gmail.com>"
    assert submission.references == ("<m1@x.test>", "<customer_msg2@gmail.com>")
    assert submission.provider_thread_id == "18c5a1b2d3e4f5g6"


def test_c26_a_message_id_without_brackets_is_taken_as_it_is_and_only_for_one_message() -> None:
    body = MAILER | {"headers": {"Message-ID": "order-12345-confirmation"}}
    assert parse(body).custom_message_id == "order-12345-confirmation"
    assert set(faults(body | {"to": recipients(2)})) == {"headers.Message-ID"}
    assert parse(body | {"to": recipients(2), "process_email_inbulk": True}).custom_message_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("X-A", f"x{injection}") for injection in INJECTIONS),
        *(("Message-ID", f"x{injection}") for injection in INJECTIONS),
        *(("References", f"<x{injection}@x.test>") for injection in INJECTIONS if "=?" not in injection),
        *(
            (name, "x")
            for name in ("From", "to", "BCC", "Sender", "Date", "Subject", "Reply-To", "Return-Path", "Received")
        ),
        *(
            (name, "x")
            for name in (
                "Content-Type",
                "MIME-Version",
                "DKIM-Signature",
                "Delivered-To",
                "Errors-To",
                "ARC-Seal",
                "List-Unsubscribe",
            )
        ),
        *((name, "x") for name in ("", "a b", "a:b", "a\r\nBcc", "é", "x" * 77)),
        ("X-A", ["x"]),
        ("X-A", "x" * 999),
        ("In-Reply-To", "<a@x.test> <b@x.test>"),
        ("References", "<a b>"),
        ("Thread-Id", "a b"),
        ("Message-ID", "a b"),
        ("Message-ID", "@x.test"),
    ],
)
def test_s3_a_header_that_could_harm_is_refused(name: str, value: Any) -> None:
    (field,) = faults(MAILER | {"headers": {name: value}})
    assert field.startswith("headers.")


def test_a_header_given_twice_in_different_case_is_refused() -> None:
    assert "twice" in faults(MAILER | {"headers": {"X-A": "1", "x-a": "2"}})["headers.x-a"]


@pytest.mark.parametrize("injection", INJECTIONS)
def test_s3_no_line_break_gets_into_names_or_addresses(injection: str) -> None:
    for field, value in (("email", f"a@x.test{injection}"), ("name", f"x{injection}")):
        item = {"email": "a@x.test"} | {field: value}
        assert set(faults(MAILER | {"to": [item]})) == {f"to[0].{field}"}
        assert set(faults(MAILER | {"from": item})) == {f"from.{field}"}


def test_c13_variables_belong_to_an_address_in_any_case_and_may_be_numbers() -> None:
    body = MAILER | {
        "to": [{"email": "Jane@Bücher.example"}],
        "content": [{"type": "text/plain", "value": "{{ a }} {{b}}"}],
    }
    submission = parse(body | {"substitutions": {"jane@bücher.example": {"a": 7, "b": "x", "unused": ""}}})
    assert submission.substitutions == {"jane@xn--bcher-kva.example": {"a": "7", "b": "x", "unused": ""}}


def test_c13_every_missing_variable_is_listed_with_its_address() -> None:
    body = MAILER | {
        "to": recipients(2),
        "subject": "{{a}}",
        "content": [{"type": "text/html", "value": "{{b}} {{a}}"}],
    }
    with pytest.raises(ApiError) as caught:
        parse(body | {"substitutions": {"u0@x.test": {"a": "1"}}})
    messages = [fault.message for fault in caught.value.faults]
    assert ["u0@x.test" in message and '"b"' in message for message in messages] == [True, False, False]
    assert ['"a"' in message for message in messages[1:]] == [True, False]
    assert all("u1@x.test" in message for message in messages[1:])


def test_c13_a_long_list_of_missing_variables_is_cut_and_counted() -> None:
    body = MAILER | {"to": recipients(150), "subject": "{{a}}", "substitutions": {"u0@x.test": {"a": "1"}}}
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert len(caught.value.faults) == 101
    assert "49 more" in caught.value.faults[-1].message


def test_without_substitutions_braces_are_plain_text() -> None:
    assert parse(MAILER | {"subject": "{{a}}"}).substitutions is None
    assert parse(MAILER | {"subject": "{{a}}", "substitutions": {}}).substitutions is None


def test_variables_of_a_template_are_left_to_intake() -> None:
    body = MAILER | {"template_id": str(UUID(int=1)), "subject": "{{a}}"}
    assert parse(body | {"substitutions": {"client@example.com": {"b": "x"}}}).substitutions


def test_the_unsubscribe_url_is_filled_by_the_server_where_the_link_is_on() -> None:
    body = MAILER | {"content": [{"type": "text/plain", "value": "{{unsubscribe_url}}"}]}
    body |= {"substitutions": {"client@example.com": {"a": "x"}}}
    assert parse(body | {"settings": {"unsubscribe": {"enable": True}}})
    assert set(faults(body)) == {"substitutions"}


@pytest.mark.parametrize(
    "substitutions",
    [
        7, [], {"client@example.com": "x"}, {"client@example.com": {"a": None}}, {"client@example.com": {"a": True}},
        {"client@example.com": {}, "stranger@x.test": {}}, {"client@example.com": {}, "CLIENT@example.com": {}},
    ],
)  # fmt: skip
def test_c13_malformed_substitutions_are_refused(substitutions: Any) -> None:
    assert all(field.startswith("substitutions") for field in faults(MAILER | {"substitutions": substitutions}))


@pytest.mark.parametrize("injection", INJECTIONS)
def test_s3_no_value_breaks_the_subject_but_the_body_may_have_lines(injection: str) -> None:
    values = {"substitutions": {"client@example.com": {"a": f"x{injection}"}}}
    assert set(faults(MAILER | {"subject": "Hi {{a}}"} | values)) == {"substitutions"}
    assert parse(MAILER | {"content": [{"type": "text/plain", "value": "{{a}}"}]} | values)


def test_a_subject_stays_within_998_characters_with_its_values() -> None:
    body = MAILER | {"subject": "ab{{v}}"}
    assert parse(body | {"substitutions": {"client@example.com": {"v": "x" * 996}}})
    assert set(faults(body | {"substitutions": {"client@example.com": {"v": "x" * 997}}})) == {"substitutions"}


def test_c15_settings_are_required_and_their_switches_are_true_or_false() -> None:
    assert set(faults({name: value for name, value in MAILER.items() if name != "settings"})) == {"settings"}
    assert parse(MAILER | {"settings": {"ip_pool": "transactional-pool"}}).settings.ip_pool == "transactional-pool"
    bad = {"open_tracking": True, "click_tracking": {"enable": "yes"}, "validate": {"on": True}, "pixels": {}}
    assert set(faults(MAILER | {"settings": bad})) == {
        "settings.open_tracking", "settings.click_tracking.enable", "settings.validate.on", "settings.pixels",
    }  # fmt: skip


def test_c24_custom_args_take_64_kilobytes_of_json() -> None:
    room = 64 * 1024 - len('{"a":""}')
    assert parse(MAILER | {"custom_args": {"a": "x" * room}}).custom_args
    assert set(faults(MAILER | {"custom_args": {"a": "x" * (room + 1)}})) == {"custom_args"}
    assert set(faults(MAILER | {"custom_args": [1]})) == {"custom_args"}


def instant(ahead: timedelta) -> str:
    return (datetime.now(UTC) + ahead).isoformat()


def test_send_at_and_expires_at_are_rfc_3339_and_read_in_utc() -> None:
    body = MAILER | {"send_at": "2020-01-01T02:00:00+02:00", "expires_at": instant(timedelta(hours=1)), "dry_run": True}
    submission = parse(body)
    assert submission.send_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert submission.dry_run


@pytest.mark.parametrize("field", ["send_at", "expires_at"])
@pytest.mark.parametrize(
    "bad",
    ["tomorrow", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", 1767225600, "0001-01-01T00:00:00+23:00"],
)
def test_a_time_without_offset_or_sense_is_refused(field: str, bad: Any) -> None:
    assert set(faults(MAILER | {field: bad})) == {field}


def test_send_at_lies_at_most_thirty_days_ahead() -> None:
    assert parse(MAILER | {"send_at": instant(timedelta(days=30, seconds=-5))}).send_at
    assert set(faults(MAILER | {"send_at": instant(timedelta(days=30, seconds=5))})) == {"send_at"}


def test_expires_at_lies_after_now_and_after_send_at() -> None:
    assert set(faults(MAILER | {"expires_at": instant(timedelta(seconds=-1))})) == {"expires_at"}
    later = {"send_at": instant(timedelta(hours=2)), "expires_at": instant(timedelta(hours=1))}
    assert set(faults(MAILER | later)) == {"expires_at"}


def test_c14_a_mailer_is_named_unless_the_mail_goes_through_a_users_mailbox() -> None:
    bare = {name: value for name, value in MAILER.items() if name != "mailer_id"}
    assert set(faults(bare)) == {"mailer_id"}
    assert parse(bare | {"mode": "personal", "sender_user_id": str(UUID(int=3))}).mailer_id is None


@pytest.mark.parametrize("state", list(State))
def test_c32_success_is_exactly_two_keys_whatever_became_of_it(state: State) -> None:
    assert mailer.render(result(state=state)) == (202, {"success": True, "ref_id": "01JC3BBW8S9YGX2VNKG5MD7BTA"})


def test_c34_other_errors_say_what_happened_and_what_to_do() -> None:
    error = ApiError("RATE_LIMITED", details={"limit": "per_day"})
    sentence = f"{error.code.sentence} {error.code.fix}"
    assert mailer.render_error(error) == (
        429,
        {"success": False, "error": sentence, "errors": [sentence], "details": {"limit": "per_day"}},
    )


def test_a_body_that_is_no_object_is_refused() -> None:
    assert sentences([1]) == ["The body is a list; send a JSON object."]
