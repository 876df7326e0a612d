"""Gmail and Google Workspace mailboxes through the Gmail API (https://developers.google.com/workspace/gmail/api).

Credentials: ``client_id``, ``client_secret``, ``refresh_token``; optional ``scope``, the granted scopes.

A mail is made a draft first and the draft is sent: after a lost answer the draft that is still there proves that
nothing was sent, and sending it again can succeed only once. With the scope ``gmail.send`` alone there are no drafts:
the mail is sent directly, and a lost answer stays uncertain. Gmail replaces the Message-ID; the real one is read back
where the scopes allow. It sends in the name of the mailbox, so the envelope sender is always the mailbox's.
"""

import re
import threading
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from email.utils import formataddr, getaddresses
from typing import Any, ClassVar

from providers.base import (
    Account,
    BadSignature,
    Form,
    HookRequest,
    Lookup,
    LookupAnswer,
    OutboundEmail,
    Outcome,
    Provider,
    ProviderEvent,
    Result,
)
from providers.gmail_service import CallFailed, GmailService

REF_HEADER = "X-Postroad-Ref"
SEARCH_DEPTH = 60
"""How many of the newest sent mails and drafts a lookup without a draft id reads."""
_DRAFT_SCOPES = {
    "https://mail.google.com/",
    *(f"https://www.googleapis.com/auth/gmail.{s}" for s in ("compose", "modify")),
}
_REMEMBERED = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """An address the mailbox may send as."""

    email: str
    name: str | None
    reply_to: str | None
    is_primary: bool
    is_default: bool
    usable: bool
    """Verified. Gmail quietly replaces a From that is not usable by the primary address."""


