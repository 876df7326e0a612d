"""Gmail and Google Workspace mailboxes through the Gmail API (https://developers.google.com/workspace/gmail/api).

A mail is made a draft first and the draft is sent: after a lost answer the draft that is still there proves that
nothing was sent, and sending it again can succeed only once. An outcome after the draft names it
(``provider_message_id``); an email that comes back with it as ``draft_id`` has that draft sent, not another. With the
scope ``gmail.send`` alone there are no drafts: the mail is sent directly, and a lost answer stays uncertain.

Gmail replaces the Message-ID; the real one is read back where the scopes allow. It sends in the name of the mailbox, so
the envelope sender is always the mailbox's.
"""

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from providers.base import (
    Account,
    Form,
    HookRequest,
    Lookup,
    LookupAnswer,
    OutboundEmail,
    Outcome,
    ProviderEvent,
    Result,
)
from providers.credentials import OAUTH, Credential, Credentials, Kind
from providers.gmail_aliases import Alias, aliases
from providers.gmail_inbox import GmailInbox
from providers.gmail_push import PushGate
from providers.gmail_recipients import addressed
from providers.gmail_search import Search
from providers.gmail_service import CallFailed, GmailService, id_of
from providers.mail_by_mail import MailByMail

_DRAFT_SCOPES = {
    "https://mail.google.com/",
    *(f"https://www.googleapis.com/auth/gmail.{s}" for s in ("compose", "modify")),
}


