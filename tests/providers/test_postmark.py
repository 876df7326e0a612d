"""Postmark against its emulator: what goes out, what each answer means, what its webhooks become."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import postmarker.exceptions
import pytest
from postmarker.core import PostmarkClient

import providers.postmark
from providers.base import BadSignature, HookRequest, Lookup, Mailbox, Outcome, ProviderEvent, Result
from providers.emulators.http import Call, Fault, Hook, Reply
from providers.emulators.postmark import Mail, PostmarkEmulator
from providers.http import Timeout
from providers.postmark import Postmark
from tests.providers.samples import ON_THE_WIRE, QUICK, account, fields, file, mail


@pytest.fixture
def postmark() -> Iterator[PostmarkEmulator]:
    with PostmarkEmulator() as emulator:
        yield emulator


@pytest.fixture
def adapter(postmark: PostmarkEmulator) -> Iterator[Postmark]:
    adapter = open_adapter(postmark)
    yield adapter
    adapter.close()


def open_adapter(postmark: PostmarkEmulator, **credentials: str) -> Postmark:
    adapter = Postmark(account("postmark", postmark, **{"server_token": postmark.server_token, **credentials}))
    adapter._api.timeout = QUICK
    return adapter


def send_one(adapter: Postmark, **changes: Any) -> Outcome:
    [outcome] = adapter.send([mail(**changes)])
    return outcome


def request(hook: Hook) -> HookRequest:
    return HookRequest(headers={name.lower(): text for name, text in hook.headers.items()}, query={}, body=hook.body)


def events(adapter: Postmark, hooks: list[Hook]) -> list[ProviderEvent]:
    return [event for hook in hooks for event in adapter.parse_events(request(hook))]


def taken_mail(postmark: PostmarkEmulator, adapter: Postmark, *recipients: str) -> Mail:
    adapter.send([mail(*recipients)])
    postmark.hooks.clear()
    return postmark.mails[-1]


def test_every_field_of_a_mail_is_carried(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    email = mail(
        recipients=("bob@client.test", "cc@client.test", "bcc@client.test"),
        fields=fields(
            sender=Mailbox(email="ann@demo.test", name='Ann "A", Ltd \\ Ä'),
            cc=(Mailbox(email="cc@client.test"),),
            bcc=(Mailbox(email="bcc@client.test"),),
            reply_to=(Mailbox(email="desk@bücher.test"),),
            text="Hello",
            headers={"In-Reply-To": "<x@client.test>"},
            files=(
                file(5, filename="logo.png", content_type="image/png", inline=True, content_id="logo"),
                file(3, filename="ö.txt", content_type="text/plain"),
            ),
        ),
    )
    [outcome] = adapter.send([email])
    [taken] = postmark.mails
    assert outcome.result is Result.ACCEPTED
    assert outcome.provider_message_id == taken.id
    assert outcome.recipients == {}
    assert taken.fields == {
        "From": '"Ann \\"A\\", Ltd \\\\ Ä" <ann@demo.test>',
        "To": '"Bob" <bob@client.test>',
        "Cc": "cc@client.test",
        "Bcc": "bcc@client.test",
        "ReplyTo": "desk@xn--bcher-kva.test",
        "Subject": "Offer",
        "HtmlBody": "<p>Hello</p>",
        "TextBody": "Hello",
        "Headers": [
            {"Name": "In-Reply-To", "Value": "<x@client.test>"},
            {"Name": "Message-ID", "Value": email.rfc_message_id},
            {"Name": "X-PM-KeepID", "Value": "true"},
        ],
        "Attachments": [
            {"Name": "logo.png", "Content": "YWFhYWE=", "ContentType": "image/png", "ContentID": "cid:logo"},
            {"Name": "ö.txt", "Content": "YWFh", "ContentType": "text/plain"},
        ],
        "Metadata": {"ref": email.ref},
        "MessageStream": "outbound",
        "TrackOpens": False,
        "TrackLinks": "None",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ip_pool": "pool-1"}, "no IP pools"),
        ({"fields": None}, "as fields"),
        ({"recipients": ("jörg@client.test",)}, "beyond ASCII"),
        ({"fields": fields(sender=Mailbox(email="ünn@demo.test"))}, "beyond ASCII"),
        ({"fields": fields(sender=Mailbox(email="ann@bü..cher.test"))}, "no ASCII form"),
        ({"fields": fields(files=(file(1, inline=True),))}, "content id"),
        ({"fields": fields(files=(file(8 * 1024 * 1024),))}, "up to 10485760 bytes"),
    ],
)
def test_what_postmark_cannot_carry_is_refused_before_the_wire(
    postmark: PostmarkEmulator, adapter: Postmark, changes: dict[str, Any], words: str
) -> None:
    outcome = send_one(adapter, **changes)
    assert outcome.result is Result.PERMANENT
    assert words in outcome.detail
    assert postmark.calls == []


def test_one_mail_that_cannot_be_carried_does_not_stop_the_others(
    postmark: PostmarkEmulator, adapter: Postmark
) -> None:
    good, bad, other = mail("a@client.test"), mail(ip_pool="pool-1"), mail("b@client.test")
    outcomes = adapter.send([good, bad, other])
    assert [outcome.result for outcome in outcomes] == [Result.ACCEPTED, Result.PERMANENT, Result.ACCEPTED]
    assert postmark.delivered_once([good.ref, other.ref])


def test_a_retry_names_only_recipients_that_are_still_to_be_served(
    postmark: PostmarkEmulator, adapter: Postmark
) -> None:
    boxes = tuple(Mailbox(email=f"{name}@client.test") for name in ("a", "b"))
    send_one(
        adapter,
        fields=fields(to=boxes, cc=(Mailbox(email="c@client.test"),)),
        recipients=("B@client.test", "d@client.test"),
    )
    [taken] = postmark.mails
    assert taken.fields["To"] == "b@client.test"
    assert "Cc" not in taken.fields
    assert taken.fields["Bcc"] == "d@client.test"


def test_600_mails_go_out_in_two_calls_and_come_back_in_order(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    adapter._api.timeout = Timeout()
    emails = [mail(f"u{number}@client.test") for number in range(600)]
    outcomes = adapter.send(emails)
    assert [len(call.json) for call in postmark.calls] == [500, 100]
    ids = {taken.ref: taken.id for taken in postmark.mails}
    assert [outcome.provider_message_id for outcome in outcomes] == [ids[email.ref] for email in emails]
    assert postmark.delivered_once(email.ref for email in emails)


def test_a_call_is_cut_before_it_gets_too_large(
    postmark: PostmarkEmulator, adapter: Postmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.postmark, "MAX_CALL_BYTES", 10_000)
    adapter.send([mail(fields=fields(files=(file(3000),))) for _ in range(5)])
    assert [len(call.json) for call in postmark.calls] == [2, 2, 1]


def test_no_call_starts_when_the_lease_could_run_out(
    postmark: PostmarkEmulator, adapter: Postmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.postmark, "LAST_CALL_SECONDS", -1.0)
    assert send_one(adapter).result is Result.TRANSIENT
    assert postmark.calls == []


def test_a_batch_is_accepted_in_part(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    postmark.inactive = {"gone@client.test", "also@client.test"}
    emails = [mail("a@client.test"), mail("gone@client.test"), mail("b@client.test", "Also@client.test")]
    postmark.inactive.add("Also@client.test")
    accepted, refused, partly = adapter.send(emails)
    assert accepted.result is Result.ACCEPTED
    assert (refused.result, refused.code) == (Result.PERMANENT, "422/406")
    assert "gone@client.test" in refused.detail
    assert partly.result is Result.ACCEPTED
    assert {address: outcome.result for address, outcome in partly.recipients.items()} == {
        "Also@client.test": Result.PERMANENT
    }


def test_accepted_but_delayed_comes_without_an_error_code(
    postmark: PostmarkEmulator, adapter: Postmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, postmark, Reply(200, [{"MessageID": "m-1", "Message": "Accepted, may be delayed"}]))
    outcome = send_one(adapter)
    assert (outcome.result, outcome.provider_message_id) == (Result.ACCEPTED, "m-1")


def answer(monkeypatch: pytest.MonkeyPatch, postmark: PostmarkEmulator, reply: Reply) -> None:
    def same(_: Call) -> Reply:
        return reply

    monkeypatch.setattr(postmark, "answer", same)


@pytest.mark.parametrize(("fault", "result"), ON_THE_WIRE)
def test_one_failing_send_is_one_request_and_its_honest_outcome(
    postmark: PostmarkEmulator, adapter: Postmark, fault: Fault, result: Result
) -> None:
    postmark.fail(fault)
    assert send_one(adapter).result is result
    assert len(postmark.calls) == 1


def test_maintenance_lasts_as_long_as_postmark_says(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    postmark.retry_after = "120"
    postmark.fail(Fault.ERROR_503)
    outcome = send_one(adapter)
    assert (outcome.result, outcome.retry_after, outcome.code) == (Result.TRANSIENT, 120.0, "503/100")


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, b"<html>not Postmark</html>", Result.UNCERTAIN),
        (200, {"no": "list"}, Result.UNCERTAIN),
        (200, [], Result.UNCERTAIN),
        (200, ["?"], Result.UNCERTAIN),
        (200, [{}], Result.UNCERTAIN),
        (200, [{"ErrorCode": 300, "Message": "Invalid 'To' address"}], Result.PERMANENT),
        (200, [{"ErrorCode": 400, "Message": "no Sender Signature"}], Result.PERMANENT),
        (200, [{"ErrorCode": 405, "Message": "not allowed to send"}], Result.CREDENTIALS),
        (200, [{"ErrorCode": 412, "Message": "pending approval"}], Result.CREDENTIALS),
        (200, [{"ErrorCode": 701, "Message": "file type"}], Result.PERMANENT),
        (200, [{"ErrorCode": 9999, "Message": "new"}], Result.PERMANENT),
        (302, b"<a href>", Result.CREDENTIALS),
        (401, {"ErrorCode": 10, "Message": "token"}, Result.CREDENTIALS),
        (403, b"<html>blocked</html>", Result.CREDENTIALS),
        (408, b"", Result.UNCERTAIN),
        (413, b"", Result.PERMANENT),
        (422, {"ErrorCode": 402, "Message": "invalid JSON"}, Result.PERMANENT),
        (422, {"ErrorCode": 413, "Message": "may not send"}, Result.CREDENTIALS),
        (422, {"Message": "no code"}, Result.PERMANENT),
        (422, ["not an object"], Result.PERMANENT),
        (422, "a string", Result.PERMANENT),
        (429, {"Message": "no code"}, Result.THROTTLED),
        (429, b"", Result.THROTTLED),
        (500, {"ErrorCode": 500, "Message": "?"}, Result.UNCERTAIN),
        (502, b"<html>", Result.UNCERTAIN),
        (503, b"", Result.UNCERTAIN),
        (504, b"", Result.UNCERTAIN),
    ],
)
def test_each_answer_has_one_meaning(
    postmark: PostmarkEmulator,
    adapter: Postmark,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: Any,
    result: Result,
) -> None:
    answer(monkeypatch, postmark, Reply(status, body, {"Location": "/x"} if status == 302 else {}))
    outcome = send_one(adapter)
    assert outcome.result is result
    assert outcome.detail


def test_a_refusal_carries_postmarks_own_words_and_code(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    postmark.unconfirmed = {"ann@demo.test"}
    outcome = send_one(adapter)
    assert outcome.code == "422/400"
    assert outcome.detail.startswith("The 'From' address you supplied")


def test_nothing_listening_is_surely_not_sent(postmark: PostmarkEmulator) -> None:
    postmark.stop()
    assert send_one(open_adapter(postmark)).result is Result.TRANSIENT


def test_the_token_is_in_no_repr_and_no_outcome(postmark: PostmarkEmulator) -> None:
    adapter = open_adapter(postmark, server_token="sesame")
    outcome = send_one(adapter)
    assert outcome.result is Result.CREDENTIALS
    assert "sesame" not in repr([adapter.account, adapter._client, outcome])


def test_lookup_resolves_what_was_accepted_before_a_504(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    emails = [mail(f"u{number}@client.test") for number in range(4)]
    postmark.break_after = 2
    assert {outcome.result for outcome in adapter.send(emails)} == {Result.UNCERTAIN}
    answers = [adapter.lookup(email) for email in emails]
    accepted, missing = Lookup.ACCEPTED, Lookup.NOT_ACCEPTED
    assert [found.answer for found in answers] == [accepted, accepted, missing, missing]
    assert [found.provider_message_id for found in answers[:2]] == [taken.id for taken in postmark.mails]


def test_the_search_lags_behind_and_settle_seconds_say_for_how_long() -> None:
    with PostmarkEmulator(index_lag_seconds=0.2) as postmark:
        adapter, email = open_adapter(postmark), mail()
        adapter.send([email])
        assert adapter.lookup(email).answer is Lookup.NOT_ACCEPTED
        time.sleep(0.25)
        assert adapter.lookup(email).answer is Lookup.ACCEPTED
        adapter.close()
    assert Postmark.settle_seconds >= 60


@pytest.mark.parametrize("fault", [Fault.ERROR_500, Fault.CLOSE, Fault.UNAUTHORIZED, Fault.THROTTLED])
def test_a_lookup_that_fails_says_so(postmark: PostmarkEmulator, adapter: Postmark, fault: Fault) -> None:
    email = mail()
    adapter.send([email])
    postmark.fail(fault)
    assert adapter.lookup(email).answer is Lookup.UNANSWERED


@pytest.mark.parametrize("body", [b"<html>", [], {"Messages": None}])
def test_a_lookup_answered_with_something_else_tells_nothing(
    postmark: PostmarkEmulator, adapter: Postmark, monkeypatch: pytest.MonkeyPatch, body: Any
) -> None:
    answer(monkeypatch, postmark, Reply(200, body))
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED


def test_a_search_that_ignores_the_filter_is_not_believed(
    postmark: PostmarkEmulator, adapter: Postmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, postmark, Reply(200, {"Messages": [{"MessageID": "m-1", "Metadata": {"ref": "another"}}]}))
    assert adapter.lookup(mail()).answer is Lookup.NOT_ACCEPTED


def test_check_tells_a_good_token_from_a_bad_one(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    assert adapter.check().result is Result.ACCEPTED
    assert open_adapter(postmark, server_token="wrong").check().result is Result.CREDENTIALS


def test_a_base_url_with_a_path_keeps_it(postmark: PostmarkEmulator) -> None:
    given = account("postmark", postmark, server_token=postmark.server_token)
    adapter = Postmark(
        type(given)(
            **{name: getattr(given, name) for name in ("mailer_id", "provider", "credentials", "guard")},
            base_url=f"{postmark.url}/eu/",
        )
    )
    adapter.send([mail()])
    assert postmark.calls[0].path == "/eu/email/batch"
    adapter.close()


def test_news_of_delivery_and_bounce_name_mail_and_recipient(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    email = mail("bob@client.test", "hardbounce@client.test")
    adapter.send([email])
    delivered, bounced = events(adapter, postmark.hooks)
    assert (delivered.type, delivered.recipient, delivered.ref) == ("delivered", "bob@client.test", email.ref)
    assert (bounced.type, bounced.recipient, bounced.ref) == ("bounced", "hardbounce@client.test", email.ref)
    assert delivered.provider_message_id == bounced.provider_message_id == postmark.mails[0].id
    assert bounced.data["bounce_class"] == "hard"
    assert bounced.data["reason"] == "smtp;550 5.1.1 no such user"
    assert delivered.at.utcoffset() is not None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("HardBounce", ["bounced"]),
        ("SoftBounce", ["bounced"]),
        ("Blocked", ["bounced"]),
        ("DMARCPolicy", ["bounced"]),
        ("Transient", ["deferred"]),
        ("DnsError", ["deferred"]),
        ("SpamNotification", ["complained"]),
        ("TemplateRenderingFailed", ["generation_failed"]),
        ("ManualSuppression", ["unsubscribed"]),
        ("AutoResponder", []),
        ("Subscribe", []),
        ("SomethingNew", ["deferred"]),
    ],
)
def test_each_kind_of_bounce_becomes_its_event(
    postmark: PostmarkEmulator, adapter: Postmark, kind: str, expected: list[str]
) -> None:
    postmark.bounce(taken_mail(postmark, adapter), kind=kind)
    assert [event.type for event in events(adapter, postmark.hooks)] == expected


def test_opens_clicks_complaints_and_unsubscribes_are_reported(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    taken = taken_mail(postmark, adapter)
    postmark.report("Open", taken, UserAgent="Mailer/1", FirstOpen=True)
    postmark.report("Click", taken, OriginalLink="https://demo.test/x")
    postmark.report("SpamComplaint", taken)
    postmark.report("SubscriptionChange", taken, SuppressSending=True, SuppressionReason="ManualSuppression")
    postmark.report("SubscriptionChange", taken, SuppressSending=True, SuppressionReason="HardBounce")
    postmark.report("SubscriptionChange", taken, SuppressSending=False, SuppressionReason=None)
    found = events(adapter, postmark.hooks)
    assert [event.type for event in found] == ["opened", "clicked", "complained", "unsubscribed"]
    assert found[0].data == {"user_agent": "Mailer/1", "first": True}
    assert found[1].data["url"] == "https://demo.test/x"


def test_an_unknown_record_is_no_event(adapter: Postmark) -> None:
    assert adapter.parse_events(HookRequest(headers={}, query={}, body=b'{"RecordType": "Novelty"}')) == []


def test_a_replayed_report_is_the_same_event_and_others_are_not(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    taken = taken_mail(postmark, adapter, "a@client.test", "b@client.test")
    for address in taken.recipients:
        postmark.report("Open", taken, address)
        postmark.bounce(taken, address)
    once = events(adapter, postmark.hooks)
    assert len({event.natural_key for event in once}) == 4
    assert events(adapter, postmark.hooks) == once


@pytest.mark.parametrize(
    "header", [None, "Basic cG9zdG1hcms6d3Jvbmc=", "Bearer cG9zdG1hcms6c2VzYW1l", "Basic ???", "Basic"]
)
def test_a_call_without_the_password_is_refused(postmark: PostmarkEmulator, header: str | None) -> None:
    adapter = open_adapter(postmark, hook_secret="sesame")
    headers = {"authorization": header} if header else {}
    with pytest.raises(BadSignature):
        adapter.parse_events(HookRequest(headers=headers, query={}, body=b'{"RecordType": "Open"}'))


def test_a_call_with_the_password_is_read(postmark: PostmarkEmulator) -> None:
    adapter = open_adapter(postmark, hook_secret="sesame")
    postmark.hook_password = "sesame"
    adapter.send([mail()])
    assert [event.type for event in events(adapter, postmark.hooks)] == ["delivered"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_body_that_postmark_would_not_send_is_refused(adapter: Postmark, body: bytes) -> None:
    with pytest.raises(BadSignature):
        adapter.parse_events(HookRequest(headers={}, query={}, body=body))


def test_an_inbound_mail_arrives_with_all_its_parts(postmark: PostmarkEmulator, adapter: Postmark) -> None:
    postmark.receive(
        {
            "MessageID": "in-1",
            "FromFull": {"Email": "bob@client.test", "Name": "Bob", "MailboxHash": ""},
            "ToFull": [{"Email": "h+k3v9@inbound.test", "Name": "", "MailboxHash": "k3v9"}],
            "CcFull": [],
            "OriginalRecipient": "h+k3v9@inbound.test",
            "MailboxHash": "k3v9",
            "Subject": "Re: Offer",
            "Date": "Sat, 21 Nov 2026 10:05:00 +0000",
            "TextBody": "Yes",
            "HtmlBody": "<p>Yes</p>",
            "StrippedTextReply": "Yes",
            "Headers": [
                {"Name": "Message-ID", "Value": "<y@client.test>"},
                {"Name": "In-Reply-To", "Value": "<x@demo.test>"},
            ],
            "Attachments": [
                {"Name": "a.pdf", "Content": "JVBERi0=", "ContentType": "application/pdf", "ContentID": ""},
                {"Name": "b.txt", "Data": base64.b64encode(b"test").decode(), "ContentType": "text/plain"},
            ],
        }
    )
    [event] = events(adapter, postmark.hooks)
    assert (event.type, event.natural_key) == ("received", "postmark:Inbound:in-1")
    assert event.rfc_message_id == "<y@client.test>"
    assert event.data["from"] == [{"email": "bob@client.test", "name": "Bob"}]
    assert event.data["to"] == [{"email": "h+k3v9@inbound.test", "name": None}]
    assert event.data["bcc"] == []
    assert event.data["headers"][1] == ["In-Reply-To", "<x@demo.test>"]
    assert event.data["mailbox_hash"] == "k3v9"
    assert [part["content_base64"] for part in event.data["attachments"]] == ["JVBERi0=", "dGVzdA=="]
    assert event.data["raw"] is None
    json.dumps(event.data)


def test_postmarkers_own_methods_understand_the_emulator(postmark: PostmarkEmulator) -> None:
    client = PostmarkClient(server_token=postmark.server_token, root_api_url=f"{postmark.url}/", timeout=5)
    sent = client.emails.send(
        From="ann@demo.test", To="bob@client.test", Subject="x", TextBody="y", Metadata={"ref": "r1"}
    )
    assert sent["MessageID"] == postmark.mails[0].id
    assert postmark.delivered_once(["r1"])
    [found] = client.messages.outbound.all()
    assert found.MessageID == sent["MessageID"]
    with pytest.raises(postmarker.exceptions.ClientError, match="300"):
        client.emails.send(From="ann@demo.test", To="bob", Subject="x", TextBody="y")
    client.session.close()
