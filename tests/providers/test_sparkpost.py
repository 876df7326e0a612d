"""SparkPost against its emulator: what goes out, what each answer means, what its events become."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from providers.base import BadSignature, HookRequest, Lookup, Result
from providers.emulators.http import Fault, Hook, Reply
from providers.emulators.sparkpost import SparkPostEmulator
from providers.sparkpost import SparkPost
from tests.providers.samples import ON_THE_WIRE, QUICK, account, mail


@pytest.fixture
def sparkpost() -> Iterator[SparkPostEmulator]:
    with SparkPostEmulator() as emulator:
        yield emulator


@pytest.fixture
def adapter(sparkpost: SparkPostEmulator) -> Iterator[SparkPost]:
    adapter = open_adapter(sparkpost)
    yield adapter
    adapter.close()


def open_adapter(sparkpost: SparkPostEmulator, **credentials: str) -> SparkPost:
    given = {"api_key": sparkpost.api_key, "hook_secret": sparkpost.hook_secret, **credentials}
    adapter = SparkPost(account("sparkpost", sparkpost, **given))
    adapter._api.timeout = QUICK
    return adapter


def request(hook: Hook) -> HookRequest:
    return HookRequest(headers={name.lower(): value for name, value in hook.headers.items()}, query={}, body=hook.body)


def test_a_mail_goes_out_whole_with_its_ref_and_without_their_tracking(
    sparkpost: SparkPostEmulator, adapter: SparkPost
) -> None:
    email = mail("bob@client.test", "bcc@client.test", ip_pool="pool-1")
    [outcome] = adapter.send([email])
    [taken] = sparkpost.mails
    assert (outcome.result, outcome.provider_message_id) == (Result.ACCEPTED, taken.transmission_id)
    assert outcome.recipients == {}
    assert taken.mime.encode() == email.mime
    assert (taken.ref, taken.recipients) == (email.ref, ["bob@client.test", "bcc@client.test"])
    assert taken.options == {
        "open_tracking": False,
        "click_tracking": False,
        "perform_substitutions": False,
        "transactional": True,
        "ip_pool": "pool-1",
    }


def test_mail_with_list_unsubscribe_lets_sparkpost_offer_it(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    adapter.send([mail(mime=b"Subject: x\r\nlist-unsubscribe: <https://demo.test/u>\r\n\r\nHello\r\n")])
    adapter.send([mail(mime=b"Subject: x\r\n\r\nList-Unsubscribe: is no header here\r\n")])
    assert [taken.options["transactional"] for taken in sparkpost.mails] == [False, True]


def test_a_list_comes_back_in_its_order_each_mail_sent_once(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    emails = [mail(f"u{number}@client.test") for number in range(12)]
    outcomes = adapter.send(emails)
    ids = {taken.ref: taken.transmission_id for taken in sparkpost.mails}
    assert [outcome.provider_message_id for outcome in outcomes] == [ids[email.ref] for email in emails]
    assert sparkpost.delivered_once(email.ref for email in emails)


@pytest.mark.parametrize(("fault", "result"), ON_THE_WIRE)
def test_one_failing_send_is_one_request_and_its_honest_outcome(
    sparkpost: SparkPostEmulator, adapter: SparkPost, fault: Fault, result: Result
) -> None:
    sparkpost.fail(fault)
    [outcome] = adapter.send([mail()])
    assert outcome.result is result
    assert len(sparkpost.calls) == 1


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (400, "1300", Result.PERMANENT),
        (400, "7001", Result.CREDENTIALS),
        (400, "7000", Result.CREDENTIALS),
        (401, "", Result.CREDENTIALS),
        (403, "1100", Result.CREDENTIALS),
        (404, "1600", Result.CREDENTIALS),
        (413, "", Result.PERMANENT),
        (420, "2101", Result.THROTTLED),
        (420, "2102", Result.THROTTLED),
        (420, "2105", Result.THROTTLED),
        (420, "2103", Result.CREDENTIALS),
        (422, "1400", Result.PERMANENT),
        (422, "1902", Result.PERMANENT),
        (422, "3000", Result.PERMANENT),
        (429, "", Result.THROTTLED),
        (500, "1502", Result.TRANSIENT),
        (502, "", Result.UNCERTAIN),
        (503, "1900", Result.TRANSIENT),
        (301, "", Result.CREDENTIALS),
    ],
)
def test_every_error_has_its_outcome(
    sparkpost: SparkPostEmulator,
    adapter: SparkPost,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    result: Result,
) -> None:
    error = {"message": "no", "description": "because", **({"code": code} if code else {})}
    monkeypatch.setattr(sparkpost, "answer", lambda _: Reply(status, {"errors": [error]}))
    [outcome] = adapter.send([mail()])
    assert outcome.result is result
    assert outcome.code == (f"{status}/{code}" if code else str(status))
    assert outcome.detail == "no: because"


@pytest.mark.parametrize("body", [b"<html>welcome</html>", [], {}, {"results": {}}, {"results": []}])
def test_a_200_that_is_no_answer_is_uncertain(
    sparkpost: SparkPostEmulator, adapter: SparkPost, monkeypatch: pytest.MonkeyPatch, body: Any
) -> None:
    monkeypatch.setattr(sparkpost, "answer", lambda _: Reply(200, body))
    assert adapter.send([mail()])[0].result is Result.UNCERTAIN


def test_a_partial_acceptance_names_who_was_refused(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    sparkpost.suppressed = {"Gone@client.test"}
    [outcome] = adapter.send([mail("bob@client.test", "Gone@client.test")])
    assert outcome.result is Result.ACCEPTED
    assert list(outcome.recipients) == ["Gone@client.test"]
    refusal = outcome.recipients["Gone@client.test"]
    assert (refusal.result, refusal.code) == (Result.PERMANENT, "1902")


def test_a_mail_to_suppressed_recipients_only_is_refused(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    sparkpost.suppressed = {"bob@client.test"}
    [outcome] = adapter.send([mail()])
    assert (outcome.result, outcome.code) == (Result.PERMANENT, "422/1902")


def test_what_cannot_be_carried_is_refused_without_a_request(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    emails = [
        mail(mime=b"Subject: {{name}}\r\n\r\nHello\r\n"),
        mail(mime=b"Subject: x\r\n\r\n\xff\xfe\r\n"),
        mail(mime=b"a" * (adapter.max_bytes + 1)),
        mail(*[f"u{number}@client.test" for number in range(2001)]),
    ]
    outcomes = adapter.send(emails)
    assert [outcome.result for outcome in outcomes] == [Result.PERMANENT] * 4
    assert all(outcome.detail for outcome in outcomes)
    assert sparkpost.calls == []


def test_braces_in_the_body_are_plain_text(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    adapter.send([mail(mime=b"Subject: x\r\n\r\nHello {{name}}\r\n")])
    assert sparkpost.mails[0].options["perform_substitutions"] is False


def test_lookup_finds_a_mail_that_was_taken_before_a_504(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    email = mail("Bob@client.test")
    sparkpost.fail(Fault.ACCEPT_THEN_504)
    assert adapter.send([email])[0].result is Result.UNCERTAIN
    found = adapter.lookup(email)
    assert found.answer is Lookup.ACCEPTED
    assert found.provider_message_id == sparkpost.mails[0].transmission_id
    assert sparkpost.delivered_once([email.ref])


def test_lookup_says_no_only_after_the_last_page(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    sparkpost.page_size = 3
    emails = [mail() for _ in range(4)]
    adapter.send(emails)
    assert all(adapter.lookup(email).answer is Lookup.ACCEPTED for email in emails)
    assert adapter.lookup(mail()).answer is Lookup.NOT_ACCEPTED
    adapter.send([mail() for _ in range(12)])
    assert adapter.lookup(mail()).answer is Lookup.CANNOT_TELL


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.HANG, Fault.ERROR_500, Fault.THROTTLED, Fault.UNAUTHORIZED])
def test_a_lookup_that_gets_no_answer_says_so(sparkpost: SparkPostEmulator, adapter: SparkPost, fault: Fault) -> None:
    sparkpost.fail(fault)
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED


def test_check_tells_a_good_key_from_a_bad_one(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    assert adapter.check().result is Result.ACCEPTED
    other = open_adapter(sparkpost, api_key="no")
    assert other.check().result is Result.CREDENTIALS
    other.close()


@pytest.mark.parametrize(
    ("type_", "particulars", "kind", "data"),
    [
        ("injection", {}, "accepted", {}),
        ("delivery", {}, "delivered", {}),
        ("delay", {"error_code": "451", "reason": "later"}, "deferred", {"code": "451", "reason": "later"}),
        ("bounce", {"bounce_class": "10"}, "bounced", {"bounce_class": "hard", "bounce_type": "10"}),
        ("bounce", {"bounce_class": "21"}, "bounced", {"bounce_class": "soft"}),
        ("bounce", {"bounce_class": "51"}, "bounced", {"bounce_class": "blocked"}),
        ("bounce", {"bounce_class": "90"}, "unsubscribed", {}),
        ("out_of_band", {"bounce_class": "30", "raw_reason": "550 no"}, "bounced", {"reason": "550 no"}),
        ("policy_rejection", {"reason": "suppressed"}, "bounced", {"bounce_class": "blocked"}),
        ("generation_rejection", {}, "bounced", {}),
        ("generation_failure", {}, "generation_failed", {}),
        ("spam_complaint", {}, "complained", {}),
        ("open", {"user_agent": "Mail/1.0"}, "opened", {"user_agent": "Mail/1.0"}),
        ("initial_open", {}, "opened", {}),
        ("amp_open", {}, "opened", {}),
        ("amp_initial_open", {}, "opened", {}),
        ("click", {"target_link_url": "https://demo.test/a"}, "clicked", {"url": "https://demo.test/a"}),
        ("amp_click", {}, "clicked", {}),
        ("list_unsubscribe", {}, "unsubscribed", {}),
        ("link_unsubscribe", {}, "unsubscribed", {}),
    ],
)
def test_every_event_has_our_word(
    sparkpost: SparkPostEmulator,
    adapter: SparkPost,
    type_: str,
    particulars: dict[str, Any],
    kind: str,
    data: dict[str, Any],
) -> None:
    email = mail("Bob@client.test")
    adapter.send([email])
    reported = sparkpost.report(type_, sparkpost.mails[0], **particulars)
    [event] = adapter.parse_events(request(sparkpost.batch(reported)))
    assert (event.type, event.ref, event.recipient) == (kind, email.ref, "Bob@client.test")
    assert event.provider_message_id == sparkpost.mails[0].transmission_id
    assert event.at.timestamp() == int(reported["timestamp"])
    assert data.items() <= event.data.items()


@pytest.mark.parametrize("bounce_class", ["60", "80", "100"])
def test_an_automatic_reply_is_no_bounce(sparkpost: SparkPostEmulator, adapter: SparkPost, bounce_class: str) -> None:
    adapter.send([mail()])
    reported = sparkpost.report("out_of_band", sparkpost.mails[0], bounce_class=bounce_class)
    assert adapter.parse_events(request(sparkpost.batch(reported))) == []


def test_a_batch_keeps_its_order_and_a_ping_has_nothing(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    adapter.send([mail()])
    reported = [sparkpost.report(kind, sparkpost.mails[0]) for kind in ("delivery", "open", "spam_complaint")]
    events = adapter.parse_events(request(sparkpost.batch(*reported)))
    assert [event.type for event in events] == ["delivered", "opened", "complained"]
    assert adapter.parse_events(request(sparkpost.batch())) == []
    again = adapter.parse_events(request(sparkpost.batch(*reversed(reported))))
    assert {event.natural_key for event in again} == {event.natural_key for event in events}
    assert len({event.natural_key for event in events}) == 3


def test_inbound_mail_comes_as_it_is(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    raw = "From: b@x.test\r\nSubject: Re: Offer\r\n\r\nYes\r\n"
    content = {"email_rfc822": base64.b64encode(raw.encode()).decode(), "email_rfc822_is_base64": True}
    relayed = {"content": content, "msg_from": "b@x.test", "rcpt_to": "in@demo.test"}
    body = json.dumps([{"msys": {"relay_message": relayed}}]).encode()
    token = HookRequest(headers={"x-messagesystems-webhook-token": sparkpost.hook_secret}, query={}, body=body)
    [event] = adapter.parse_events(token)
    assert (event.type, event.recipient, event.data["raw"]) == ("received", "in@demo.test", raw.encode())
    assert adapter.parse_events(token)[0].natural_key == event.natural_key


def test_a_call_without_the_secret_is_refused(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    hook = sparkpost.batch()
    for headers in (
        {},
        {"authorization": "Basic " + base64.b64encode(b"sparkpost:wrong").decode()},
        {"authorization": "Basic not base64!"},
        {"authorization": f"Bearer {sparkpost.hook_secret}"},
        {"x-messagesystems-webhook-token": "wrong"},
    ):
        with pytest.raises(BadSignature):
            adapter.parse_events(HookRequest(headers=headers, query={}, body=hook.body))
    open_to_all = open_adapter(sparkpost, hook_secret="")
    assert open_to_all.parse_events(HookRequest(headers={}, query={}, body=hook.body)) == []
    open_to_all.close()


@pytest.mark.parametrize("body", [b"", b"{", b"{}x", b"7", b"[7]", b"[{}]", b'[{"msys": {"message_event": 7}}]'])
def test_a_call_that_is_no_batch_is_refused(sparkpost: SparkPostEmulator, adapter: SparkPost, body: bytes) -> None:
    hook = sparkpost.batch()
    with pytest.raises(BadSignature):
        adapter.parse_events(request(Hook(body, hook.headers)))


def test_nothing_secret_stands_in_outcomes_or_reprs(sparkpost: SparkPostEmulator, adapter: SparkPost) -> None:
    sparkpost.fail(Fault.UNAUTHORIZED, Fault.CLOSE)
    shown = repr([*adapter.send([mail()]), *adapter.send([mail()]), adapter.account])
    assert sparkpost.api_key not in shown
    assert "bob@client.test" not in shown
