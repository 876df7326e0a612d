"""What holds for all three shapes: recognition, names, links, bytes to JSON."""

import json
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_shim.errors import CODES, ApiError, Missing
from api_shim.shapes import SHAPES, crm, mailbox, mailer, read_body, recognise
from api_shim.shapes.addresses import normalised
from api_shim.shapes.names import FIELDS
from api_shim.submission import SendResult, Shape, Submission
from models.message import Priority, State
from worker.headers import is_mailbox

CRM = {"to_email": "client@example.com", "subject": "Hello", "html_body": "<p>x</p>"}
MAILBOX = {"to": "client@example.com", "subject": "Hello", "body_text": "x"}
MAILER = {
    "from": {"email": "hello@demo.test"},
    "to": [{"email": "client@example.com"}],
    "subject": "Hello",
    "content": [{"type": "text/plain", "value": "x"}],
    "mailer_id": "0190f3c5-0000-7000-8000-000000000001",
    "settings": {},
}
BODIES: dict[Shape, dict[str, Any]] = {Shape.CRM: CRM, Shape.MAILBOX: MAILBOX, Shape.MAILER: MAILER}
each_shape = pytest.mark.parametrize("shape", list(Shape))


def parse(body: Any) -> Submission:
    return recognise(body).parse(body)


def faults(body: Any) -> dict[str, str]:
    """Field -> message of everything wrong with a body that must be refused."""
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert caught.value.code.name == "VALIDATION_ERROR"
    assert caught.value.status == 400
    return {fault.field: fault.message for fault in caught.value.faults}


def result(**changes: Any) -> SendResult:
    values: dict[str, Any] = {
        "ref_id": "01JC3BBW8S9YGX2VNKG5MD7BTA", "id": UUID(int=7), "state": State.SENT, "rfc_message_id": "<a@demo.test>",
        "provider_message_id": "prov-1", "thread_id": UUID(int=8), "provider": "smtp",
    }  # fmt: skip
    return SendResult(**values | changes)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ({"to_email": "a@x.test"}, Shape.CRM),
        ({"html_body": "x", "body_html": "x", "to": "a@x.test"}, Shape.CRM),
        ({"body_html": "x", "to": [{"email": "a@x.test"}]}, Shape.MAILBOX),
        ({"body_text": "x"}, Shape.MAILBOX),
        ({"to": "a@x.test"}, Shape.MAILBOX),
        ({"to": ["a@x.test"]}, Shape.MAILBOX),
        ({"to": []}, Shape.MAILER),
        ({"to": [{"email": "a@x.test"}]}, Shape.MAILER),
        ({}, Shape.MAILER),
        ([], Shape.MAILER),
        ("text", Shape.MAILER),
        (None, Shape.MAILER),
    ],
)
def test_the_shape_is_read_from_the_field_names_alone(body: Any, shape: Shape) -> None:
    assert recognise(body).SHAPE is shape


def test_only_the_crm_and_mailbox_shapes_wait_and_only_crm_for_the_log() -> None:
    assert {shape: (module.WAITS, module.WAITS_FOR_LOG) for shape, module in SHAPES.items()} == {
        Shape.CRM: (True, True),
        Shape.MAILBOX: (True, False),
        Shape.MAILER: (False, False),
    }


@each_shape
def test_the_smallest_body_of_a_shape_is_enough(shape: Shape) -> None:
    submission = parse(BODIES[shape])
    assert submission.shape is shape
    assert [address.email for address in submission.to] == ["client@example.com"]
    assert submission.individual is (shape is Shape.MAILER)


@each_shape
def test_fields_of_another_shape_and_unknown_ones_are_all_named(shape: Shape) -> None:
    foreign = {other: sorted(FIELDS[other] - FIELDS[shape])[0] for other in Shape if other is not shape}
    foreign = {other: name for other, name in foreign.items() if name not in ("to_email", "html_body", "body_html")}
    body = BODIES[shape] | dict.fromkeys(foreign.values(), 1) | {"subjct": "x", "zzz": 1}
    found = faults(body)
    assert recognise(body).SHAPE is shape
    assert set(found) == {*foreign.values(), "subjct", "zzz"}
    assert "did you mean subject?" in found["subjct"]
    assert all(f"read in the {shape} shape" in found[name] for name in foreign.values())


