"""Microsoft 365 through Microsoft Graph: a draft first, then its send.

Credentials: ``tenant``, ``client_id``, ``client_secret``, ``refresh_token`` (delegated, for ``Mail.ReadWrite`` and
``Mail.Send``); optional ``client_state``, what change notifications must carry.

The draft has an immutable id and our reference as a property, so that after a crash it tells by itself whether it went
out: ``isDraft`` is true until it is sent. Every outcome after the draft names it (``provider_message_id``); an email
that comes back with it as ``draft_id`` has that draft sent, not another. 202 is acceptance, whatever else it says.
"""

import hashlib
import hmac
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from providers.base import (
    Account,
    File,
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
from providers.credentials import OAUTH, Credential, Credentials, Kind
from providers.http import Answer, Api, NoAnswer, NotSent, objects_in, outcome_of
from providers.microsoft365_errors import harmless, refused
from providers.microsoft365_inbox import Microsoft365Inbox, notices
from providers.microsoft365_message import (
    REF_PROPERTY,
    SESSION_BYTES,
    attachment,
    draft,
    refusal,
    split,
    upload_session,
)
from providers.microsoft365_token import Tokens
from providers.tokens import TokenError

ROOT = "https://graph.microsoft.com"
CONCURRENT = 4
"""Requests that Exchange lets run at once for one mailbox."""
CHUNK_BYTES = 12 * 320 * 1024
"""Ranges of an upload session: a multiple of 320 KiB under 4 MB."""
STATE_FIELDS = "id,isDraft,internetMessageId,conversationId"


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What Graph says of a message."""

    id: str
    sent: bool
    message_id: str | None
    conversation_id: str | None


class _Stopped(Exception):
    """A step before the send failed. Surely nothing was sent."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Microsoft365(Provider):
    """See the module for credentials and drafts."""

    name = "microsoft365"
    credentials: ClassVar[Credentials] = {
        "tenant": Credential(Kind.ID, required=True),
        **OAUTH,
        "client_state": Credential(Kind.TOKEN),
    }
    form: ClassVar[Form] = Form.FIELDS
    batch: ClassVar[int] = 20
    group: ClassVar[int] = CONCURRENT
    parallel: ClassVar[bool] = True
    default_caps: ClassVar[Mapping[str, int]] = {"per_minute": 30, "per_day": 10_000}
    """Exchange Online's sending limits of a mailbox."""
    max_bytes: ClassVar[int] = 25 * 1024 * 1024
    settle_seconds: ClassVar[float] = 60.0

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        root = (account.base_url or ROOT).rstrip("/")
        self._api = Api(account, root if root.endswith(("/v1.0", "/beta")) else f"{root}/v1.0")
        self._tokens = Tokens(account)
        self._threads = ThreadPoolExecutor(max_workers=min(CONCURRENT, max(1, account.connections)))

    @property
    def client_state(self) -> str:
        """What a subscription is made with and its notifications carry: 64 hex digits unless configured."""
        known = self.account.credentials
        derived = hmac.new(str(known["client_secret"]).encode(), self.account.mailer_id.encode(), hashlib.sha256)
        return str(known.get("client_state") or derived.hexdigest())

    def send(self, emails: Sequence[OutboundEmail]) -> Sequence[Outcome]:
        return list(self._threads.map(self._send, emails))

    def _send(self, email: OutboundEmail) -> Outcome:
        reason = refusal(email)
        if reason:
            return Outcome(result=Result.PERMANENT, detail=reason)
        state: _State | None = None
        try:
            state = self._earlier_draft(email) or self._new_draft(email)
            if state.sent:
                return _named(Outcome(result=Result.ACCEPTED, detail="sent by an earlier attempt"), state, email)
            self._attach_later(email, state)
        except _Stopped as stop:
            return _named(stop.outcome, state, email)
        return _named(self._send_draft(state), state, email)

    def _earlier_draft(self, email: OutboundEmail) -> _State | None:
        if not email.draft_id:
            return None
        return self._state(email.draft_id) or _best(self._search(email.ref))

    def _new_draft(self, email: OutboundEmail) -> _State:
        return _state(self._step("POST", "me/messages", json=draft(email)))

    def _attach_later(self, email: OutboundEmail, state: _State) -> None:
        """Adds the attachments that did not fit into the draft; those an earlier attempt added are counted off."""
        assert email.fields is not None  # noqa: S101
        first, later = split(email.fields.files)
        if later and email.draft_id == state.id:
            there = self._step("GET", f"{_path(state.id)}/attachments", params={"$select": "id"})
            later = later[max(0, len(objects_in(there.get("value"))) - len(first)) :]
        for file in later:
            if len(file.data) < SESSION_BYTES:
                self._step("POST", f"{_path(state.id)}/attachments", json=attachment(file))
            else:
                self._upload(state, file)

    def _upload(self, state: _State, file: File) -> None:
        path = f"{_path(state.id)}/attachments/createUploadSession"
        session = self._step("POST", path, json=upload_session(file))
        url = urlsplit(str(session.get("uploadUrl")))
        # Another host, and one that must not see our token: the URL carries its own.
        api = Api(self.account, f"{url.scheme}://{url.netloc}", timeout=self._api.timeout)
        try:
            for start in range(0, len(file.data), CHUNK_BYTES):
                chunk = file.data[start : start + CHUNK_BYTES]
                span = f"bytes {start}-{start + len(chunk) - 1}/{len(file.data)}"
                headers = {"Content-Range": span, "Content-Type": "application/octet-stream"}
                answer = api.call("PUT", f"{url.path}?{url.query}", headers=headers, data=chunk)
                if answer.status not in (200, 201, 202):
                    raise _Stopped(harmless(refused(answer)))
        except (NotSent, NoAnswer) as error:
            raise _Stopped(harmless(outcome_of(error))) from error
        finally:
            api.close()

    def _send_draft(self, state: _State) -> Outcome:
        try:
            answer = self._graph("POST", f"{_path(state.id)}/send")
        except TokenError as error:
            return error.outcome
        except (NotSent, NoAnswer) as error:
            return outcome_of(error)
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
        except _Stopped as stop:
            return LookupAnswer(answer=Lookup.UNANSWERED, detail=stop.outcome.detail)
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
            self._step("GET", "me/mailFolders/drafts", params={"$select": "id"})
        except _Stopped as stop:
            return stop.outcome
        return Outcome(result=Result.ACCEPTED, detail="the mailbox can be reached")

    def inbox(self) -> Microsoft365Inbox:
        return Microsoft365Inbox(self._graph, self.client_state)

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        """Reads change notifications, which bring mail by its id only, and lifecycle notices."""
        return notices(request, self.client_state)

    def close(self) -> None:
        self._threads.shutdown()
        self._api.close()
        self._tokens.close()

    def _state(self, message: str) -> _State | None:
        """What Graph says of one message; None if there is no such. Raises _Stopped."""
        try:
            answer = self._graph("GET", _path(message), params={"$select": STATE_FIELDS})
        except (TokenError, NotSent, NoAnswer) as error:
            raise _Stopped(_failed(error)) from error
        if answer.status == 404:
            return None
        return _state(_object(answer))

    def _search(self, ref: str) -> list[_State]:
        wanted = f"singleValueExtendedProperties/Any(ep: ep/id eq '{REF_PROPERTY}' and ep/value eq '{ref}')"
        found = self._step("GET", "me/messages", params={"$filter": wanted, "$select": STATE_FIELDS, "$top": "10"})
        return [_state(item) for item in objects_in(found.get("value"))]

    def _step(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """A call that sends no mail. Raises _Stopped unless it succeeds."""
        try:
            return _object(self._graph(method, path, **arguments))
        except (TokenError, NotSent, NoAnswer) as error:
            raise _Stopped(_failed(error)) from error

    def _graph(self, method: str, path: str, **arguments: Any) -> Answer:
        """One request; a second one only where Graph refused the first for an access token that had aged."""
        token = self._tokens.get()
        answer = self._api.call(method, path, headers=_headers(token), **arguments)
        if answer.status != 401:
            return answer
        token = self._tokens.get(instead_of=token)
        return self._api.call(method, path, headers=_headers(token), **arguments)


def validation_token(request: HookRequest) -> str | None:
    """What Graph wants echoed as ``text/plain`` with 200 when a subscription is made; None for a notification."""
    return request.query.get("validationToken")


def _headers(token: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Prefer": 'IdType="ImmutableId"',
        "client-request-id": str(uuid.uuid4()),
    }


def _path(message: str) -> str:
    return f"me/messages/{quote(message, safe='')}"


def _object(answer: Answer) -> dict[str, Any]:
    """The JSON object of a success. Raises _Stopped for anything else."""
    value = answer.json()
    if answer.status in (200, 201) and isinstance(value, dict):
        return value
    raise _Stopped(harmless(refused(answer)))


def _state(value: Mapping[str, Any]) -> _State:
    """Raises _Stopped for an object that is no message."""
    if not value.get("id") or not isinstance(value.get("isDraft"), bool):
        raise _Stopped(Outcome(result=Result.TRANSIENT, detail="the answer is no message of Graph"))
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


def _failed(error: TokenError | NotSent | NoAnswer) -> Outcome:
    return error.outcome if isinstance(error, TokenError) else harmless(outcome_of(error))
