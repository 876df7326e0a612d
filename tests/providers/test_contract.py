"""What every adapter owes the worker, asked of every adapter."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from api_shim.credentials import read_credentials
from models.event import EventType
from providers import ADAPTERS, CONFIRMS_DELIVERY, SPEAK_SMTP, adapter
from providers.base import BadSignature, Fields, HookRequest, Lookup, Mailbox, OutboundEmail, Provider, Result
from providers.emulators.http import Call, Reply
from providers.smtp import Smtp
from tests.providers.arrivals import Arrival, composed
from tests.providers.benches import BENCHES, TOLD, Bench, Failure, HttpBench
from tests.providers.samples import fields, file, mail


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with BENCHES[request.param]() as opened:
        yield opened


@pytest.fixture(params=[name for name, make in BENCHES.items() if make.waits])
def api_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Of the providers that can say for how long they are too busy: those spoken to over HTTP."""
    with BENCHES[request.param]() as opened:
        yield opened


EACH_FAILURE = pytest.mark.parametrize("failure", Failure)


def test_every_adapter_is_here() -> None:
    assert {make.name for make in BENCHES.values()} == set(ADAPTERS)


def test_it_is_found_under_its_name(bench: Bench) -> None:
    kind = type(bench.provider)
    assert adapter(bench.provider.name) is kind
    assert (bench.provider.name in CONFIRMS_DELIVERY) is kind.confirms_delivery
    assert (bench.provider.name in SPEAK_SMTP) is issubclass(kind, Smtp)


def test_a_mailer_can_be_made_with_the_credentials_it_uses_and_not_without_one_that_it_needs(bench: Bench) -> None:
    name, given = bench.provider.name, bench.provider.account.credentials
    read, faults = read_credentials(name, given)
    assert faults == []
    assert {**read, **given} == read
    needed = [field_ for field_, credential in bench.provider.credentials.items() if credential.required]
    for left_out in needed:
        _, [fault] = read_credentials(name, {other: value for other, value in given.items() if other != left_out})
        assert (fault.field, fault.kind) == (f"credentials.{left_out}", "missing")


def test_no_mail_is_no_outcome(bench: Bench) -> None:
    assert list(bench.provider.send([])) == []


def test_each_mail_has_its_own_outcome_in_order(bench: Bench) -> None:
    emails = [mail(), bench.bad(), mail(), bench.bad(), mail()]
    outcomes = bench.provider.send(emails)
    yes, no = Result.ACCEPTED, Result.PERMANENT
    assert [outcome.result for outcome in outcomes] == [yes, no, yes, no, yes]
    assert [bench.delivered(email) for email in emails] == [1, 0, 1, 0, 1]


@EACH_FAILURE
def test_a_failure_costs_one_request_and_is_told_as_what_it_is(bench: Bench, failure: Failure) -> None:
    bench.fail(failure)
    email = mail()
    [outcome] = bench.provider.send([email])
    assert outcome.result is bench.told[failure]
    assert bench.sends() == 1
    if outcome.result is not Result.UNCERTAIN:
        assert bench.delivered(email) == 0
    shown = repr(bench.provider.account) + repr(bench.provider) + repr(outcome)
    assert bench.secrets
    assert [secret for secret in bench.secrets if secret in shown] == []


@EACH_FAILURE
def test_the_next_mail_passes_after_a_failure(bench: Bench, failure: Failure) -> None:
    bench.fail(failure)
    bench.provider.send([mail()])
    email = mail()
    [outcome] = bench.provider.send([email])
    assert outcome.result is Result.ACCEPTED
    assert bench.delivered(email) == 1


def test_every_result_is_reached() -> None:
    assert set(TOLD) == set(Failure)
    assert {*TOLD.values(), Result.ACCEPTED, Result.PERMANENT} == set(Result)


def test_a_lookup_says_yes_to_what_was_taken_and_no_to_what_never_came_or_that_it_cannot_tell(bench: Bench) -> None:
    taken, never = mail(), mail()
    [outcome] = bench.provider.send([taken])
    assert outcome.result is Result.ACCEPTED
    answers = [bench.provider.lookup(email).answer for email in (taken, never)]
    asked = [Lookup.ACCEPTED, Lookup.NOT_ACCEPTED]
    can_ask = type(bench.provider).lookup is not Provider.lookup
    assert answers == (asked if can_ask else [Lookup.CANNOT_TELL] * 2)


