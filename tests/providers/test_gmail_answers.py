"""Every answer of the emulated Gmail, to Google's own client, against Google's own discovery document."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

import providers.gmail_service
import providers.oauth
from providers.emulators.gmail import GmailEmulator
from providers.emulators.gmail_requests import ApiError, read_call
from providers.emulators.http import Call, Reply
from providers.gmail_service import CallFailed, GmailService
from tests.providers.discovery import faults_of_answer
from tests.providers.samples import account

CREDENTIALS = {"client_id": "client", "client_secret": "client-secret", "refresh_token": "refresh-token"}
MIME = b"From: ann@demo.test\r\nTo: bob@client.test\r\n\r\nHello\r\n"
RAW = base64.urlsafe_b64encode(MIME).decode()
FORMS = ("minimal", "metadata", "full", "raw")


class JudgedGmail(GmailEmulator):
    """Notes of every call to the API what is wrong with its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.judged: set[str] = set()
        """Methods that have answered well at least once."""
        self.faults: list[str] = []

    def answer(self, call: Call) -> Reply:
        reply = super().answer(call)
        try:
            method = read_call(call).method
        except ApiError:
            return reply
        if reply.status < 300:
            self.judged.add(method)
            self.faults += faults_of_answer(method, reply.body)
        return reply


@pytest.fixture
def gmail() -> Iterator[JudgedGmail]:
    providers.oauth._cache.clear()  # a port, and with it an account, may be that of a test before
    with JudgedGmail() as emulator:
        yield emulator


@pytest.fixture
def service(gmail: JudgedGmail) -> Iterator[GmailService]:
    opened = GmailService(account("gmail", gmail, **CREDENTIALS))
    yield opened
    opened.close()


def _drafts(service: GmailService) -> None:
    drafts = service.users.drafts()
    made = [service.call(drafts.create(userId="me", body={"message": {"raw": RAW}})) for _ in range(3)]
    for form in FORMS:
        service.call(drafts.get(userId="me", id=made[0]["id"], format=form))
    page = service.call(drafts.list(userId="me", maxResults=2))
    assert len(service.call(drafts.list(userId="me", pageToken=page["nextPageToken"], maxResults=2))["drafts"]) == 1
    service.call(drafts.send(userId="me", body={"id": made[0]["id"]}))
    service.call(drafts.delete(userId="me", id=made[1]["id"]))


def _messages(service: GmailService) -> None:
    messages = service.users.messages()
    sent = service.call(messages.send(userId="me", body={"raw": RAW}))
    for form in FORMS:
        service.call(messages.get(userId="me", id=sent["id"], format=form))
    service.call(messages.send(userId="me", body={"raw": RAW, "threadId": sent["threadId"]}))
    assert service.call(messages.list(userId="me", labelIds=["SENT"], maxResults=1))["nextPageToken"]
    assert service.call(messages.list(userId="me", labelIds=["TRASH"]))["resultSizeEstimate"] == 0


def _mailbox(service: GmailService) -> None:
    users = service.users
    assert service.call(users.history().list(userId="me", startHistoryId="1"))["history"]
    service.call(users.watch(userId="me", body={"topicName": "projects/demo/topics/mail", "labelIds": ["INBOX"]}))
    service.call(users.stop(userId="me"))
    service.call(users.settings().sendAs().list(userId="me"))
    service.call(users.getProfile(userId="me"))


def test_every_answer_is_one_that_googles_discovery_document_allows(gmail: JudgedGmail, service: GmailService) -> None:
    gmail.receive(b"From: bob@client.test\r\nTo: ann@demo.test\r\n\r\nHello")
    gmail.aliases.append({"sendAsEmail": "desk@demo.test", "verificationStatus": "pending"})
    _drafts(service)
    _messages(service)
    _mailbox(service)
    assert gmail.judged == set(GmailEmulator._METHODS)
    assert gmail.faults == []


def test_what_an_upload_answers_is_allowed_too(
    gmail: JudgedGmail, service: GmailService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.gmail_service, "INLINE_BYTES", 0)
    drafts, messages = service.users.drafts(), service.users.messages()
    service.call(service.with_mail(messages.send, MIME, None, dict))
    service.call(service.with_mail(drafts.create, MIME, None, lambda message: {"message": message}))
    assert len(gmail.calls_to("/upload/gmail/v1/users/me/messages/send")) == 1
    assert gmail.judged == {"gmail.users.messages.send", "gmail.users.drafts.create"}
    assert gmail.faults == []


def test_refusals_are_read_by_googles_client(gmail: JudgedGmail, service: GmailService) -> None:
    with pytest.raises(CallFailed) as caught:
        service.call(service.users.messages().get(userId="me", id="nobody"))
    assert (caught.value.status, gmail.judged) == (404, set())


MESSAGE = {"id": "m", "threadId": "t", "historyId": "7", "sizeEstimate": 3, "labelIds": ["SENT"]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "sent"}, ".state: there is no such member"),
        ({"id": 7}, ".id: int instead of string"),
        ({"historyId": 7}, ".historyId: int instead of string"),
        ({"historyId": "-7"}, ".historyId: '-7' is no uint64"),
        ({"internalDate": "today"}, ".internalDate: 'today' is no int64"),
        ({"sizeEstimate": True}, ".sizeEstimate: bool instead of integer"),
        ({"sizeEstimate": 2**31}, ".sizeEstimate: 2147483648 is no int32"),
        ({"labelIds": "SENT"}, ".labelIds: str instead of array"),
        ({"labelIds": ["SENT", None]}, ".labelIds[1]: NoneType instead of string"),
        ({"raw": "a+b/"}, ".raw: 'a+b/' is no byte"),
        ({"raw": "a"}, ".raw: 'a' is no byte"),
        ({"payload": {"headers": [{"key": "To"}]}}, ".payload.headers[0].key: there is no such member"),
    ],
)
def test_the_judge_sees_what_is_wrong(changes: dict[str, Any], told: str) -> None:
    assert faults_of_answer("gmail.users.messages.get", MESSAGE) == []
    assert faults_of_answer("gmail.users.messages.get", MESSAGE | changes) == [f"gmail.users.messages.get{told}"]


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("gmail.users.drafts.delete", {}),
        ("gmail.users.drafts.send", None),
        ("gmail.users.settings.sendAs.list", {"sendAs": [{"verificationStatus": "perhaps"}]}),
    ],
)
def test_the_judge_sees_a_body_too_many_one_too_few_and_a_word_that_is_none(method: str, body: Any) -> None:
    assert len(faults_of_answer(method, body)) == 1