@each_shape
def test_a19_null_equals_omitted(shape: Shape) -> None:
    absent = dict.fromkeys(FIELDS[shape] - BODIES[shape].keys() - {"to_email", "html_body", "body_html", "body_text"})
    assert parse(BODIES[shape] | absent) == parse(BODIES[shape])


@each_shape
def test_a16_a17_a18_b9_b10_links_keep_the_name_the_caller_used(shape: Shape) -> None:
    ids = {name: str(uuid4()) for name in ("contact_id", "opportunity_id", "company_id", "thread_id")}
    submission = parse(BODIES[shape] | ids)
    assert [(link.field, link.kind, str(link.id)) for link in submission.links] == [
        ("contact_id", "contact", ids["contact_id"]),
        ("opportunity_id", "deal", ids["opportunity_id"]),
        ("company_id", "customer", ids["company_id"]),
    ]
    assert str(submission.thread_id) == ids["thread_id"]


@each_shape
def test_an_alias_beside_its_name_must_agree_with_it(shape: Shape) -> None:
    one, two = str(uuid4()), str(uuid4())
    (link,) = parse(BODIES[shape] | {"deal_id": one, "opportunity_id": one.upper()}).links
    assert link.field == "deal_id"
    assert set(faults(BODIES[shape] | {"deal_id": one, "opportunity_id": two})) == {"opportunity_id"}


@each_shape
@pytest.mark.parametrize("bad", ["", " "])
def test_a_blank_id_is_no_id(shape: Shape, bad: str) -> None:
    assert parse(BODIES[shape] | {"contact_id": bad}).links == ()


@each_shape
@pytest.mark.parametrize(
    "bad", ["7", "{0190f3c5-0000-7000-8000-000000000001}", 7, ["x"], "0190f3c500007000800000000000000１"]
)
def test_what_is_not_a_uuid_is_named(shape: Shape, bad: Any) -> None:
    assert set(faults(BODIES[shape] | {"contact_id": bad})) == {"contact_id"}


@each_shape
@pytest.mark.parametrize(("given_as", "meant"), [(0, 0), (1, 1), ("normal", 0), ("high", 1)])
def test_d2_priority_is_taken_as_number_or_word(shape: Shape, given_as: Any, meant: int) -> None:
    assert parse(BODIES[shape] | {"priority": given_as}).priority is Priority(meant)


@each_shape
@pytest.mark.parametrize("bad", [2, -1, True, "urgent", 1.0, [], {}])
def test_d2_any_other_priority_is_refused(shape: Shape, bad: Any) -> None:
    assert set(faults(BODIES[shape] | {"priority": bad})) == {"priority"}


@each_shape
def test_a14_personal_mode_needs_the_user(shape: Shape) -> None:
    user = str(uuid4())
    assert set(faults(BODIES[shape] | {"mode": "personal"})) == {"sender_user_id"}
    submission = parse(BODIES[shape] | {"mode": "personal", "sender_user_id": user})
    assert submission.personal
    assert str(submission.sender_user_id) == user
    assert set(faults(BODIES[shape] | {"mode": "private"})) == {"mode"}


@each_shape
def test_b5_a_subject_has_at_most_998_characters(shape: Shape) -> None:
    assert parse(BODIES[shape] | {"subject": "é" * 998}).subject == "é" * 998
    assert "999 characters" in faults(BODIES[shape] | {"subject": "é" * 999})["subject"]


INJECTIONS = [
    "\r\nBcc: x@x.test",
    "\n",
    "\r",
    "\x00",
    "\x0b",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "=?utf-8?q?x=0D=0ABcc:x?=",
]


@each_shape
@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_line_break_in_a_subject_is_refused_however_it_is_written(shape: Shape, injection: str) -> None:
    assert set(faults(BODIES[shape] | {"subject": f"a{injection}b"})) == {"subject"}


