"""Mailgun against its emulator: what goes out, what each answer means, what its events become."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from providers.base import BadSignature, HookRequest, Lookup, Result
from providers.emulators.http import Fault, Hook
from providers.emulators.mailgun import MailgunEmulator, multipart
from providers.mailgun import Mailgun
from providers.mailgun_hooks import REPLAY_SECONDS
from tests.providers.samples import ON_THE_WIRE, QUICK, account, mail
from worker.inbound_mail import read_inbound


@pytest.fixture
def mailgun() -> Iterator[MailgunEmulator]:
    with MailgunEmulator() as emulator:
        yield emulator


@pytest.fixture
def adapter(mailgun: MailgunEmulator) -> Iterator[Mailgun]:
    adapter = open_adapter(mailgun)
    yield adapter
    adapter.close()


def open_adapter(mailgun: MailgunEmulator, **credentials: str) -> Mailgun:
    given = {"api_key": mailgun.api_key, "domain": mailgun.domain, "signing_key": mailgun.signing_key, **credentials}
    adapter = Mailgun(account("mailgun", mailgun, **given))
    adapter._api.timeout = QUICK
    return adapter


def request(hook: Hook) -> HookRequest:
    return HookRequest(headers={}, query={}, body=hook.body)


def test_a_mail_goes_out_byte_for_byte_with_its_ref_and_envelope(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    email = mail("bob@client.test", "bcc@client.test", ip_pool="pool-1")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.ACCEPTED
    assert outcome.provider_message_id == email.rfc_message_id
    assert outcome.rfc_message_id is None
    [taken] = mailgun.mails
    assert taken.mime == email.mime
    assert taken.ref == email.ref
    assert taken.recipients == ["bob@client.test", "bcc@client.test"]
    assert taken.options == {"o:tracking": "no", "o:sending-ip-pool": "pool-1"}


def test_a_list_comes_back_in_its_order_each_mail_sent_once(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    emails = [mail(f"u{number}@client.test") for number in range(12)]
    outcomes = adapter.send(emails)
    assert [outcome.provider_message_id for outcome in outcomes] == [email.rfc_message_id for email in emails]
    assert mailgun.delivered_once(email.ref for email in emails)


@pytest.mark.parametrize(("fault", "result"), ON_THE_WIRE)
def test_one_failing_send_is_one_request_and_its_honest_outcome(
    mailgun: MailgunEmulator, adapter: Mailgun, fault: Fault, result: Result
) -> None:
    mailgun.fail(fault)
    [outcome] = adapter.send([mail()])
    assert outcome.result is result
    assert len(mailgun.calls) == 1


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (400, {"message": "to parameter is not a valid address"}, Result.PERMANENT),
        (401, b"Forbidden", Result.CREDENTIALS),
        (402, {"message": "account is disabled"}, Result.CREDENTIALS),
        (403, {"message": "domain is not verified"}, Result.CREDENTIALS),
        (404, {"message": "Domain not found"}, Result.CREDENTIALS),
        (413, {"message": "too large"}, Result.PERMANENT),
        (200, b"Mailgun Magnificent API", Result.CREDENTIALS),
        (200, b"<html>welcome</html>", Result.UNCERTAIN),
        (200, [], Result.UNCERTAIN),
        (301, None, Result.CREDENTIALS),
        (502, {"message": "bad gateway"}, Result.UNCERTAIN),
    ],
)
def test_every_answer_has_its_outcome(
    mailgun: MailgunEmulator, adapter: Mailgun, monkeypatch: pytest.MonkeyPatch, status: int, body: Any, result: Result
) -> None:
    from providers.emulators.http import Reply

    monkeypatch.setattr(mailgun, "answer", lambda _: Reply(status, body))
    [outcome] = adapter.send([mail()])
    assert (outcome.result, outcome.code) == (result, str(status))
    if isinstance(body, dict):
        assert outcome.detail == body["message"]


def test_the_wait_of_a_429_is_read_from_header_or_words(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    mailgun.fail(Fault.THROTTLED)
    assert adapter.send([mail()])[0].retry_after == 30.0
    mailgun.retry_after = "7"
    mailgun.fail(Fault.THROTTLED)
    assert adapter.send([mail()])[0].retry_after == 7.0


@pytest.mark.parametrize("message_id", ["<no-at-sign>", "<two@at@signs>", "bare@demo.test"])
def test_a_message_id_that_would_be_replaced_is_refused(
    mailgun: MailgunEmulator, adapter: Mailgun, message_id: str
) -> None:
    [outcome] = adapter.send([mail(rfc_message_id=message_id)])
    assert outcome.result is Result.PERMANENT
    assert "Message-ID" in outcome.detail
    assert mailgun.calls == []


def test_what_is_too_large_is_refused_without_a_request(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    emails = [mail(mime=b"a" * (adapter.max_bytes + 1)), mail(*[f"u{number}@client.test" for number in range(1001)])]
    assert [outcome.result for outcome in adapter.send(emails)] == [Result.PERMANENT] * 2
    assert mailgun.calls == []


def test_a_replaced_message_id_is_reported(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    mailgun.rewrite_message_id = True
    [outcome] = adapter.send([mail()])
    assert outcome.rfc_message_id == f"<{mailgun.mails[0].message_id}>"


@pytest.mark.parametrize("rewritten", [False, True])
def test_lookup_finds_a_mail_that_was_taken_before_a_504(
    mailgun: MailgunEmulator, adapter: Mailgun, rewritten: bool
) -> None:
    mailgun.rewrite_message_id = rewritten
    email = mail()
    mailgun.fail(Fault.ACCEPT_THEN_504)
    [outcome] = adapter.send([email])
    assert outcome.result is Result.UNCERTAIN
    found = adapter.lookup(email)
    assert found.answer is Lookup.ACCEPTED
    assert found.rfc_message_id == f"<{mailgun.mails[0].message_id}>"
    assert mailgun.delivered_once([email.ref])


def test_lookup_says_no_for_a_mail_that_never_came_and_for_one_with_the_same_message_id(
    mailgun: MailgunEmulator, adapter: Mailgun
) -> None:
    email = mail()
    assert adapter.lookup(email).answer is Lookup.NOT_ACCEPTED
    adapter.send([mail(rfc_message_id=email.rfc_message_id)])
    assert adapter.lookup(email).answer is Lookup.NOT_ACCEPTED


def test_a_no_of_the_index_is_early_while_it_lags(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    mailgun.index_lag_seconds = 60
    email = mail()
    adapter.send([email])
    assert adapter.lookup(email).answer is Lookup.NOT_ACCEPTED
    assert adapter.settle_seconds == 1800


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.HANG, Fault.ERROR_500, Fault.THROTTLED, Fault.UNAUTHORIZED])
def test_a_lookup_that_gets_no_answer_says_so(mailgun: MailgunEmulator, adapter: Mailgun, fault: Fault) -> None:
    mailgun.fail(fault)
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED


def test_check_tells_good_credentials_from_bad_ones(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    assert adapter.check().result is Result.ACCEPTED
    for wrong in ({"api_key": "no"}, {"domain": "other.test"}):
        other = open_adapter(mailgun, **wrong)
        assert other.check().result is Result.CREDENTIALS
        other.close()


def test_nothing_secret_stands_in_outcomes_or_reprs(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    mailgun.fail(Fault.UNAUTHORIZED, Fault.CLOSE)
    shown = repr([*adapter.send([mail()]), *adapter.send([mail()]), adapter.account])
    assert mailgun.api_key not in shown
    assert "bob@client.test" not in shown


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("accepted", "accepted", {}),
        ("delivered", "delivered", {"code": 250, "reason": "OK"}),
        ("bounced", "bounced", {"code": 550, "reason": "5.1.1 no such user", "bounce_class": "hard"}),
        ("suppressed", "bounced", {"code": 605, "bounce_type": "suppress-bounce", "bounce_class": "hard"}),
        ("deferred", "deferred", {"code": 451, "bounce_class": "soft"}),
        ("rejected", "bounced", {"bounce_class": "blocked"}),
        ("complained", "complained", {}),
        ("unsubscribed", "unsubscribed", {"ip": "192.0.2.7"}),
        ("opened", "opened", {"user_agent": "Mail/1.0"}),
        ("clicked", "clicked", {"url": "https://demo.test/a"}),
    ],
)
def test_every_event_has_our_word(
    mailgun: MailgunEmulator, adapter: Mailgun, name: str, kind: str, data: dict[str, Any]
) -> None:
    email = mail()
    adapter.send([email])
    reported = mailgun.report(name, mailgun.mails[0])
    [event] = adapter.parse_events(request(mailgun.signed(reported)))
    assert (event.type, event.ref, event.recipient) == (kind, email.ref, "bob@client.test")
    assert event.provider_message_id == event.rfc_message_id == email.rfc_message_id
    assert event.at.timestamp() == pytest.approx(reported["timestamp"])
    assert data.items() <= event.data.items()


def test_an_event_that_says_nothing_about_a_mail_is_passed_over(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    hook = mailgun.signed({"id": "1", "timestamp": time.time(), "event": "stored"})
    assert adapter.parse_events(request(hook)) == []


def test_the_same_report_twice_is_the_same_event(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    adapter.send([mail()])
    hook = mailgun.hooks[1]
    first, second = (adapter.parse_events(request(hook))[0].natural_key for _ in range(2))
    again = adapter.parse_events(request(mailgun.signed(json.loads(hook.body)["event-data"])))[0].natural_key
    assert first == second == again
    assert first != adapter.parse_events(request(mailgun.hooks[0]))[0].natural_key


def test_a_wrong_old_or_missing_signature_is_refused(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    event = {"id": "1", "timestamp": time.time(), "event": "opened"}
    good = json.loads(mailgun.signed(event).body)
    forged = json.dumps({**good, "signature": {**good["signature"], "signature": "0" * 64}}).encode()
    unsigned = json.dumps({"event-data": event}).encode()
    old = mailgun.signed(event, timestamp=time.time() - REPLAY_SECONDS - 5).body
    early = mailgun.signed(event, timestamp=time.time() + 3600).body
    for body in (forged, unsigned, old, early, b"", b"[]", b"{", b"event=opened"):
        with pytest.raises(BadSignature):
            adapter.parse_events(request(Hook(body)))


def test_a_captured_signature_does_not_carry_another_body(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    captured = json.loads(mailgun.signed({"id": "1", "timestamp": time.time(), "event": "opened"}).body)
    adapter.parse_events(request(Hook(json.dumps(captured).encode())))
    captured["event-data"]["event"] = "complained"
    with pytest.raises(BadSignature):
        adapter.parse_events(request(Hook(json.dumps(captured).encode())))


def test_without_a_signing_key_no_event_is_believed(mailgun: MailgunEmulator) -> None:
    adapter = open_adapter(mailgun, signing_key="")
    mailgun.signing_key = ""
    with pytest.raises(BadSignature):
        adapter.parse_events(request(mailgun.signed({"id": "1", "timestamp": time.time(), "event": "opened"})))
    adapter.close()


def test_a_storm_of_faults_and_honest_retries_deliver_each_mail_once(
    mailgun: MailgunEmulator, adapter: Mailgun
) -> None:
    chances = {Fault.ACCEPT_THEN_504: 0.2, Fault.ACCEPT_THEN_CLOSE: 0.2, Fault.THROTTLED: 0.2, Fault.CLOSE: 0.1}
    mailgun.fail_at_random(chances, path="/messages.mime")
    emails = [mail(f"u{number}@client.test") for number in range(30)]
    waiting = emails
    for _ in range(30):
        outcomes = adapter.send(waiting)
        waiting = [
            email
            for email, outcome in zip(waiting, outcomes, strict=True)
            if outcome.result is not Result.ACCEPTED
            and not (outcome.result is Result.UNCERTAIN and adapter.lookup(email).answer is Lookup.ACCEPTED)
        ]
    assert waiting == []
    assert mailgun.delivered_once(email.ref for email in emails)


def test_the_emulator_reads_the_multipart_form_whole(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    email = mail(mime=b"Subject: x\r\n\r\n--not a boundary\r\n\x00\xff\r\n")
    adapter.send([email])
    assert multipart(mailgun.calls[0])["message"] == [email.mime]


MIME = (
    b"From: Ann <ann@client.test>\r\nMessage-ID: <in-1@client.test>\r\nSubject: Gr\xfc\xdfe\r\n\r\n\x00\xff binary\r\n"
)
ROUTED = {
    "recipient": "in@mg.demo.test",
    "sender": "bounces@client.test",
    "from": "Ann <ann@client.test>",
    "subject": "Re: Offer",
    "body-plain": "Thanks!",
    "Message-Id": "<in-1@client.test>",
    "message-headers": json.dumps([["To", "A <in@mg.demo.test>, b@demo.test"], ["In-Reply-To", "<x@demo.test>"]]),
    "content-id-map": json.dumps({"<logo>": "attachment-1"}),
}


def routed(fields: Mapping[str, str], *files: tuple[str, str, bytes]) -> HookRequest:
    """The call of a route, in the encoding that Mailgun chooses: multipart where there are files."""
    uploads = [(name, (filename, data, "image/png")) for name, filename, data in files]
    prepared = requests.Request("POST", "http://h.test", data=dict(fields), files=uploads).prepare()
    assert isinstance(prepared.body, bytes | str)
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    return HookRequest(headers={"content-type": prepared.headers["Content-Type"]}, query={}, body=body)


def test_a_route_brings_a_mail_by_its_fields_and_files(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    tricky = b"\r\n--boundary\r\n\r\n\x00\xff\r\n"
    [event] = adapter.parse_events(routed(mailgun.routed(**ROUTED), ("attachment-1", "a.png", tricky)))
    assert (event.type, event.recipient, event.rfc_message_id) == ("received", "in@mg.demo.test", "<in-1@client.test>")
    [file] = event.data["attachments"]
    assert base64.b64decode(file["content_base64"]) == tricky
    assert (file["filename"], file["content_id"]) == ("a.png", "logo")
    mail = read_inbound(event)
    assert mail is not None
    assert (mail.from_email, mail.to, mail.in_reply_to) == (
        "ann@client.test", ("in@mg.demo.test", "b@demo.test"), "<x@demo.test>",
    )  # fmt: skip


@pytest.mark.parametrize("multipart", [True, False])
def test_a_route_to_a_mime_url_brings_the_mail_as_it_is(
    mailgun: MailgunEmulator, adapter: Mailgun, multipart: bool
) -> None:
    fields = mailgun.routed(recipient="in@mg.demo.test", sender="bounces@client.test")
    given = fields | {"body-mime": MIME.decode(errors="surrogateescape")}
    if multipart:
        parts = "".join(f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in given.items())
        body = f"{parts}--b--\r\n".encode(errors="surrogateescape")
        call = HookRequest(headers={"content-type": 'multipart/form-data; boundary="b"'}, query={}, body=body)
    else:
        body = urlencode(given, errors="surrogateescape").encode()
        call = HookRequest(headers={"content-type": "application/x-www-form-urlencoded"}, query={}, body=body)
    [event] = adapter.parse_events(call)
    assert (event.data["raw"], event.data["envelope_from"], event.locator) == (MIME, "bounces@client.test", None)


def test_a_route_that_stores_names_where_the_mail_lies(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    url = mailgun.store(MIME)
    [event] = adapter.parse_events(routed(mailgun.routed(**ROUTED, **{"message-url": url})))
    assert (event.locator, read_inbound(event)) == (url, None)
    [again] = adapter.parse_events(request(mailgun.signed({"event": "stored", "id": "1", "timestamp": 1.0,
                                                           "storage": {"url": [url]}})))  # fmt: skip
    assert again.locator == url
    fetched = adapter.inbox().fetch(url)
    assert fetched is not None
    assert fetched.raw == MIME


def test_a_routes_signature_counts_for_one_mail_only(mailgun: MailgunEmulator, adapter: Mailgun) -> None:
    signed = mailgun.routed(**ROUTED)
    first = adapter.parse_events(routed(signed))
    assert adapter.parse_events(routed(signed)) == first, "Mailgun repeats what was not answered"
    changed: list[dict[str, str]] = [
        {**signed, "body-plain": "Send money"},
        {**signed, "signature": "0" * 64},
        {name: value for name, value in signed.items() if name != "token"},
        {**mailgun.routed(**ROUTED), "timestamp": "1"},
        {**mailgun.routed(**ROUTED), "message-headers": "[[1]]"},
    ]
    for fields in changed:
        with pytest.raises(BadSignature):
            adapter.parse_events(routed(fields))
    with pytest.raises(BadSignature):
        adapter.parse_events(HookRequest(headers={"content-type": "multipart/form-data"}, query={}, body=b"--x"))