class Gmail(Provider):
    name: ClassVar[str] = "gmail"
    form: ClassVar[Form] = Form.MIME
    batch: ClassVar[int] = 20
    group: ClassVar[int] = 4
    parallel: ClassVar[bool] = True
    max_bytes: ClassVar[int] = 36_700_160
    settle_seconds: ClassVar[float] = 10.0
    keeps_message_id: ClassVar[bool] = False

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._service = GmailService(account)
        self._drafts: dict[str, str] = {}
        """Our reference -> draft id, of mails whose draft may still be there."""
        self._doubtful: set[str] = set()
        """References of mails whose draft was asked for without an answer: it may exist under an id we never saw."""
        self._lock = threading.Lock()
        self._readable = True
        scopes = set(str(account.credentials.get("scope") or "").split())
        self._drafting = not scopes or not scopes.isdisjoint(_DRAFT_SCOPES)
        self._pool = ThreadPoolExecutor(max(account.connections, 1), thread_name_prefix="gmail")

    def send(self, emails: Sequence[OutboundEmail]) -> Sequence[Outcome]:
        if len(emails) == 1:
            return [self._send(emails[0])]
        return list(self._pool.map(self._send, emails))

    def _send(self, email: OutboundEmail) -> Outcome:
        refusal = _refusal(email)
        if refusal:
            return Outcome(result=Result.PERMANENT, detail=refusal)
        try:
            sent = self._send_draft(email) if self._drafting else None
            sent = sent or self._send_directly(email)
        except CallFailed as error:
            return error.outcome
        self._forget(email.ref)
        return Outcome(
            result=Result.ACCEPTED,
            provider_message_id=sent.get("id"),
            provider_thread_id=sent.get("threadId"),
            rfc_message_id=self._real_message_id(sent.get("id")),
        )

    def _send_draft(self, email: OutboundEmail) -> dict[str, Any] | None:
        """The sent message, or None where the scopes allow no drafts."""
        draft_id = email.draft_id or self._drafts.get(email.ref) or self._lost_draft(email.ref)
        try:
            draft_id = draft_id or self._create_draft(email)
        except CallFailed as error:
            if not error.scope:
                raise
            self._drafting = False
            return None
        try:
            return self._service.call(self._service.users.drafts().send(userId="me", body={"id": draft_id}))
        except CallFailed as error:
            raise self._unsent(email.ref, draft_id, error) from error

    def _create_draft(self, email: OutboundEmail) -> str:
        """Makes the draft and remembers its id. No failure of it can have sent the mail."""
        drafts = self._service.users.drafts()
        request = self._service.with_mail(
            drafts.create, _addressed(email), email.provider_thread_id, lambda message: {"message": message}
        )
        try:
            draft_id = str(self._service.call(request)["id"])
        except CallFailed as error:
            if error.outcome.result is Result.UNCERTAIN:
                self._doubtful.add(email.ref)
            raise _harmless(error) from error
        self._remember(email.ref, draft_id)
        return draft_id

    def _lost_draft(self, ref: str) -> str | None:
        """The draft of an earlier attempt that was made but whose id never reached us."""
        if ref not in self._doubtful:
            return None
        try:
            draft_id = self._find_draft(ref)
        except CallFailed as error:
            raise _harmless(error) from error
        self._doubtful.discard(ref)
        if draft_id:
            self._remember(ref, draft_id)
        return draft_id

    def _unsent(self, ref: str, draft_id: str, error: CallFailed) -> CallFailed:
        """What a failed ``drafts.send`` means. A missing draft was sent before, or deleted by someone."""
        if error.status == 404:
            return CallFailed(_but(error.outcome, Result.UNCERTAIN, "the draft is gone"), status=404)
        if error.outcome.result is Result.PERMANENT:
            self._discard(draft_id)
            self._forget(ref)
        return error

    def _discard(self, draft_id: str) -> None:
        try:
            self._service.call(self._service.users.drafts().delete(userId="me", id=draft_id))
        except CallFailed:
            return  # a draft too many in the mailbox is all that can come of it

    def _send_directly(self, email: OutboundEmail) -> dict[str, Any]:
        messages = self._service.users.messages()
        request = self._service.with_mail(
            messages.send, _addressed(email), email.provider_thread_id, lambda message: message
        )
        return self._service.call(request)

    def _real_message_id(self, message_id: str | None) -> str | None:
        if not message_id or not self._readable:
            return None
        try:
            return self._header(message_id, "Message-ID")
        except CallFailed as error:
            self._readable = not error.scope
            return None

    def _header(self, message_id: str, name: str) -> str | None:
        message = self._service.call(
            self._service.users.messages().get(userId="me", id=message_id, format="metadata", metadataHeaders=[name])
        )
        return _header_of(message, name)

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        draft_id = email.draft_id or self._drafts.get(email.ref)
        try:
            if draft_id and self._is_draft(draft_id):
                return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="still a draft")
            sent, complete = self._find_sent(email.ref)
            if sent:
                return LookupAnswer(
                    answer=Lookup.ACCEPTED,
                    detail="found among the sent mails",
                    provider_message_id=sent["id"],
                    provider_thread_id=sent.get("threadId"),
                    rfc_message_id=self._real_message_id(sent["id"]),
                )
            if draft_id:
                return LookupAnswer(answer=Lookup.CANNOT_TELL, detail="neither a draft nor among the sent mails")
            draft_id = self._find_draft(email.ref)
        except CallFailed as error:
            return LookupAnswer(answer=Lookup.CANNOT_TELL, detail=str(error))
        if draft_id:
            self._remember(email.ref, draft_id)
            return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="still a draft")
        answer = Lookup.NOT_ACCEPTED if complete else Lookup.CANNOT_TELL
        return LookupAnswer(answer=answer, detail="not among the newest sent mails and drafts")

    def _is_draft(self, draft_id: str) -> bool:
        try:
            self._service.call(self._service.users.drafts().get(userId="me", id=draft_id, format="minimal"))
        except CallFailed as error:
            if error.status == 404:
                return False
            raise
        return True

    def _find_sent(self, ref: str) -> tuple[dict[str, Any] | None, bool]:
        """The sent message with this reference, and whether all that could be it were read."""
        messages = self._service.users.messages()
        page = self._service.call(messages.list(userId="me", labelIds=["SENT"], maxResults=SEARCH_DEPTH))
        for message in page.get("messages", []):
            if self._header(message["id"], REF_HEADER) == ref:
                return message, True
        return None, not page.get("nextPageToken")

    def _find_draft(self, ref: str) -> str | None:
        drafts = self._service.users.drafts()
        page = self._service.call(drafts.list(userId="me", maxResults=SEARCH_DEPTH))
        for draft in page.get("drafts", []):
            found = self._service.call(drafts.get(userId="me", id=draft["id"], format="metadata"))
            if _header_of(found.get("message", {}), REF_HEADER) == ref:
                return str(draft["id"])
        return None

    def aliases(self) -> list[Alias]:
        """The addresses this mailbox may send as. Raises CallFailed, for one where the scopes do not allow to ask."""
        found = self._service.call(self._service.users.settings().sendAs().list(userId="me"))
        return [
            Alias(
                email=item["sendAsEmail"],
                name=item.get("displayName") or None,
                reply_to=item.get("replyToAddress") or None,
                is_primary=bool(item.get("isPrimary")),
                is_default=bool(item.get("isDefault")),
                usable=bool(item.get("isPrimary")) or item.get("verificationStatus") == "accepted",
            )
            for item in found.get("sendAs", [])
        ]

    def check(self) -> Outcome:
        try:
            self._service.call(self._service.users.getProfile(userId="me"))
        except CallFailed as error:
            if not error.scope:
                return error.outcome
        return Outcome(result=Result.ACCEPTED, detail="Google accepts the credentials")

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:  # noqa: ARG002
        """Always raises BadSignature: Gmail calls no webhooks."""
        raise BadSignature("gmail has no webhooks")

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._service.close()

    def _remember(self, ref: str, draft_id: str) -> None:
        with self._lock:
            while len(self._drafts) >= _REMEMBERED:
                del self._drafts[next(iter(self._drafts))]
            self._drafts[ref] = draft_id

    def _forget(self, ref: str) -> None:
        with self._lock:
            self._drafts.pop(ref, None)
        self._doubtful.discard(ref)


