"""Gmail against its emulator: drafts that are sent once, what each answer means, what a lookup finds out."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from typing import Any

import pytest

import providers.gmail_search
import providers.gmail_service
import providers.oauth
from models.base import uuid7
from providers.base import Account, BadSignature, HookRequest, Lookup, LookupAnswer, OutboundEmail, Outcome, Result
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Call, Fault, Reply
from providers.gmail import Gmail
from providers.gmail_aliases import Alias
from providers.gmail_service import CallFailed
from providers.oauth import AccessTokens
from tests.providers.samples import ON_THE_WIRE, QUICK, account, mail

SCOPE = "https://www.googleapis.com/auth/gmail."
UNCERTAIN_FAULTS = [case for case in ON_THE_WIRE if case.values[1] is Result.UNCERTAIN]


@pytest.fixture
def gmail() -> Iterator[GmailEmulator]:
    providers.oauth._cache.clear()  # a port, and with it an account, may be that of a test before
    with GmailEmulator() as emulator:
        yield emulator


@pytest.fixture
def adapter(gmail: GmailEmulator) -> Iterator[Gmail]:
    adapter = open_adapter(gmail)
    yield adapter
    adapter.close()


def open_adapter(gmail: GmailEmulator, **credentials: str) -> Gmail:
    given = {"client_id": "client", "client_secret": "client-secret", "refresh_token": "refresh-token", **credentials}
    adapter = Gmail(account("gmail", gmail, **given))
    adapter._service.api.timeout = QUICK
    return adapter


def send_one(adapter: Gmail, **changes: Any) -> Outcome:
    [outcome] = adapter.send([mail(**changes)])
    return outcome


def again(email: OutboundEmail, outcome: Outcome | LookupAnswer) -> OutboundEmail:
    """The mail as the worker brings it for the next attempt."""
    return replace(email, draft_id=outcome.provider_message_id or email.draft_id)


def paths(gmail: GmailEmulator) -> list[str]:
    return [
        f"{call.method} {call.path.removeprefix('/gmail/v1/users/me/')}"
        for call in gmail.calls
        if call.path != "/token"
    ]


def answer(monkeypatch: pytest.MonkeyPatch, gmail: GmailEmulator, path: str, reply: Reply) -> None:
    """The emulator answers calls whose path ends in ``path`` with ``reply`` and does nothing."""
    honest = gmail.answer

    def same(call: Call) -> Reply:
        return reply if call.path.endswith(path) else honest(call)

    monkeypatch.setattr(gmail, "answer", same)


def refusal(status: int, reason: str, message: str = "refused") -> Reply:
    error = {"code": status, "message": message, "errors": [{"domain": "global", "reason": reason, "message": message}]}
    return Reply(status, {"error": error})


def test_a_mail_becomes_a_draft_and_the_draft_is_sent(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    [outcome] = adapter.send([email])
    [sent] = gmail.messages.values()
    assert outcome.result is Result.ACCEPTED
    assert outcome.provider_message_id == sent.id
    assert outcome.provider_thread_id == sent.thread_id
    assert sent.labels == ["SENT"]
    assert gmail.drafts == {}
    assert gmail.delivered_once([email.ref])
    assert paths(gmail) == ["POST drafts", "POST drafts/send", f"GET messages/{sent.id}"]


def test_c27_gmails_own_message_id_is_read_back(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    [outcome] = adapter.send([email])
    assert outcome.rfc_message_id is not None
    assert outcome.rfc_message_id != email.rfc_message_id
    assert re.fullmatch(r"<CA\+\w+@mail\.gmail\.com>", outcome.rfc_message_id)
    assert not Gmail.keeps_message_id


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.ERROR_500, Fault.THROTTLED, Fault.HANG])
def test_a_failed_read_back_changes_nothing_of_the_outcome(gmail: GmailEmulator, adapter: Gmail, fault: Fault) -> None:
    send_one(adapter)
    gmail.fail(fault, method="GET")
    outcome = send_one(adapter)
    assert (outcome.result, outcome.rfc_message_id) == (Result.ACCEPTED, None)


def test_the_mail_arrives_as_composed_with_reference_and_without_bcc(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.keep_message_id = True
    mime = b"To: bob@client.test\r\nSubject: x\r\nMessage-ID: <a@b>\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n.\r\nFrom here\r\n"
    email = mail(mime=mime, recipients=("bob@client.test", "hidden@client.test"))
    adapter.send([email])
    [draft] = gmail.calls_to("/drafts")
    raw = base64.urlsafe_b64decode(draft.json["message"]["raw"])
    assert raw == f"X-Postroad-Ref: {email.ref}\r\nBcc: hidden@client.test\r\n".encode() + mime
    [sent] = gmail.messages.values()
    assert sent.mime == f"X-Postroad-Ref: {email.ref}\r\n".encode() + mime


def test_a_reference_already_in_the_headers_is_not_doubled(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    adapter.send([mail(ref=email.ref, mime=f"X-Postroad-Ref: {email.ref}\r\n".encode() + (email.mime or b""))])
    [sent] = gmail.messages.values()
    assert sent.mime.count(b"X-Postroad-Ref") == 1


def test_headers_name_nobody_who_is_not_to_be_served(gmail: GmailEmulator, adapter: Gmail) -> None:
    mime = (
        b'To: "Doe, A" <a@client.test>,\r\n =?utf-8?b?QsO2?= <b@client.test>\r\nSubject: x\r\n'
        b"Cc: c@client.test\r\n\r\nTo: c@client.test\r\n"
    )
    adapter.send([mail(mime=mime, recipients=("B@client.test",))])
    [sent] = gmail.messages.values()
    parsed = message_from_bytes(sent.mime)
    assert parsed["To"] == "=?utf-8?b?QsO2?= <b@client.test>"
    assert parsed["Cc"] is None
    assert parsed["Subject"] == "x"
    assert parsed.get_payload() == "To: c@client.test\r\n"


def test_c29_a_reply_stays_in_its_thread(gmail: GmailEmulator, adapter: Gmail) -> None:
    first = gmail.receive(b"From: bob@client.test\r\n\r\nHello")
    outcome = send_one(adapter, provider_thread_id=first.thread_id)
    assert outcome.provider_thread_id == first.thread_id


def test_a_thread_of_another_mailbox_is_refused_for_good(gmail: GmailEmulator, adapter: Gmail) -> None:
    outcome = send_one(adapter, provider_thread_id="feedface")
    assert (outcome.result, outcome.code) == (Result.PERMANENT, "404/notFound")
    assert gmail.ledger == {}


@pytest.mark.parametrize("thread", [True, False])
@pytest.mark.parametrize("scope", ["", f"{SCOPE}send"])
def test_a_large_mail_goes_by_the_upload_path_byte_for_byte(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch, thread: bool, scope: str
) -> None:
    monkeypatch.setattr(providers.gmail_service, "INLINE_BYTES", 100)
    gmail.keep_message_id = True
    adapter._drafting = not scope
    first = gmail.receive(b"From: bob@client.test\r\n\r\nHello")
    email = mail(provider_thread_id=first.thread_id if thread else None)
    email = mail(
        ref=email.ref,
        provider_thread_id=email.provider_thread_id,
        mime=f"X-Postroad-Ref: {email.ref}\r\n".encode() + (email.mime or b"") + b"From \xff\n.\n" + b"y" * 2000,
    )
    [outcome] = adapter.send([email])
    assert gmail.calls[1].path.startswith("/upload/gmail/v1/users/me/")
    assert outcome.result is Result.ACCEPTED
    sent = gmail.messages[outcome.provider_message_id or ""]
    assert sorted(sent.mime.splitlines()) == sorted((email.mime or b"").splitlines())
    assert (sent.thread_id == first.thread_id) is thread


def test_a_list_comes_back_in_its_order_each_mail_sent_once(gmail: GmailEmulator, adapter: Gmail) -> None:
    emails = [mail(f"u{number}@client.test") for number in range(12)]
    outcomes = adapter.send(emails)
    refs = {m.id: m.header("X-Postroad-Ref") for m in gmail.messages.values()}
    assert [refs[outcome.provider_message_id or ""] for outcome in outcomes] == [email.ref for email in emails]
    assert gmail.delivered_once(email.ref for email in emails)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"ip_pool": "pool-1"}, "no IP pools"), ({"mime": None}, "as MIME"), ({"mime": b"x" * 36_700_161}, "36700160")],
)
def test_what_gmail_cannot_carry_is_refused_before_the_wire(
    gmail: GmailEmulator, adapter: Gmail, changes: dict[str, Any], words: str
) -> None:
    email = mail()
    values = {name: getattr(email, name) for name in ("ref", "rfc_message_id", "envelope_from", "recipients")}
    [outcome] = adapter.send([type(email)(**{**values, "mime": b"", **changes})])
    assert outcome.result is Result.PERMANENT
    assert words in outcome.detail
    assert gmail.calls == []


@pytest.mark.parametrize(
    ("fault", "result"), [case for case in ON_THE_WIRE if case.values[0] not in (Fault.UNAUTHORIZED, Fault.ERROR_503)]
)
def test_one_failing_drafts_send_is_one_request_and_its_honest_outcome(
    gmail: GmailEmulator, adapter: Gmail, fault: Fault, result: Result
) -> None:
    gmail.fail(fault, path="drafts/send")
    assert send_one(adapter).result is result
    assert paths(gmail) == ["POST drafts", "POST drafts/send"]


@pytest.mark.parametrize(
    ("fault", "result"), [case for case in ON_THE_WIRE if case.values[0] not in (Fault.UNAUTHORIZED, Fault.ERROR_503)]
)
def test_one_failing_direct_send_is_one_request_and_its_honest_outcome(
    gmail: GmailEmulator, fault: Fault, result: Result
) -> None:
    adapter = open_adapter(gmail, scope=f"{SCOPE}send")
    gmail.fail(fault, path="messages/send")
    assert send_one(adapter).result is result
    assert paths(gmail) == ["POST messages/send"]
    adapter.close()


def test_a_503_of_gmail_itself_says_nothing_about_a_send(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.fail(Fault.ERROR_503, path="drafts/send")
    assert send_one(adapter).result is Result.UNCERTAIN


@pytest.mark.parametrize(("fault", "_"), UNCERTAIN_FAULTS)
def test_without_a_draft_nothing_was_sent_and_the_retry_uses_a_draft_that_was_made(
    gmail: GmailEmulator, adapter: Gmail, fault: Fault, _: Result
) -> None:
    email = mail()
    gmail.fail(fault, path="drafts")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.TRANSIENT
    assert outcome.detail.startswith("no draft, nothing sent")
    assert gmail.ledger == {}
    [outcome] = adapter.send([email])
    assert outcome.result is Result.ACCEPTED
    assert gmail.drafts == {}
    assert gmail.delivered_once([email.ref])


def test_a_search_for_a_lost_draft_that_fails_is_no_uncertainty(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    gmail.fail(Fault.ACCEPT_THEN_CLOSE, path="drafts", method="POST")
    adapter.send([email])
    gmail.fail(Fault.CLOSE, path="drafts", method="GET")
    assert adapter.send([email])[0].result is Result.TRANSIENT
    assert adapter.send([email])[0].result is Result.ACCEPTED
    assert gmail.drafts == {}


def test_a_draft_that_is_sent_while_another_is_searched_for_fails_nobody(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    email, other = mail(), mail()
    gmail.fail(Fault.ACCEPT_THEN_CLOSE, path="drafts", method="POST")
    adapter.send([email])
    gmail.fail(Fault.THROTTLED, path="drafts/send")
    [left] = adapter.send([other])
    answer(monkeypatch, gmail, f"/drafts/{left.provider_message_id}", refusal(404, "notFound"))
    assert adapter.send([email])[0].result is Result.ACCEPTED
    assert gmail.delivered_once([email.ref])


@pytest.mark.parametrize("path", ["/drafts", "/messages"])
def test_a_search_that_is_refused_for_good_fails_no_mail(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    email = mail()
    gmail.fail(Fault.ACCEPT_THEN_504, path="/drafts" if path == "/drafts" else "/drafts/send", method="POST")
    [outcome] = adapter.send([email])
    answer(monkeypatch, gmail, path, refusal(400, "badRequest"))
    assert adapter.send([again(email, outcome)])[0].result is Result.TRANSIENT


def test_a_draft_left_behind_is_sent_and_not_made_again(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    gmail.fail(Fault.THROTTLED, path="drafts/send")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.THROTTLED
    assert [outcome.provider_message_id] == list(gmail.drafts)
    assert adapter.send([again(email, outcome)])[0].result is Result.ACCEPTED
    assert len(gmail.calls_to("/drafts")) == 1
    assert gmail.delivered_once([email.ref])


def test_a_draft_that_was_sent_after_all_is_found_and_not_made_again(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    gmail.fail(Fault.ACCEPT_THEN_504, path="drafts/send")
    [outcome] = adapter.send([email])
    [accepted] = adapter.send([again(email, outcome)])
    assert accepted.result is Result.ACCEPTED
    assert accepted.provider_message_id in gmail.messages
    assert gmail.delivered_once([email.ref])


def test_a_search_for_what_was_sent_that_fails_sends_nothing(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    gmail.fail(Fault.ACCEPT_THEN_504, path="drafts/send")
    [outcome] = adapter.send([email])
    gmail.fail(Fault.CLOSE, path="messages")
    assert adapter.send([again(email, outcome)])[0].result is Result.TRANSIENT
    assert gmail.delivered_once([email.ref])


@pytest.mark.parametrize("scope", ["", f"{SCOPE}compose"])
def test_a_deleted_draft_is_made_anew_for_a_mail_that_is_sent_again(
    gmail: GmailEmulator, adapter: Gmail, scope: str
) -> None:
    email = mail()
    gmail.oauth.scopes = scope or gmail.oauth.scopes
    gmail.fail(Fault.CLOSE, path="drafts/send")
    [outcome] = adapter.send([email])
    gmail.drafts.clear()
    assert adapter.send([again(email, outcome)])[0].result is Result.ACCEPTED
    assert gmail.delivered_once([email.ref])


def test_a_fresh_draft_that_is_gone_is_uncertain(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, gmail, "drafts/send", refusal(404, "notFound"))
    outcome = send_one(adapter)
    assert (outcome.result, outcome.provider_message_id) == (Result.UNCERTAIN, next(iter(gmail.drafts)))


def test_an_answer_that_names_no_id_is_uncertain_and_nothing_is_sent_besides(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reply in (Reply(200, {}), Reply(204, None)):
        answer(monkeypatch, gmail, "drafts/send", reply)
        assert send_one(adapter).result is Result.UNCERTAIN
    answer(monkeypatch, gmail, "drafts", Reply(200, {}))
    assert send_one(adapter).result is Result.TRANSIENT
    assert gmail.ledger == {}


def test_a_mail_refused_for_good_leaves_no_draft_behind(gmail: GmailEmulator, adapter: Gmail) -> None:
    outcome = send_one(adapter, mime=b"Subject: x\r\n\r\n", recipients=())
    assert (outcome.result, outcome.detail) == (Result.PERMANENT, "Recipient address required")
    assert gmail.drafts == {}


def test_with_the_scope_send_alone_mails_go_directly(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.oauth.scopes = f"{SCOPE}send"
    emails = [mail(), mail()]
    outcomes = [adapter.send([email])[0] for email in emails]
    assert [outcome.result for outcome in outcomes] == [Result.ACCEPTED, Result.ACCEPTED]
    assert outcomes[0].rfc_message_id is None
    assert [path for path in paths(gmail) if path.startswith("POST")] == [
        "POST drafts",
        "POST messages/send",
        "POST messages/send",
    ]
    assert gmail.delivered_once(email.ref for email in emails)
    assert adapter.lookup(emails[0]).answer is Lookup.CANNOT_TELL
    assert adapter.check().result is Result.ACCEPTED


def test_scopes_known_beforehand_save_the_attempt_at_a_draft(gmail: GmailEmulator) -> None:
    adapter = open_adapter(gmail, scope=f"openid {SCOPE}send")
    send_one(adapter)
    assert paths(gmail)[0] == "POST messages/send"
    adapter.close()


def test_with_the_scope_compose_drafts_work_and_the_id_cannot_be_read(gmail: GmailEmulator) -> None:
    gmail.oauth.scopes = f"{SCOPE}compose"
    adapter = open_adapter(gmail, scope=f"{SCOPE}compose")
    outcome = send_one(adapter)
    assert (outcome.result, outcome.rfc_message_id) == (Result.ACCEPTED, None)
    adapter.close()


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (refusal(400, "invalidArgument"), Result.PERMANENT),
        (refusal(400, "badRequest"), Result.PERMANENT),
        (refusal(400, "failedPrecondition"), Result.CREDENTIALS),
        (refusal(401, "authError"), Result.CREDENTIALS),
        (refusal(403, "domainPolicy"), Result.CREDENTIALS),
        (refusal(403, "accessNotConfigured"), Result.CREDENTIALS),
        (refusal(403, "userRateLimitExceeded"), Result.THROTTLED),
        (refusal(403, "quotaExceeded"), Result.THROTTLED),
        (refusal(403, "dailyLimitExceeded"), Result.THROTTLED),
        (refusal(429, "rateLimitExceeded"), Result.THROTTLED),
        (refusal(429, "somethingNew"), Result.THROTTLED),
        (refusal(413, "uploadTooLarge"), Result.PERMANENT),
        (refusal(500, "backendError"), Result.UNCERTAIN),
        (refusal(503, "rateLimitExceeded"), Result.UNCERTAIN),
        (
            Reply(403, {"error": {"details": [{"@type": "ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}]}}),
            Result.THROTTLED,
        ),
        (Reply(400, b"<html>"), Result.PERMANENT),
        (Reply(400, b"\xff\xfe"), Result.PERMANENT),
        (Reply(400, {"error": {"message": 5}}), Result.UNCERTAIN),
        (Reply(403, b""), Result.CREDENTIALS),
        (Reply(302, b"", {"Location": "https://elsewhere.test/"}), Result.CREDENTIALS),
        (Reply(502, b"<html>"), Result.UNCERTAIN),
        (Reply(200, b"<html>"), Result.UNCERTAIN),
        (Reply(200, b"\xff\xfe"), Result.UNCERTAIN),
        (Reply(200, ["a list"]), Result.UNCERTAIN),
    ],
)
def test_each_answer_to_a_send_has_one_meaning(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch, reply: Reply, result: Result
) -> None:
    answer(monkeypatch, gmail, "drafts/send", reply)
    outcome = send_one(adapter)
    assert outcome.result is result
    assert outcome.detail


def test_gmails_own_words_and_code_are_kept(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, gmail, "drafts/send", refusal(400, "invalidArgument", "Invalid To header"))
    outcome = send_one(adapter)
    assert (outcome.detail, outcome.code) == ("Invalid To header", "400/invalidArgument")


@pytest.mark.parametrize(
    ("message", "reason", "headers", "least", "most"),
    [
        ("User-rate limit exceeded.  Retry after {}", "userRateLimitExceeded", {}, 590, 600),
        ("Too many concurrent requests for user", "rateLimitExceeded", {"Retry-After": "7"}, 7, 7),
        ("Daily limit", "dailyLimitExceeded", {}, 3600, 3600),
        ("Retry after 2026-13-45T99:00:00Z", "rateLimitExceeded", {"Retry-After": "7"}, 7, 7),
    ],
)
def test_gmail_says_when_it_takes_mail_again(
    gmail: GmailEmulator,
    adapter: Gmail,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    reason: str,
    headers: dict[str, str],
    least: float,
    most: float,
) -> None:
    moment = (datetime.now(UTC) + timedelta(minutes=10)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    reply = refusal(429, reason, message.format(moment))
    answer(monkeypatch, gmail, "drafts/send", Reply(429, reply.body, headers))
    outcome = send_one(adapter)
    assert outcome.retry_after is not None
    assert least <= outcome.retry_after <= most


def test_a_stale_access_token_is_renewed_once(gmail: GmailEmulator, adapter: Gmail) -> None:
    send_one(adapter)
    gmail.oauth.expire()
    assert send_one(adapter).result is Result.ACCEPTED
    assert gmail.oauth.granted == 2


def test_a_revoked_grant_waits_for_reconnect(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.oauth.revoked = True
    outcome = send_one(adapter)
    assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "invalid_grant")
    assert adapter.check().result is Result.CREDENTIALS
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED


def test_a_token_that_stays_refused_is_asked_for_no_more_than_once(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.fail(Fault.UNAUTHORIZED, Fault.UNAUTHORIZED, path="drafts")
    assert send_one(adapter).result is Result.CREDENTIALS
    assert paths(gmail) == ["POST drafts", "POST drafts"]


def test_a_token_endpoint_that_is_down_costs_no_mail(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.fail(Fault.ERROR_500, Fault.ERROR_500, path="/token")
    assert send_one(adapter).result is Result.TRANSIENT
    assert send_one(adapter).result is Result.ACCEPTED


def test_nothing_listening_is_surely_not_sent(gmail: GmailEmulator, adapter: Gmail) -> None:
    send_one(adapter)
    gmail.stop()
    adapter._service.api.close()
    assert send_one(adapter).result is Result.TRANSIENT


@pytest.mark.parametrize("fault", [Fault.ACCEPT_THEN_504, Fault.ACCEPT_THEN_CLOSE, Fault.ACCEPT_THEN_CUT])
@pytest.mark.parametrize("draft_known", [True, False])
def test_lookup_resolves_what_was_accepted_without_an_answer(
    gmail: GmailEmulator, adapter: Gmail, fault: Fault, draft_known: bool
) -> None:
    email = mail()
    gmail.fail(fault, path="drafts/send")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.UNCERTAIN
    send_one(adapter)
    found = adapter.lookup(again(email, outcome) if draft_known else email)
    assert found.answer is Lookup.ACCEPTED
    sent = gmail.messages[found.provider_message_id or ""]
    assert sent.header("X-Postroad-Ref") == email.ref
    assert found.rfc_message_id == sent.header("Message-ID")
    assert found.provider_thread_id == sent.thread_id


@pytest.mark.parametrize("draft_known", [True, False])
def test_lookup_finds_the_draft_that_was_not_sent_and_the_retry_sends_it(
    gmail: GmailEmulator, adapter: Gmail, draft_known: bool
) -> None:
    email = mail()
    gmail.fail(Fault.CLOSE, path="drafts/send")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.UNCERTAIN
    found = adapter.lookup(again(email, outcome) if draft_known else email)
    assert found.answer is Lookup.NOT_ACCEPTED
    assert adapter.send([again(email, found)])[0].result is Result.ACCEPTED
    assert gmail.drafts == {}
    assert gmail.delivered_once([email.ref])


def test_a_mail_of_which_there_is_no_trace_was_not_accepted(adapter: Gmail) -> None:
    send_one(adapter)
    assert adapter.lookup(mail()).answer is Lookup.NOT_ACCEPTED


def test_a_draft_that_somebody_deleted_cannot_be_told_from_a_sent_one(gmail: GmailEmulator, adapter: Gmail) -> None:
    email = mail()
    gmail.fail(Fault.CLOSE, path="drafts/send")
    [outcome] = adapter.send([email])
    gmail.drafts.clear()
    assert adapter.lookup(again(email, outcome)).answer is Lookup.CANNOT_TELL


def test_a_search_that_does_not_reach_far_enough_proves_nothing(
    adapter: Gmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.gmail_search, "SEARCH_DEPTH", 2)
    for _ in range(3):
        send_one(adapter)
    assert adapter.lookup(mail()).answer is Lookup.CANNOT_TELL
    monkeypatch.setattr(providers.gmail_search, "SEARCH_SECONDS", -1.0)
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED


def test_a_search_ends_at_what_is_older_than_the_mail(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.gmail_search, "SEARCH_DEPTH", 3)
    for _ in range(5):
        send_one(adapter)
    for message in gmail.messages.values():
        message.internal_date -= 7_200_000
    send_one(adapter)
    gmail.calls.clear()
    other = open_adapter(gmail)  # which has sent none of them
    found = other.lookup(mail(ref=uuid7().hex))
    other.close()
    assert found.answer is Lookup.NOT_ACCEPTED
    assert len(reads(gmail)) == 2


def test_a_search_reads_no_sent_mail_twice_and_its_own_not_at_all(gmail: GmailEmulator, adapter: Gmail) -> None:
    emails = [mail() for _ in range(3)]
    adapter.send(emails)
    other = open_adapter(gmail)
    gmail.calls.clear()
    assert adapter.lookup(emails[0]).answer is Lookup.ACCEPTED
    assert reads(gmail) == []
    found = [other.lookup(email) for email in (*emails, mail())]
    other.close()
    assert [answer.answer for answer in found] == [Lookup.ACCEPTED] * 3 + [Lookup.NOT_ACCEPTED]
    assert [answer.rfc_message_id for answer in found[:3]] == [message_ids(gmail)[email.ref] for email in emails]
    assert len(reads(gmail)) == 3


def test_a_search_for_a_lost_draft_reads_no_draft_twice(gmail: GmailEmulator, adapter: Gmail) -> None:
    lost = [mail() for _ in range(4)]
    gmail.fail(*[Fault.ACCEPT_THEN_CLOSE] * 4, path="/drafts")
    assert {outcome.result for outcome in adapter.send(lost)} == {Result.TRANSIENT}
    gmail.calls.clear()
    assert {adapter.send([email])[0].result for email in lost} == {Result.ACCEPTED}
    assert len([call for call in gmail.calls if call.method == "GET" and "/drafts/" in call.path]) == 4
    assert gmail.delivered_once(email.ref for email in lost)


def reads(gmail: GmailEmulator) -> list[Call]:
    """Calls that read one message."""
    return [call for call in gmail.calls if call.method == "GET" and "/messages/" in call.path]


def message_ids(gmail: GmailEmulator) -> dict[str | None, str | None]:
    """Our reference of each mail -> its Message-ID."""
    return {message.header("X-Postroad-Ref"): message.header("Message-ID") for message in gmail.messages.values()}


@pytest.mark.parametrize("date", ["today", None, "-1"])
def test_a_mail_of_an_unreadable_date_is_searched_all_the_same(
    gmail: GmailEmulator, adapter: Gmail, monkeypatch: pytest.MonkeyPatch, date: str | None
) -> None:
    email, answer = mail(ref=uuid7().hex), gmail.answer
    adapter.send([email])
    other = open_adapter(gmail)

    def odd(call: Call) -> Reply:
        reply = answer(call)
        if "/messages/" in call.path:
            reply.body["internalDate"] = date
        return reply

    monkeypatch.setattr(gmail, "answer", odd)
    assert other.lookup(email).answer is Lookup.ACCEPTED
    assert other.lookup(mail(ref=uuid7().hex)).answer is Lookup.NOT_ACCEPTED
    other.close()


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.ERROR_500, Fault.THROTTLED])
def test_a_lookup_that_fails_says_so(gmail: GmailEmulator, adapter: Gmail, fault: Fault) -> None:
    email = mail()
    adapter.send([email])
    gmail.fail(fault, method="GET")
    assert adapter.lookup(email).answer is Lookup.UNANSWERED


def test_a_429_storm_loses_and_doubles_nothing(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.fail_at_random({Fault.THROTTLED: 0.5, Fault.ACCEPT_THEN_CLOSE: 0.1}, path="drafts/send")
    emails = open_mails = [mail(f"u{number}@client.test") for number in range(12)]
    for _ in range(60):
        outcomes = adapter.send(open_mails)
        left = []
        for email, outcome in zip(open_mails, outcomes, strict=True):
            known = again(email, outcome)
            lost = outcome.result is Result.UNCERTAIN and adapter.lookup(known).answer is Lookup.NOT_ACCEPTED
            if lost or outcome.result is Result.THROTTLED:
                left.append(known)
        open_mails = left
        if not open_mails:
            break
    assert gmail.delivered_once(email.ref for email in emails)


def test_aliases_tell_which_addresses_can_be_used(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.aliases += [
        {
            "sendAsEmail": "desk@demo.test",
            "displayName": "",
            "replyToAddress": "r@demo.test",
            "verificationStatus": "accepted",
        },
        {"sendAsEmail": "new@demo.test", "verificationStatus": "pending"},
    ]
    primary, desk, new = adapter.aliases()
    assert primary == Alias(
        email="ann@demo.test", name="Ann", reply_to=None, is_primary=True, is_default=True, usable=True
    )
    assert (desk.email, desk.name, desk.reply_to, desk.usable) == ("desk@demo.test", None, "r@demo.test", True)
    assert not new.usable


def test_aliases_that_may_not_be_listed_say_so(gmail: GmailEmulator, adapter: Gmail) -> None:
    gmail.oauth.scopes = f"{SCOPE}compose"
    with pytest.raises(CallFailed) as caught:
        adapter.aliases()
    assert caught.value.scope


def test_gmail_calls_no_hooks(adapter: Gmail) -> None:
    with pytest.raises(BadSignature):
        adapter.parse_events(HookRequest(headers={}, query={}, body=b"{}"))


def test_secrets_are_in_no_repr_and_no_outcome(gmail: GmailEmulator) -> None:
    adapter = open_adapter(gmail, client_secret="sesame", refresh_token="open-up")
    outcome = send_one(adapter)
    assert outcome.result is Result.CREDENTIALS
    shown = repr([adapter.account, adapter._service, adapter._service.tokens, outcome])
    assert "sesame" not in shown
    assert "open-up" not in shown
    adapter.close()


def test_a_root_that_is_no_url_needs_correcting(gmail: GmailEmulator) -> None:
    given = account("gmail", gmail, client_id="client", client_secret="client-secret", refresh_token="refresh-token")
    wrong = Account(
        mailer_id="m2",
        provider="gmail",
        credentials=given.credentials,
        base_url="ftp://x",
        auth_url=gmail.url,
        guard=given.guard,
    )
    adapter = Gmail(wrong)
    assert send_one(adapter).result is Result.CREDENTIALS
    adapter.close()


def test_history_tells_what_arrived_since(gmail: GmailEmulator, adapter: Gmail) -> None:
    arrived = gmail.receive(b"From: bob@client.test\r\n\r\nHello")
    send_one(adapter)
    service = adapter._service
    found = service.call(service.users.history().list(userId="me", startHistoryId="1", labelId="INBOX"))
    assert [item["messagesAdded"][0]["message"]["id"] for item in found["history"]] == [arrived.id]
    gmail.oldest_history = 99
    with pytest.raises(CallFailed) as caught:
        service.call(service.users.history().list(userId="me", startHistoryId="1"))
    assert caught.value.status == 404


@pytest.mark.parametrize("body", [{"id": 7}, {"draft": "x"}, {"id": "r-1", "message": {"bcc": "x"}}])
def test_the_emulator_refuses_what_the_discovery_document_does_not_know(
    gmail: GmailEmulator, adapter: Gmail, body: dict[str, Any]
) -> None:
    token = AccessTokens(adapter.account, "google").get().access_token
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = adapter._service.api.call("POST", "/gmail/v1/users/me/drafts/send", headers=headers, data=json.dumps(body))
    assert answer.status == 400
    answer = adapter._service.api.call("GET", "/gmail/v1/users/me/drafts", headers=headers, params={"size": "1"})
    assert answer.status == 400