class Gmail(MailByMail):
    name: ClassVar[str] = "gmail"
    title: ClassVar[str] = "Gmail"
    credentials: ClassVar[Credentials] = {
        **OAUTH,
        "scope": Credential(Kind.LINE),  # those granted, separated by spaces
        # Whose OIDC token a Pub/Sub push must carry; without it the token in the hook's URL is enough.
        "push_service_account": Credential(Kind.TOKEN, beside="push_audience"),
        "push_audience": Credential(Kind.TOKEN),  # what that token must be made out to
    }
    form: ClassVar[Form] = Form.MIME
    batch: ClassVar[int] = 20
    group: ClassVar[int] = 4
    default_caps: ClassVar[Mapping[str, int]] = {"per_minute": 150, "per_day": 500}
    """The quota of the API, and what a consumer account may send in a day; Workspace allows 2 000."""
    max_bytes: ClassVar[int] = 36_700_160
    settle_seconds: ClassVar[float] = 10.0
    call_seconds: ClassVar[float] = 600.0
    keeps_message_id: ClassVar[bool] = False

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._service = GmailService(account)
        self._search = Search(self._service)
        self._gate = PushGate(account)
        self._doubtful: deque[str] = deque(maxlen=1000)
        """References of mails whose draft was asked for without an answer: it may exist under an id we never saw."""
        self._readable = True
        scopes = set(str(account.credentials.get("scope") or "").split())
        self._drafting = not scopes or not scopes.isdisjoint(_DRAFT_SCOPES)

    def send_one(self, email: OutboundEmail) -> Outcome:
        sent = self._send_draft(email) if self._drafting else None
        if sent is None:
            sent = self._send_directly(email)
        message_id = id_of(sent)
        return Outcome(
            result=Result.ACCEPTED,
            provider_message_id=message_id,
            provider_thread_id=sent.get("threadId"),
            rfc_message_id=self._real_message_id(message_id),
        )

    def _send_draft(self, email: OutboundEmail) -> dict[str, Any] | None:
        """The sent message, or None where the scopes allow no drafts."""
        draft_id = email.draft_id or self._lost_draft(email.ref)
        try:
            draft_id = draft_id or self._create_draft(email)
        except CallFailed as error:
            if not error.scope:
                raise
            self._drafting = False
            return None
        try:
            return self._service.call(self._service.drafts.send(userId="me", body={"id": draft_id}))
        except CallFailed as error:
            if error.status == 404 and email.draft_id:
                return self._send_anew(email)
            raise self._unsent(draft_id, error) from error

    def _send_anew(self, email: OutboundEmail) -> dict[str, Any] | None:
        """The draft of an earlier attempt is gone: sent after all, or deleted and still to be sent by decision."""
        try:
            sent, _ = self._search.sent(email.ref)
        except CallFailed as error:
            if not error.scope:
                raise _not_found_out(error) from error
            sent = None
        return sent or self._send_draft(replace(email, draft_id=None))

    def _create_draft(self, email: OutboundEmail) -> str:
        """Makes the draft. No failure of it can have sent the mail."""
        drafts = self._service.drafts
        request = self._service.with_mail(
            drafts.create, addressed(email), email.provider_thread_id, lambda message: {"message": message}
        )
        try:
            return id_of(self._service.call(request))
        except CallFailed as error:
            if error.outcome.result is Result.UNCERTAIN:
                self._doubtful.append(email.ref)
            raise _harmless(error) from error

    def _lost_draft(self, ref: str) -> str | None:
        """The draft of an earlier attempt that was made but whose id never reached us."""
        if ref not in self._doubtful:
            return None
        try:
            draft_id = self._search.draft(ref)
        except CallFailed as error:
            raise _not_found_out(error) from error
        with contextlib.suppress(ValueError):  # so many others since that it was dropped
            self._doubtful.remove(ref)
        return draft_id

    def _unsent(self, draft_id: str, error: CallFailed) -> CallFailed:
        """What a failed ``drafts.send`` means. The outcome names the draft, for the next attempt."""
        if error.outcome.result is Result.PERMANENT and error.status != 404:
            self._discard(draft_id)
            return error
        result = Result.UNCERTAIN if error.status == 404 else error.outcome.result
        return CallFailed(replace(error.outcome, result=result, provider_message_id=draft_id), status=error.status)

    def _discard(self, draft_id: str) -> None:
        try:
            self._service.call(self._service.drafts.delete(userId="me", id=draft_id))
        except CallFailed:
            return  # a draft too many in the mailbox is all that can come of it

    def _send_directly(self, email: OutboundEmail) -> dict[str, Any]:
        messages = self._service.messages
        request = self._service.with_mail(
            messages.send, addressed(email), email.provider_thread_id, lambda message: message
        )
        return self._service.call(request)

    def _real_message_id(self, message_id: str) -> str | None:
        if not self._readable:
            return None
        try:
            return self._search.mark(message_id).message_id
        except CallFailed as error:
            self._readable = not error.scope
            return None

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        draft_id = email.draft_id
        try:
            if draft_id and self._search.draft_message(draft_id, "minimal") is not None:
                return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="still a draft", provider_message_id=draft_id)
            sent, complete = self._search.sent(email.ref)
            if sent:
                return LookupAnswer(
                    answer=Lookup.ACCEPTED,
                    detail="found among the sent mails",
                    provider_message_id=id_of(sent),
                    provider_thread_id=sent.get("threadId"),
                    rfc_message_id=self._real_message_id(id_of(sent)),
                )
            if draft_id:
                return LookupAnswer(answer=Lookup.CANNOT_TELL, detail="neither a draft nor among the sent mails")
            draft_id = self._search.draft(email.ref)
        except CallFailed as error:
            answer = Lookup.CANNOT_TELL if error.scope else Lookup.UNANSWERED
            return LookupAnswer(answer=answer, detail=str(error))
        if draft_id:
            return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="still a draft", provider_message_id=draft_id)
        answer = Lookup.NOT_ACCEPTED if complete else Lookup.CANNOT_TELL
        return LookupAnswer(answer=answer, detail="not among the newest sent mails and drafts")

    def aliases(self) -> list[Alias]:
        """The addresses this mailbox may send as. Raises CallFailed, for one where the scopes do not allow to ask."""
        return aliases(self._service)

    def check(self) -> Outcome:
        try:
            self._service.call(self._service.users.getProfile(userId="me"))
        except CallFailed as error:
            if not error.scope:
                return error.outcome
        return Outcome(result=Result.ACCEPTED, detail="Google accepts the credentials")

    def inbox(self) -> GmailInbox:
        return GmailInbox(self._service)

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        """Notices of new mail, as Pub/Sub pushes them. Raises BadSignature."""
        return self._gate.notices(request)

    def close(self) -> None:
        super().close()
        self._service.close()
        self._gate.close()


def _harmless(error: CallFailed) -> CallFailed:
    """A failure before anything could be sent: what is not known of it does not matter."""
    if error.outcome.result is not Result.UNCERTAIN:
        return error
    return CallFailed(_but(error.outcome, Result.TRANSIENT, "no draft, nothing sent"))


def _not_found_out(error: CallFailed) -> CallFailed:
    """A search that failed. It says nothing about the mail, not even where its own request was refused for good."""
    if error.outcome.result not in (Result.UNCERTAIN, Result.PERMANENT):
        return error
    return CallFailed(_but(error.outcome, Result.TRANSIENT, "could not search, nothing sent"))


def _but(outcome: Outcome, result: Result, why: str) -> Outcome:
    return Outcome(result=result, detail=f"{why}: {outcome.detail}"[:500], code=outcome.code)