def _refusal(email: OutboundEmail) -> str | None:
    """What Gmail cannot carry."""
    if email.mime is None:
        return "gmail needs the mail as MIME"
    if email.ip_pool:
        return "gmail has no IP pools; leave ip_pool out"
    if len(email.mime) > Gmail.max_bytes:
        return f"gmail takes mails of up to {Gmail.max_bytes} bytes"
    return None


def _harmless(error: CallFailed) -> CallFailed:
    """A failure before anything could be sent: what is not known of it does not matter."""
    if error.outcome.result is not Result.UNCERTAIN:
        return error
    return CallFailed(_but(error.outcome, Result.TRANSIENT, "no draft, nothing sent"))


def _but(outcome: Outcome, result: Result, why: str) -> Outcome:
    return Outcome(result=result, detail=f"{why}: {outcome.detail}"[:500], code=outcome.code)


def _header_of(message: dict[str, Any], name: str) -> str | None:
    headers = message.get("payload", {}).get("headers", [])
    return next((item["value"] for item in headers if item["name"].lower() == name.lower()), None)


def _addressed(email: OutboundEmail) -> bytes:
    """The mail with our reference and with headers that name exactly the recipients.

    Gmail sends to those the headers name, and takes Bcc out itself.
    """
    mime = email.mime or b""
    end = mime.find(b"\r\n\r\n") + 2
    head = mime[:end].decode("utf-8", "surrogateescape")
    wanted = {address.casefold(): address for address in email.recipients}
    parsed = message_from_string(head)
    named = {address.casefold() for _, address in _boxes(parsed, "To", "Cc")}
    if not named <= wanted.keys():
        head = _without(head, parsed, wanted.keys())
    blind = [address for key, address in wanted.items() if key not in named]
    if blind:
        head = f"Bcc: {', '.join(blind)}\r\n{head}"
    if parsed[REF_HEADER] is None:
        head = f"{REF_HEADER}: {email.ref}\r\n{head}"
    return head.encode("utf-8", "surrogateescape") + mime[end:]


def _boxes(parsed: Message, *names: str) -> list[tuple[str, str]]:
    boxes = getaddresses([str(value) for name in names for value in parsed.get_all(name, [])])
    return [box for box in boxes if box[1]]


def _without(head: str, parsed: Message, wanted: Container[str]) -> str:
    """To and Cc without those that are already served or suppressed."""
    for name in ("To", "Cc"):
        kept = [formataddr(box) for box in _boxes(parsed, name) if box[1].casefold() in wanted]
        line = f"{name}: {', '.join(kept)}\r\n" if kept else ""
        field = re.compile(rf"^{name}:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
        head = line + field.sub("", head)
    return head
