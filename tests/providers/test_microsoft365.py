"""Microsoft 365 against its emulator: drafts, sends, uploads, tokens, notifications."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from providers.base import BadSignature, HookRequest, Lookup, Mailbox, NotKept, OutboundEmail, Result
from providers.emulators.http import Fault, Reply
from providers.emulators.microsoft365 import Mail, Microsoft365Emulator, oauth_error
from providers.inbox import SOMEWHERE
from providers.microsoft365 import Microsoft365, validation_token
from providers.microsoft365_message import INTERNET_HEADERS, REF_PROPERTY
from tests.providers.samples import ON_THE_WIRE, QUICK, account, fields, file, mail

MB = 1024 * 1024


@pytest.fixture
def microsoft() -> Iterator[Microsoft365Emulator]:
    with Microsoft365Emulator() as emulator:
        yield emulator


@pytest.fixture
def adapter(microsoft: Microsoft365Emulator) -> Iterator[Microsoft365]:
    adapter = open_adapter(microsoft)
    yield adapter
    adapter.close()


def open_adapter(microsoft: Microsoft365Emulator, **credentials: str) -> Microsoft365:
    adapter = Microsoft365(account("microsoft365", microsoft, **{**microsoft.credentials(), **credentials}))
    adapter._graph.api.timeout = adapter._graph.tokens._api.timeout = QUICK
    return adapter


def only(microsoft: Microsoft365Emulator) -> Mail:
    [found] = microsoft.mails.values()
    return found


def test_c28_every_field_is_carried(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    email = mail(
        "bob@client.test",
        "cc@client.test",
        "bcc@client.test",
        fields=fields(
            cc=(Mailbox(email="cc@client.test"),),
            bcc=(Mailbox(email="bcc@client.test"),),
            reply_to=(Mailbox(email="desk@demo.test"),),
            text="Hello",
            headers={
                "X-One": "1",
                "In-Reply-To": "<a@b>",
                "References": "<a@b> <c@d>",
                "List-Unsubscribe": "<https://demo.test/u>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
            files=(file(9, filename="logo.png", content_type="image/png", inline=True, content_id="logo"),),
        ),
    )
    [outcome] = adapter.send([email])
    assert (outcome.result, outcome.code, outcome.provider_thread_id) == (Result.ACCEPTED, "202", "c-1")
    sent = only(microsoft)
    assert outcome.provider_message_id == sent.id
    assert outcome.rfc_message_id is None
    resource = sent.resource
    assert resource["subject"] == "Offer"
    assert resource["body"] == {"contentType": "html", "content": "<p>Hello</p>"}
    assert resource["from"] == {"emailAddress": {"address": "ann@demo.test", "name": "Ann"}}
    assert resource["toRecipients"] == [{"emailAddress": {"address": "bob@client.test", "name": "Bob"}}]
    assert resource["ccRecipients"] == [{"emailAddress": {"address": "cc@client.test"}}]
    assert resource["bccRecipients"] == [{"emailAddress": {"address": "bcc@client.test"}}]
    assert resource["replyTo"] == [{"emailAddress": {"address": "desk@demo.test"}}]
    assert resource["internetMessageId"] == email.rfc_message_id
    assert resource["internetMessageHeaders"] == [{"name": "X-One", "value": "1"}]
    assert sent.prop(REF_PROPERTY) == email.ref
    assert sent.prop("String 0x1042") == "<a@b>"
    assert sent.prop("String 0x1039") == "<a@b> <c@d>"
    assert sent.prop("String 0x1045") == "<https://demo.test/u>"
    assert sent.prop(f"{INTERNET_HEADERS}List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
    [logo] = sent.files
    assert (logo["name"], logo["contentType"], logo["isInline"], logo["contentId"]) == (
        "logo.png",
        "image/png",
        True,
        "logo",
    )
    assert logo["data"] == b"a" * 9


def test_a_text_mail_is_sent_as_text(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    adapter.send([mail(fields=fields(html=None, text="Hello"))])
    assert only(microsoft).resource["body"] == {"contentType": "text", "content": "Hello"}


def test_a_sixth_x_header_still_goes_out(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    [outcome] = adapter.send([mail(fields=fields(headers={f"X-{number}": "v" for number in range(6)}))])
    assert outcome.result is Result.ACCEPTED
    assert len(only(microsoft).resource["internetMessageHeaders"]) == 5
    assert only(microsoft).prop(f"{INTERNET_HEADERS}X-5") == "v"


def test_only_recipients_still_to_be_served_are_named(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    to = (Mailbox(email="bob@client.test"), Mailbox(email="served@client.test"))
    adapter.send([mail("Bob@client.test", "hidden@client.test", fields=fields(to=to))])
    resource = only(microsoft).resource
    assert [box["emailAddress"]["address"] for box in resource["toRecipients"]] == ["bob@client.test"]
    assert [box["emailAddress"]["address"] for box in resource["bccRecipients"]] == ["hidden@client.test"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ip_pool": "p"}, "ip_pool"),
        ({"fields": fields(headers={"Auto-Submitted": "auto-replied"})}, "Auto-Submitted"),
        ({"fields": None}, "fields"),
        ({"recipients": tuple(f"u{number}@client.test" for number in range(501))}, "500"),
    ],
)
def test_what_cannot_be_carried_is_refused_without_a_request(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, changes: dict[str, Any], word: str
) -> None:
    [outcome] = adapter.send([replace(mail(), **changes)])
    assert outcome.result is Result.PERMANENT
    assert word in outcome.detail
    assert microsoft.calls == []


def test_attachments_of_every_size_arrive_whole_and_in_order(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    sizes = [10, 2 * MB, 2 * MB + 7, 5 * MB, 9]
    files = tuple(file(size, filename=f"f{number}") for number, size in enumerate(sizes))
    [outcome] = adapter.send([mail(fields=fields(files=files))])
    assert outcome.result is Result.ACCEPTED
    arrived = only(microsoft).files
    assert [(item["name"], len(item["data"])) for item in arrived] == [(f"f{n}", size) for n, size in enumerate(sizes)]
    uploads = microsoft.calls_to("/upload/session", "PUT")
    assert [call.headers["content-range"] for call in uploads] == [
        "bytes 0-3932159/5242880",
        "bytes 3932160-5242879/5242880",
    ]


def test_a_retry_finishes_the_attachments_of_its_draft(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    email = mail(fields=fields(files=(file(2 * MB, filename="a"), file(2 * MB, filename="b"), file(9, filename="c"))))
    microsoft.fail(Fault.ACCEPT_THEN_504, path="/attachments")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.TRANSIENT
    [again] = adapter.send([replace(email, draft_id=outcome.provider_message_id)])
    assert again.result is Result.ACCEPTED
    assert [item["name"] for item in only(microsoft).files] == ["a", "b", "c"]
    assert microsoft.delivered_once([email.ref])


def test_a_list_comes_back_in_its_order_each_mail_sent_once(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    emails = [mail(f"u{number}@client.test") for number in range(12)]
    outcomes = adapter.send(emails)
    refs = [microsoft.mails[outcome.provider_message_id or ""].ref for outcome in outcomes]
    assert refs == [email.ref for email in emails]
    assert microsoft.delivered_once(refs)
    assert len(microsoft.calls_to("/token")) == 1


GRAPH_ON_THE_WIRE = {case.values[0]: case.values[1] for case in ON_THE_WIRE} | {
    Fault.ERROR_503: Result.THROTTLED,
    Fault.ACCEPT_THEN_CUT: Result.ACCEPTED,  # 202 has no body: its first line says it all
}
del GRAPH_ON_THE_WIRE[Fault.UNAUTHORIZED]  # repeated once with a fresh token, see below


@pytest.mark.parametrize(("fault", "result"), GRAPH_ON_THE_WIRE.items())
def test_one_failing_send_is_one_request_and_its_honest_outcome(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, fault: Fault, result: Result
) -> None:
    microsoft.fail(fault, path="/send")
    [outcome] = adapter.send([mail()])
    assert outcome.result is result
    assert outcome.provider_message_id == only(microsoft).id
    assert len(microsoft.calls_to("/send")) == 1


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        (Fault.CLOSE, Result.TRANSIENT),
        (Fault.HANG, Result.TRANSIENT),
        (Fault.ERROR_500, Result.TRANSIENT),
        (Fault.PROXY_503, Result.TRANSIENT),
        (Fault.ACCEPT_THEN_504, Result.TRANSIENT),
        (Fault.THROTTLED, Result.THROTTLED),
    ],
)
def test_a_draft_that_fails_sends_nothing_and_may_be_tried_again(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, fault: Fault, result: Result
) -> None:
    microsoft.fail(fault, path="/me/messages")
    [outcome] = adapter.send([mail()])
    assert outcome.result is result
    assert len(microsoft.calls_to("/me/messages")) == 1
    assert microsoft.calls_to("/send") == []


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (400, "ErrorInvalidRecipients", Result.PERMANENT),
        (400, "ErrorInvalidRequest", Result.PERMANENT),
        (400, "InvalidInternetMessageHeader", Result.PERMANENT),
        (400, "InvalidInternetMessageHeaderCollection", Result.PERMANENT),
        (400, "RequestBodyRead", Result.PERMANENT),
        (403, "ErrorAccessDenied", Result.CREDENTIALS),
        (403, "ErrorSendAsDenied", Result.PERMANENT),
        (404, "MailboxNotEnabledForRESTAPI", Result.CREDENTIALS),
        (403, "ErrorQuotaExceeded", Result.CREDENTIALS),
        (400, "ErrorExceededMessageLimit", Result.THROTTLED),
        (409, "ErrorIrresolvableConflict", Result.TRANSIENT),
        (412, "ErrorIrresolvableConflict", Result.TRANSIENT),
        (413, "RequestEntityTooLarge", Result.PERMANENT),
        (400, "ErrorMessageSizeExceeded", Result.PERMANENT),
        (429, "ApplicationThrottled", Result.THROTTLED),
        (429, "MailboxConcurrency", Result.THROTTLED),
        (301, "", Result.CREDENTIALS),
    ],
)
def test_every_error_of_graph_has_its_outcome(
    microsoft: Microsoft365Emulator,
    adapter: Microsoft365,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    result: Result,
) -> None:
    monkeypatch.setattr(microsoft, "_create", lambda _: Reply(status, {"error": {"code": code, "message": "no"}}))
    [outcome] = adapter.send([mail()])
    assert (outcome.result, outcome.detail) == (result, "no")
    assert outcome.code == (f"{status}/{code}" if code else str(status))


@pytest.mark.parametrize("body", [b"<html>welcome</html>", [], {}, {"id": "a"}])
def test_a_draft_answer_that_is_no_message_sends_nothing(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, monkeypatch: pytest.MonkeyPatch, body: Any
) -> None:
    monkeypatch.setattr(microsoft, "_create", lambda _: Reply(201, body))
    assert adapter.send([mail()])[0].result is Result.TRANSIENT
    assert microsoft.calls_to("/send") == []


def test_202_is_acceptance_whatever_retry_after_says(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    microsoft.retry_after = "120"
    [outcome] = adapter.send([mail()])
    assert (outcome.result, outcome.retry_after) == (Result.ACCEPTED, None)


def test_the_wait_of_a_429_is_passed_on_with_the_draft(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    microsoft.retry_after = "12"
    microsoft.fail(Fault.THROTTLED, path="/send")
    email = mail()
    [outcome] = adapter.send([email])
    assert (outcome.result, outcome.retry_after) == (Result.THROTTLED, 12.0)
    [again] = adapter.send([replace(email, draft_id=outcome.provider_message_id)])
    assert again.result is Result.ACCEPTED
    assert len(microsoft.mails) == 1


def test_ids_are_immutable_ones_in_every_call(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    adapter.send([mail()])
    graph = [call for call in microsoft.calls if call.path.startswith("/v1.0/")]
    assert len(graph) == 2
    assert {call.headers["prefer"] for call in graph} == {'IdType="ImmutableId"'}


def test_a_message_id_that_exchange_replaced_is_read_back(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    microsoft.rewrite_message_id = True
    [outcome] = adapter.send([mail()])
    assert outcome.rfc_message_id == only(microsoft).resource["internetMessageId"]


@pytest.mark.parametrize("known", [True, False], ids=["by its draft id", "by our ref"])
def test_lookup_finds_a_mail_that_was_taken_before_a_504(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, known: bool
) -> None:
    email = uncertain(microsoft, adapter, Fault.ACCEPT_THEN_504)
    found = adapter.lookup(email if known else replace(email, draft_id=None))
    assert (found.answer, found.provider_message_id) == (Lookup.ACCEPTED, email.draft_id)
    assert found.rfc_message_id == email.rfc_message_id
    assert microsoft.delivered_once([email.ref])


@pytest.mark.parametrize("known", [True, False], ids=["by its draft id", "by our ref"])
def test_lookup_says_no_while_it_is_a_draft_and_the_draft_is_sent_next(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, known: bool
) -> None:
    email = uncertain(microsoft, adapter, Fault.CLOSE)
    found = adapter.lookup(email if known else replace(email, draft_id=None))
    assert (found.answer, found.provider_message_id) == (Lookup.NOT_ACCEPTED, email.draft_id)
    assert adapter.send([email])[0].result is Result.ACCEPTED
    assert len(microsoft.mails) == 1
    assert microsoft.delivered_once([email.ref])


def test_a_draft_that_was_sent_after_all_is_not_sent_again(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    email = uncertain(microsoft, adapter, Fault.ACCEPT_THEN_CLOSE)
    assert adapter.send([email])[0].result is Result.ACCEPTED
    assert microsoft.delivered_once([email.ref])


def test_lookup_does_not_take_a_late_sent_copy_for_a_no(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    microsoft.sent_lag_seconds = 60
    email = uncertain(microsoft, adapter, Fault.ACCEPT_THEN_504)
    assert adapter.lookup(email).answer is Lookup.CANNOT_TELL
    microsoft.sent_lag_seconds = 0
    assert adapter.lookup(email).answer is Lookup.ACCEPTED


def test_a_mail_of_which_there_is_nothing_was_not_accepted(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    assert adapter.lookup(mail()).answer is Lookup.NOT_ACCEPTED


def test_a_draft_that_its_owner_deleted_is_made_again(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    email = uncertain(microsoft, adapter, Fault.CLOSE)
    microsoft.mails.clear()
    assert adapter.send([email])[0].result is Result.ACCEPTED
    assert microsoft.delivered_once([email.ref])


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.HANG, Fault.ERROR_500, Fault.THROTTLED])
def test_a_lookup_that_gets_no_answer_says_so(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, fault: Fault
) -> None:
    microsoft.fail(fault, path="/me/messages")
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED


def uncertain(microsoft: Microsoft365Emulator, adapter: Microsoft365, fault: Fault) -> OutboundEmail:
    """A mail whose send ended so, as the worker has it afterwards."""
    email = mail()
    microsoft.fail(fault, path="/send")
    [outcome] = adapter.send([email])
    assert outcome.result is Result.UNCERTAIN
    return replace(email, draft_id=outcome.provider_message_id)


def test_an_aged_access_token_is_renewed_without_a_second_mail(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    email = mail()
    microsoft.fail(Fault.UNAUTHORIZED, path="/send")
    assert adapter.send([email])[0].result is Result.ACCEPTED
    microsoft.expire_tokens()
    assert adapter.send([mail()])[0].result is Result.ACCEPTED
    assert microsoft.ledger[email.ref] == 1


def test_a_token_refused_for_good_is_a_matter_of_credentials(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    microsoft.fail(Fault.UNAUTHORIZED, Fault.UNAUTHORIZED, path="/me/messages")
    [outcome] = adapter.send([mail()])
    assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "401/InvalidAuthenticationToken")


def test_a_rotated_refresh_token_is_kept_and_used_for_the_next_renewal(microsoft: Microsoft365Emulator) -> None:
    stored: dict[str, Any] = dict(microsoft.credentials())

    def keep(renew: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        stored.update(renew(stored) or {})
        return stored

    adapter = Microsoft365(replace(account("microsoft365", microsoft, **microsoft.credentials()), keeper=keep))
    adapter.send([mail()])
    assert stored["refresh_token"] == microsoft.refresh_tokens[-1] != adapter.account.credentials["refresh_token"]
    microsoft.refresh_tokens = microsoft.refresh_tokens[-1:]
    microsoft.expire_tokens()
    assert adapter.send([mail()])[0].result is Result.ACCEPTED
    adapter.close()


def test_a_renewal_that_cannot_be_kept_only_delays_the_mail(microsoft: Microsoft365Emulator) -> None:
    def away(renew: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        raise NotKept("the database is away")

    adapter = Microsoft365(replace(account("microsoft365", microsoft, **microsoft.credentials()), keeper=away))
    assert adapter.send([mail()])[0].result is Result.TRANSIENT
    assert not microsoft.mails
    adapter.close()


def test_a_revoked_grant_asks_for_a_reconnect_and_sends_nothing(
    microsoft: Microsoft365Emulator, adapter: Microsoft365
) -> None:
    adapter.send([mail()])
    microsoft.revoke()
    [outcome] = adapter.send([mail()])
    assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "invalid_grant/50173")
    assert adapter.check().result is Result.CREDENTIALS
    assert len(microsoft.mails) == 1


@pytest.mark.parametrize(
    ("error", "code", "status", "result"),
    [
        ("invalid_grant", 50173, 400, Result.CREDENTIALS),
        ("invalid_grant", 700082, 400, Result.CREDENTIALS),
        ("invalid_grant", 65001, 400, Result.CREDENTIALS),
        ("interaction_required", 50076, 400, Result.CREDENTIALS),
        ("interaction_required", 50079, 400, Result.CREDENTIALS),
        ("invalid_grant", 50057, 400, Result.CREDENTIALS),
        ("invalid_client", 7000215, 401, Result.CREDENTIALS),
        ("invalid_client", 7000222, 401, Result.CREDENTIALS),
        ("unauthorized_client", 700016, 400, Result.CREDENTIALS),
        ("temporarily_unavailable", 90006, 400, Result.TRANSIENT),
        ("invalid_grant", 50196, 400, Result.TRANSIENT),
        ("too_many", 1, 429, Result.THROTTLED),
        ("server_error", 1, 400, Result.TRANSIENT),
        ("server_error", 1, 500, Result.TRANSIENT),
        ("server_error", 1, 503, Result.TRANSIENT),
    ],
)
def test_every_refusal_of_the_token_endpoint_has_its_outcome(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, error: str, code: int, status: int, result: Result
) -> None:
    microsoft.token_error = oauth_error(error, code, "because", status=status)
    [outcome] = adapter.send([mail()])
    assert outcome.result is result
    assert adapter.lookup(mail()).answer is Lookup.UNANSWERED
    assert microsoft.mails == {}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", {"token_type": "Bearer"}])
def test_a_token_answer_without_a_token_sends_nothing(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, body: Any
) -> None:
    microsoft.token_error = Reply(200, body)
    expected = Result.CREDENTIALS if isinstance(body, dict) else Result.TRANSIENT
    assert adapter.send([mail()])[0].result is expected


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET, Fault.HANG, Fault.PROXY_503])
def test_a_token_endpoint_that_does_not_answer_is_tried_again_later(
    microsoft: Microsoft365Emulator, adapter: Microsoft365, fault: Fault
) -> None:
    microsoft.fail(fault, path="/token")
    assert adapter.send([mail()])[0].result is Result.TRANSIENT


@pytest.mark.parametrize("credentials", [{"tenant": ""}, {"client_secret": "wrong"}, {"refresh_token": "wrong"}])
def test_wrong_credentials_are_said_to_be_wrong(microsoft: Microsoft365Emulator, credentials: dict[str, str]) -> None:
    adapter = open_adapter(microsoft, **credentials)
    assert adapter.check().result is Result.CREDENTIALS
    adapter.close()


def test_check_says_yes_to_good_credentials(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    assert adapter.check().result is Result.ACCEPTED


def test_scopes_name_the_host_in_national_clouds_only() -> None:
    from providers.microsoft365_token import scopes_for

    assert scopes_for(None) == ("Mail.ReadWrite", "Mail.Send")
    assert scopes_for("https://graph.microsoft.us")[1] == "https://graph.microsoft.us/Mail.Send"


def test_nothing_secret_stands_in_outcomes_or_reprs(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    secrets = [*microsoft.credentials().values()][2:]
    microsoft.fail(Fault.CLOSE, path="/send")
    outcomes = [*adapter.send([mail()])]
    microsoft.revoke()
    outcomes += adapter.send([mail()])
    shown = repr([outcomes, adapter.account, adapter._graph.tokens])
    assert not any(secret in shown for secret in secrets)


def notification(body: bytes, **query: str) -> HookRequest:
    return HookRequest(headers={}, query=query, body=body)


def test_a_notification_is_a_received_mail(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    microsoft.notify(adapter.client_state, "AAMk1")
    [hook] = microsoft.hooks
    [event] = adapter.parse_events(notification(hook.body))
    assert (event.type, event.provider_message_id) == ("received", "AAMk1")
    assert event.locator == "AAMk1"
    assert adapter.parse_events(notification(hook.body))[0].natural_key == event.natural_key


@pytest.mark.parametrize(
    ("lifecycle", "renews"), [("missed", False), ("subscriptionRemoved", True), ("reauthorizationRequired", True)]
)
def test_a_lifecycle_notice_asks_to_look_for_oneself(adapter: Microsoft365, lifecycle: str, renews: bool) -> None:
    notice = {"clientState": adapter.client_state, "lifecycleEvent": lifecycle, "subscriptionId": "s-1"}
    [event] = adapter.parse_events(notification(json.dumps({"value": [notice]}).encode()))
    assert (event.type, event.locator, bool(event.data.get("renew"))) == ("received", SOMEWHERE, renews)


def test_a_notification_without_our_state_is_refused(microsoft: Microsoft365Emulator, adapter: Microsoft365) -> None:
    microsoft.notify("wrong")
    microsoft.notify(adapter.client_state)
    wrong, right = (json.loads(hook.body)["value"][0] for hook in microsoft.hooks)
    bodies: list[Any] = [{"value": [wrong]}, {"value": [right, wrong]}, {"value": [{}]}, {"value": 7}, [], {}]
    for body in bodies:
        with pytest.raises(BadSignature):
            adapter.parse_events(notification(json.dumps(body).encode()))
    with pytest.raises(BadSignature):
        adapter.parse_events(notification(b"{"))


def test_the_validation_token_is_there_for_the_route_to_echo() -> None:
    assert validation_token(notification(b"", validationToken="a b&<c>")) == "a b&<c>"
    assert validation_token(notification(b"{}")) is None