SHAPES: tuple[Any, ...] = (
    None, [], {}, 7, "x", [[]], [None], [7], {"id": 7}, {"error": 7}, {"error": {"code": 7, "errors": 7, "details": [7]}},
    {"errors": 7}, {"errors": [7]}, {"results": 7}, {"results": {"id": 7, "rcpt_to_errors": 7}}, {"results": {"id": "i",
    "total_accepted_recipients": "x", "rcpt_to_errors": [7]}}, {"results": []}, {"results": [7], "links": 7},
    {"items": 7}, {"items": [7]}, {"items": [{"user-variables": 7, "message": 7}]}, {"value": 7}, {"value": [7]},
    {"messages": 7}, {"messages": [7]}, {"drafts": [7]}, {"message": 7, "id": []}, {"Messages": [7]},
    {"Messages": [{"Metadata": 7}]}, [{"ErrorCode": "x", "Message": 7}], [{"ErrorCode": 0, "MessageID": 7}],
    {"ErrorCode": [], "Message": {}}, b"\xff", b"{", b"[" * 20_000,
)  # fmt: skip
"""Answers that no provider's documentation has."""


@pytest.mark.parametrize("status", [200, 202, 400, 503])
def test_an_answer_of_any_shape_has_a_meaning_and_no_answer_is_believed_too_much(api_bench: Bench, status: int) -> None:
    assert isinstance(api_bench, HttpBench)
    honest = api_bench.emulator.answer
    shapes = iter(SHAPES)
    shape: list[Any] = []

    def strange(call: Call) -> Reply:
        reply = honest(call)
        return reply if call.path.endswith("/token") else Reply(status, shape[0])

    api_bench.emulator.answer = strange  # type: ignore[method-assign]
    for shape[:] in ([one] for one in shapes):
        email = mail()
        [outcome] = api_bench.provider.send([email])
        if outcome.result not in (Result.ACCEPTED, Result.UNCERTAIN) and status < 400:
            assert api_bench.delivered(email) == 0
        api_bench.provider.lookup(email)
        api_bench.provider.lookup(replace(email, draft_id="d"))
        assert api_bench.provider.check().result in Result


def _later(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        ("0", 0, 0),
        ("17", 17, 17),
        (lambda: _later(60), 50, 61),
        (lambda: _later(-60), 0, 0),
        ("1000000000", 3600, 3600),
        ("soon", None, None),
        ("-5", None, None),
        ("1e3", None, None),
        ("21 Nov 99999999999999999999 10:00:00 GMT", None, None),
    ],
    ids=[
        "now",
        "seconds",
        "a date",
        "a date gone by",
        "30 years",
        "a word",
        "negative",
        "another number",
        "no year",
    ],
)
def test_the_wait_of_a_429_is_read_within_reason(
    api_bench: Bench, told: str | Callable[[], str], least: float | None, most: float | None
) -> None:
    api_bench.wait(told() if callable(told) else told)
    [outcome] = api_bench.provider.send([mail()])
    assert outcome.result is Result.THROTTLED
    if least is None or most is None:
        assert outcome.retry_after is None
    else:
        assert outcome.retry_after is not None
        assert least <= outcome.retry_after <= most


@dataclass(frozen=True, slots=True, kw_only=True)
class Optional:
    """A mail that makes use of something not every mail has, and how to see whether that came through."""

    fields: Mapping[str, Any]
    email: Mapping[str, Any] = field(default_factory=dict)
    came: Callable[[Arrival, Fields], bool]


BOB, CARL = Mailbox(email="bob@client.test", name="Bob"), Mailbox(email="carl@client.test")


def _has_headers(arrival: Arrival, given: Fields) -> bool:
    return all(arrival.headers.get(name.lower()) == value for name, value in given.headers.items())


def _has_files(arrival: Arrival, given: Fields) -> bool:
    return list(arrival.files) == list(given.files)