def test_an_encoded_word_in_an_encoded_word_does_not_hide_a_line_break() -> None:
    inner = "=?utf-8?q?x=0D=0AY?="
    outer = "=?utf-8?q?" + "".join(f"={byte:02X}" for byte in inner.encode()) + "?="
    assert set(faults(CRM | {"subject": outer})) == {"subject"}
    assert parse(CRM | {"subject": "=?utf-8?q?Jos=C3=A9?="}).subject == "=?utf-8?q?Jos=C3=A9?="
    assert parse(CRM | {"subject": "what =? a subject?"}).subject == "what =? a subject?"


@each_shape
@pytest.mark.parametrize("value", [7, [], {}, True])
def test_a_value_of_the_wrong_type_is_named(shape: Shape, value: Any) -> None:
    assert set(faults(BODIES[shape] | {"subject": value})) == {"subject"}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Jane.Doe+x@Example.COM", "Jane.Doe+x@example.com"),
        ("user@demo.test", "user@demo.test"),
        ("user@bücher.example", "user@xn--bcher-kva.example"),
        ("user@BÜCHER.example", "user@xn--bcher-kva.example"),
        ("user@xn--bcher-kva.example", "user@xn--bcher-kva.example"),
        ("jörg@example.com", "jörg@example.com"),
        ("用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
        ('"a b"@example.com', '"a b"@example.com'),
        ("o'brien@example.com", "o'brien@example.com"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_addresses_are_stored_with_an_ascii_domain_in_lower_case(written: str, stored: str) -> None:
    assert normalised(written) == stored
    assert is_mailbox(stored)


@pytest.mark.parametrize(
    "bad",
    [
        "", "a", "@x.test", "a@", "a@b", "a@localhost", "a@test", "a@[127.0.0.1]", "a@x..test", "a@-x.test", "a..b@x.test",
        ".a@x.test", "a.@x.test", "a b@x.test", "a@x.test\n", "a@x.test ", "a@x.test\r\nBcc: b@x.test", "a\x00@x.test",
        "a@x.te\u2028st", "a" * 65 + "@x.test", "a@" + "b" * 64 + ".test", "a@" + "b." * 130 + "test", "a@@x.test",
        "a,b@x.test", "<a@x.test>", "a@xn--zzzzzzz999.example", "\ud800@x.test", "a@x.1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(bad: str) -> None:
    assert normalised(bad) is None


@each_shape
def test_every_code_has_a_body_with_its_own_status(shape: Shape) -> None:
    for name, code in CODES.items():
        status, body = SHAPES[shape].render_error(ApiError(name))
        assert status == code.status
        orjson.dumps(body)
        assert body


def test_rendering_an_error_uses_the_status_it_carries() -> None:
    error = ApiError("EMAIL_DELIVERY_FAILED", status=422)
    assert {module.render_error(error)[0] for module in SHAPES.values()} == {422}


def test_missing_entities_are_listed_in_every_shape() -> None:
    missing = [Missing("opportunity_id", "x"), Missing("contact_id", "y")]
    listed = [{"field": "opportunity_id", "id": "x"}, {"field": "contact_id", "id": "y"}]
    error = ApiError("VALIDATION_ERROR", missing=missing)
    assert crm.render_error(error)[1]["details"]["missing_entities"] == listed
    assert mailbox.render_error(error)[1]["error"]["details"]["missing_entities"] == listed
    assert mailer.render_error(error)[1]["details"]["missing_entities"] == listed


@pytest.mark.parametrize(
    "raw", [b'{"a": 1}', b"[]", b'"x"', b"null", b'{"a" : {"a": "\\":"}, "b\\\\": ["}{"]}', b'{"a":"\\\\u0000"}']
)
def test_json_is_read_as_it_stands(raw: bytes) -> None:
    assert read_body(raw).value == orjson.loads(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b"1" * 1_000_000, "not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[" * 102 + b"]" * 102, "levels deep"),
        (b'{"a":' * 102 + b"1" + b"}" * 102, "levels deep"),
        (b'{"a": [{"b\\u0000": 1}]}', "a[0].b\\u0000 holds a NUL"),
        (b'{"a": [{"b": "x\\u0000"}]}', "a[0].b holds a NUL"),
        (b'{"a": 1, "a": 2}', '"a" is given twice'),
        (b'{"x": {"a" : 1, "a" : 2}}', '"a" is given twice'),
        (b'{"a" :1,"a":2}', '"a" is given twice'),
        (b'{"a"\n:1,"a":2}', '"a" is given twice'),
        (b'{"b\\\\":1,"a":1,"a":2}', '"a" is given twice'),
    ],
)
def test_s6_json_that_cannot_be_stored_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    start = time.process_time()
    with pytest.raises(ApiError) as caught:
        _ = read_body(raw).value
    assert words in caught.value.faults[0].message
    assert caught.value.status == 400
    assert time.process_time() - start < 0.5


def test_json_a_hundred_levels_deep_is_read() -> None:
    assert read_body(b"[" * 101 + b"]" * 101).value


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30) | st.sampled_from(
        ["a@x.test", "Jane <a@x.test>, b@x.test", "0190f3c5-0000-7000-8000-000000000001", "2026-01-01T00:00:00Z", "eA==",
         "text/html", "text/plain", "inline", "=?utf-8?q?=0A?=", "{{a}}", "personal", "high"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["email", "name", "type", "value", "filename", "content", "enable", "a@x.test", "Message-ID", "a"])
        | st.text(max_size=8), inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


def extended(base: dict[str, Any], names: frozenset[str]) -> st.SearchStrategy[dict[str, Any]]:
    """A good body with a few of its fields replaced by anything."""
    return st.dictionaries(st.sampled_from(sorted(names)), ANY_JSON, max_size=3).map(lambda more: base | more)


ANY_BODY = st.one_of(
    ANY_JSON,
    *(st.dictionaries(st.sampled_from(sorted(names)), ANY_JSON, max_size=8) for names in FIELDS.values()),
    *(extended(base, FIELDS[shape]) for shape, base in BODIES.items()),
)


@settings(max_examples=400, deadline=None)
@given(ANY_BODY)
def test_any_json_is_parsed_or_refused_with_faults_that_every_shape_can_render(body: Any) -> None:
    module = recognise(body)
    with suppress_api_error() as refused:
        assert isinstance(module.parse(body), Submission)
    for error in refused:
        assert error.faults
        status, answer = module.render_error(error)
        assert status == 400
        orjson.dumps(answer)


@contextmanager
def suppress_api_error() -> Iterator[list[ApiError]]:
    """Lets an ApiError pass into the list; anything else is a failure."""
    refused: list[ApiError] = []
    try:
        yield refused
    except ApiError as error:
        refused.append(error)


def test_a_hundred_thousand_recipients_take_little_time_and_memory() -> None:
    emails = [f"user{number}@example{number % 50}.com" for number in range(100_000)]
    body = MAILER | {
        "to": [{"email": email, "name": f"User {number}"} for number, email in enumerate(emails)],
        "subject": "Order {{order}}",
        "content": [{"type": "text/html", "value": "<p>{{first}} {{order}}</p>"}],
        "substitutions": {email: {"first": "Jane", "order": str(number)} for number, email in enumerate(emails)},
    }
    raw = orjson.dumps(body)
    ratios = []
    for _ in range(
        3
    ):  # against the standard library's reading of the same bytes: machines differ, and so do their hours
        start = time.process_time()
        json.loads(raw)
        yardstick = time.process_time() - start
        start = time.process_time()
        read = read_body(raw).value
        submission = mailer.parse(read)
        ratios.append((time.process_time() - start) / yardstick)
    assert min(ratios) < 12, ratios
    assert len(submission.to) == len(submission.substitutions or ()) == 100_000
    del submission
    tracemalloc.start()
    try:
        mailer.parse(read)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000


def test_a_hundred_thousand_bad_recipients_are_refused_quickly_with_the_first_thousand() -> None:
    start = time.process_time()
    with pytest.raises(ApiError) as caught:
        mailer.parse(MAILER | {"to": [{"email": "nobody"}] * 100_000})
    assert time.process_time() - start < 1
    assert len(caught.value.faults) == 1001
    assert "more faults" in caught.value.faults[-1].message
