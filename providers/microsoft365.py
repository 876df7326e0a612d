"""Microsoft 365 through Microsoft Graph: a draft first, then its send.

The refresh token is delegated, for ``Mail.ReadWrite`` and ``Mail.Send``.

The draft has an immutable id and our reference as a property, so that after a crash it tells by itself whether it went
out: ``isDraft`` is true until it is sent. Every outcome after the draft names it (``provider_message_id``); an email
that comes back with it as ``draft_id`` has that draft sent, not another. 202 is acceptance, whatever else it says.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from providers.base import (
    Account,
    Failed,
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
from providers.http import objects_in
from providers.mail_by_mail import MailByMail
from providers.microsoft365_attachments import attach_later
from providers.microsoft365_errors import refused
from providers.microsoft365_inbox import Microsoft365Inbox, notices
from providers.microsoft365_message import REF_PROPERTY, UNSENDABLE_HEADERS, draft
from providers.microsoft365_service import Graph, message_path, object_of, sends_nothing

CONCURRENT = 4
"""Requests that Exchange lets run at once for one mailbox."""
STATE_FIELDS = "id,isDraft,internetMessageId,conversationId"


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What Graph says of a message."""

    id: str
    sent: bool
    message_id: str | None
    conversation_id: str | None


class Microsoft365(MailByMail):
    """See the module for drafts."""

    name = "microsoft365"
    title = "Microsoft 365"
    credentials: ClassVar[Credentials] = {
        "tenant": Credential(Kind.ID, required=True),
        **OAUTH,
        "client_state": Credential(Kind.TOKEN),  # what change notifications must carry
    }
    form: ClassVar[Form] = Form.FIELDS
    batch: ClassVar[int] = 20
    group: ClassVar[int] = CONCURRENT
    max_connections: ClassVar[int | None] = CONCURRENT
    default_caps: ClassVar[Mapping[str, int]] = {"per_minute": 30, "per_day": 10_000}
    """Exchange Online's sending limits of a mailbox."""
    max_recipients: ClassVar[int | None] = 500
    max_bytes: ClassVar[int] = 25 * 1024 * 1024
    settle_seconds: ClassVar[float] = 60.0

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._graph = Graph(account)

    @property
    def client_state(self) -> str:
        """What a subscription is made with and its notifications carry: 64 hex digits unless configured."""
        known = self.account.credentials
        derived = hmac.new(str(known["client_secret"]).encode(), self.account.mailer_id.encode(), hashlib.sha256)
        return str(known.get("client_state") or derived.hexdigest())

    def refusal(self, email: OutboundEmail) -> str | None:
        headers = email.fields.headers if email.fields else ()
        unsendable = sorted(name for name in headers if name.lower() in UNSENDABLE_HEADERS)
        if unsendable:
            return f"Microsoft 365 does not send the header {', '.join(unsendable)}"
        return super().refusal(email)

    def send_one(self, email: OutboundEmail) -> Outcome:
        state: _State | None = None
        try:
            state = self._earlier_draft(email) or self._new_draft(email)
            if state.sent:
                return _named(Outcome(result=Result.ACCEPTED, detail="sent by an earlier attempt"), state, email)
            files = email.fields.files if email.fields else ()
            attach_later(self._graph, self.account, state.id, files, again=email.draft_id == state.id)
        except Failed as failure:
            return _named(failure.outcome, state, email)
        return _named(self._send_draft(state), state, email)

    def _earlier_draft(self, email: OutboundEmail) -> _State | None:
        if not email.draft_id:
            return None
        return self._state(email.draft_id) or _best(self._search(email.ref))

    def _new_draft(self, email: OutboundEmail) -> _State:
        return _state(self._graph.step("POST", "me/messages", json=draft(email)))

    def _send_draft(self, state: _State) -> Outcome:
        try:
            answer = self._graph.call("POST", f"{message_path(state.id)}/send")
        except Failed as failure:
            return failure.outcome
        if answer.status == 202:
            return Outcome(result=Result.ACCEPTED, code="202")
        outcome = refused(answer)
        # The draft is gone: sent by an attempt we know nothing of, or deleted by its owner.
        return replace(outcome, result=Result.UNCERTAIN) if answer.status == 404 else outcome

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        """Asks the draft itself, then the whole mailbox for our reference."""
        try:
            state = self._state(email.draft_id) if email.draft_id else None
            state = state or _best(self._search(email.ref))
        except Failed as failure:
            return LookupAnswer(answer=Lookup.UNANSWERED, detail=str(failure))
        if state is not None:
            return LookupAnswer(
                answer=Lookup.ACCEPTED if state.sent else Lookup.NOT_ACCEPTED,
                detail="sent" if state.sent else "still a draft",
                provider_message_id=state.id,
                rfc_message_id=state.message_id,
                provider_thread_id=state.conversation_id,
            )
        if email.draft_id:
            return LookupAnswer(answer=Lookup.CANNOT_TELL, detail="the draft is gone and no sent copy is there")
        return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="neither a draft nor a sent copy is there")

    def check(self) -> Outcome:
        """Reads the drafts folder: token, mailbox and the scope that drafts need."""
        try:
            self._graph.step("GET", "me/mailFolders/drafts", params={"$select": "id"})
        except Failed as failure:
            return failure.outcome
        return Outcome(result=Result.ACCEPTED, detail="the mailbox can be reached")

    def inbox(self) -> Microsoft365Inbox:
        return Microsoft365Inbox(self._graph, self.client_state)

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        """Reads change notifications, which bring mail by its id only, and lifecycle notices."""
        return notices(request, self.client_state)

    def close(self) -> None:
        super().close()
        self._graph.close()

    def _state(self, message: str) -> _State | None:
        """What Graph says of one message; None if there is no such. Raises Failed."""
        with sends_nothing():
            answer = self._graph.call("GET", message_path(message), params={"$select": STATE_FIELDS})
            return None if answer.status == 404 else _state(object_of(answer))

    def _search(self, ref: str) -> list[_State]:
        wanted = f"singleValueExtendedProperties/Any(ep: ep/id eq '{REF_PROPERTY}' and ep/value eq '{ref}')"
        asked = {"$filter": wanted, "$select": STATE_FIELDS, "$top": "10"}
        found = self._graph.step("GET", "me/messages", params=asked)
        return [_state(item) for item in objects_in(found.get("value"))]


def validation_token(request: HookRequest) -> str | None:
    """What Graph wants echoed as ``text/plain`` with 200 when a subscription is made; None for a notification."""
    return request.query.get("validationToken")


def _state(value: Mapping[str, Any]) -> _State:
    """Raises Failed for an object that is no message."""
    if not value.get("id") or not isinstance(value.get("isDraft"), bool):
        raise Failed(Outcome(result=Result.TRANSIENT, detail="the answer is no message of Graph"))
    return _State(
        id=str(value["id"]),
        sent=not value["isDraft"],
        message_id=value.get("internetMessageId"),
        conversation_id=value.get("conversationId"),
    )


def _best(states: Sequence[_State]) -> _State | None:
    """The one that was sent, else any, else none."""
    return max(states, key=lambda state: state.sent, default=None)


def _named(outcome: Outcome, state: _State | None, email: OutboundEmail) -> Outcome:
    """The outcome with the ids of the draft it speaks of."""
    if state is None:
        return outcome
    other = state.message_id if state.message_id != email.rfc_message_id else None
    return replace(
        outcome, provider_message_id=state.id, rfc_message_id=other, provider_thread_id=state.conversation_id
    )