OPTIONAL: dict[str, Optional] = {
    "sender's name": Optional(
        fields={"sender": Mailbox(email="ann@demo.test", name='Ann "A", Ä')}, came=lambda a, f: a.sender == f.sender
    ),
    "recipient's name": Optional(
        fields={"to": (Mailbox(email="bob@client.test", name="Bob, Ö."),)}, came=lambda a, f: tuple(a.to) == f.to
    ),
    "cc": Optional(fields={"to": (BOB,), "cc": (CARL,)}, came=lambda a, f: tuple(a.cc) == f.cc),
    "bcc": Optional(
        fields={"to": (BOB,), "bcc": (CARL,)},
        came=lambda a, _: CARL.email in a.served and CARL not in [*a.to, *a.cc] and "bcc" not in a.headers,
    ),
    "reply_to": Optional(
        fields={"reply_to": (Mailbox(email="desk@demo.test", name="Desk"), CARL)},
        came=lambda a, f: tuple(a.reply_to) == f.reply_to,
    ),
    "subject beyond ASCII": Optional(fields={"subject": "Ångebot ☂"}, came=lambda a, f: a.subject == f.subject),
    "text alone": Optional(
        fields={"html": None, "text": "Grüße"}, came=lambda a, f: (a.html, a.text) == (None, f.text)
    ),
    "text beside html": Optional(
        fields={"html": "<p>Grüße</p>", "text": "Grüße"}, came=lambda a, f: (a.html, a.text) == (f.html, f.text)
    ),
    "own header": Optional(fields={"headers": {"X-Campaign": "spring"}}, came=_has_headers),
    "six own headers": Optional(fields={"headers": {f"X-{n}": str(n) for n in range(6)}}, came=_has_headers),
    "place in a thread": Optional(
        fields={"headers": {"In-Reply-To": "<a@client.test>", "References": "<z@client.test> <a@client.test>"}},
        came=_has_headers,
    ),
    "unsubscribe": Optional(
        fields={
            "headers": {
                "List-Unsubscribe": "<https://demo.test/u>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            }
        },
        came=_has_headers,
    ),
    "own priority": Optional(fields={"headers": {"X-Priority": "1", "Importance": "high"}}, came=_has_headers),
    "automatic answer": Optional(fields={"headers": {"Auto-Submitted": "auto-replied"}}, came=_has_headers),
    "attachment": Optional(fields={"files": (file(9), file(0, filename="empty.bin"))}, came=_has_files),
    "attachment's name beyond ASCII": Optional(
        fields={"files": (file(9, filename="Grüße ☂.pdf", content_type="application/pdf"),)}, came=_has_files
    ),
    "inline image": Optional(
        fields={
            "html": '<img src="cid:logo">',
            "files": (file(9, filename="logo.png", content_type="image/png", inline=True, content_id="logo"),),
        },
        came=_has_files,
    ),
    "domain beyond ASCII": Optional(
        fields={"to": (Mailbox(email="bob@bücher.test"),)},
        email={"smtputf8": True},
        came=lambda a, _: a.served <= {"bob@bücher.test", "bob@xn--bcher-kva.test"} and len(a.served) == 1,
    ),
    "address beyond ASCII": Optional(
        fields={"to": (Mailbox(email="jörg@client.test"),)},
        email={"smtputf8": True},
        came=lambda a, _: a.served == {"jörg@client.test"},
    ),
}
"""Everything a canonical mail may have and need not have."""


def _with(optional: Optional) -> OutboundEmail:
    given = fields(**optional.fields)
    email = mail(*(box.email for box in (*given.to, *given.cc, *given.bcc)), fields=given, **optional.email)
    return replace(email, mime=composed(given, email.rfc_message_id))


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_a_mail_need_not_have_is_carried_or_refused_and_never_dropped(bench: Bench, name: str) -> None:
    email = _with(OPTIONAL[name])
    [outcome] = bench.provider.send([email])
    if outcome.result is Result.ACCEPTED:
        assert email.fields is not None
        assert OPTIONAL[name].came(bench.arrival(), email.fields) is (name not in bench.remade)
    else:
        assert outcome.result is Result.PERMANENT
        assert outcome.detail
        assert bench.delivered(email) == 0


def test_only_those_still_to_be_served_are_served(bench: Bench) -> None:
    given = fields(to=(BOB,), cc=(CARL, Mailbox(email="dora@client.test")), bcc=(Mailbox(email="eve@client.test"),))
    email = mail(CARL.email, "eve@client.test", fields=given)
    [outcome] = bench.provider.send([replace(email, mime=composed(given, email.rfc_message_id))])
    assert outcome.result is Result.ACCEPTED
    assert bench.arrival().served == {CARL.email, "eve@client.test"}


def test_the_message_id_is_ours_or_the_adapter_says_otherwise(bench: Bench) -> None:
    email = _with(OPTIONAL["own header"])
    [outcome] = bench.provider.send([email])
    found = bench.arrival().headers.get("message-id")
    assert found == (outcome.rfc_message_id or email.rfc_message_id)
    assert bench.provider.keeps_message_id or bench.name in ("gmail", "sparkpost")


def test_every_event_names_its_mail_and_a_replay_is_the_same_event(bench: Bench) -> None:
    email = mail()
    bench.provider.send([email])
    keys = set()
    for kind in sorted(bench.events):
        request = bench.report(kind)
        [event] = bench.provider.parse_events(request)
        assert event.type == EventType(kind)
        assert event.at.tzinfo is not None
        if kind != "received":
            assert (event.ref, event.recipient) == (email.ref, "bob@client.test")
        [again] = bench.provider.parse_events(request)
        assert again.natural_key == event.natural_key
        keys.add(event.natural_key)
    assert len(keys) == len(bench.events)
    assert bench.provider.confirms_delivery is ("delivered" in bench.events)


def test_a_call_that_is_not_the_providers_is_refused(bench: Bench) -> None:
    bench.provider.send([mail()])
    for kind in sorted(bench.events):
        with pytest.raises(BadSignature):
            bench.provider.parse_events(bench.forged(bench.report(kind)))
    for body in (b"", b"{", b"null", b"[]", b"\xff", json.dumps({"event": "x"}).encode()):
        with pytest.raises(BadSignature):
            bench.provider.parse_events(HookRequest(headers={"x-signature": "00"}, query={}, body=body))
