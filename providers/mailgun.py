"""Mailgun: ``messages.mime`` and the events index.

The MIME form takes a mail as it was composed: our Message-ID, every header, every part. The variable ``ref`` goes along
and comes back in each event. A call carries one mail, taken or refused as a whole. Mailgun chooses the envelope sender,
so bounces come back as events. Its own open and click tracking is off: links and pixel are in the mail already.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from providers.base import (
    Account,
    Failed,
    HookRequest,
    Lookup,
    LookupAnswer,
    OutboundEmail,
    Outcome,
    ProviderEvent,
    Result,
)
from providers.credentials import Credential, Credentials, Kind
from providers.http import Answer, Api, meaning, objects_in, retry_after
from providers.mail_by_mail import MailByMail
from providers.mailgun_hooks import hook_events, message_id_of, ref_of
from providers.mailgun_inbox import MailgunInbox

ROOT = "https://api.mailgun.net"
"""The US region; ``https://api.eu.mailgun.net`` is set as the account's base_url."""

STATUSES: dict[int, Result] = {
    400: Result.PERMANENT,
    401: Result.CREDENTIALS,
    402: Result.CREDENTIALS,  # the plan or the account's standing, not the mail
    403: Result.CREDENTIALS,
    404: Result.CREDENTIALS,  # the domain is not in this account, or lives in the other region
    408: Result.TRANSIENT,
    413: Result.PERMANENT,
    429: Result.THROTTLED,
    503: Result.TRANSIENT,
}
"""What a refusal means. Any other answer leaves it open whether the mail was taken; 5xx were seen after it was."""

MESSAGE_ID = re.compile(r"<[^<>@\s]+@[^<>@\s]+>")
"""What Mailgun keeps. Any other form is silently replaced, and the mail could not be found again."""

_WRONG_ROOT = b"Mailgun Magnificent API"
_TRY_AGAIN = re.compile(r"try again (?:after|in) (\d+(?= *seconds?)|[^.\"}]+)", re.IGNORECASE)


class Mailgun(MailByMail):
    name = "mailgun"
    title = "Mailgun"
    credentials: ClassVar[Credentials] = {
        "api_key": Credential(Kind.TOKEN, required=True),
        "domain": Credential(Kind.HOST, required=True),
        "signing_key": Credential(Kind.TOKEN),  # without it no event can be believed
    }
    batch: ClassVar[int] = 50
    group: ClassVar[int] = 8
    confirms_delivery: ClassVar[bool] = True
    max_recipients: ClassVar[int | None] = 1000
    max_bytes: ClassVar[int] = 25 * 1024 * 1024
    has_ip_pools: ClassVar[bool] = True
    settle_seconds: ClassVar[float] = 30 * 60.0

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        root = (account.base_url or ROOT).rstrip("/")
        self._api = Api(account, root if root.endswith("/v3") else f"{root}/v3")
        self._domain = quote(str(account.credentials["domain"]), safe="")
        key = base64.b64encode(f"api:{account.credentials['api_key']}".encode()).decode()
        self._headers = {"Authorization": f"Basic {key}"}

    def refusal(self, email: OutboundEmail) -> str | None:
        if not MESSAGE_ID.fullmatch(email.rfc_message_id):
            return "Mailgun replaces a Message-ID that is not of the form <local@domain>"
        return super().refusal(email)

    def send_one(self, email: OutboundEmail) -> Outcome:
        answer = self._api.call(
            "POST",
            f"{self._domain}/messages.mime",
            headers=self._headers,
            data=_form(email),
            files={"message": ("message.eml", email.mime, "message/rfc822")},
        )
        return _outcome(answer, email)

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        """Searches the events by Message-ID, then by recipient, for one that carries our ref."""
        try:
            for wanted in ({"message-id": email.rfc_message_id.strip("<>")}, {"recipient": email.recipients[0]}):
                answer = self._get(f"{self._domain}/events", {**wanted, "limit": "300"})
                items = _items(answer)
                if items is None:
                    return LookupAnswer(answer=Lookup.UNANSWERED, detail=_text(answer))
                for item in items:
                    if ref_of(item) == email.ref:
                        return _found(item)
        except Failed as error:
            return LookupAnswer(answer=Lookup.UNANSWERED, detail=str(error))
        return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="Mailgun has no event of this mail")

    def check(self) -> Outcome:
        """Reads the domain's record."""
        try:
            answer = self._get(f"domains/{self._domain}", {})
        except Failed as error:
            return error.outcome
        known = answer.status == 200 and isinstance(answer.json(), dict)
        return Outcome(result=Result.ACCEPTED, detail="the domain is known") if known else _refused(answer)

    def inbox(self) -> MailgunInbox:
        return MailgunInbox(self.account, self._api.root, self._headers)

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        return hook_events(request, str(self.account.credentials.get("signing_key") or ""))

    def close(self) -> None:
        super().close()
        self._api.close()

    def _get(self, path: str, params: Mapping[str, str]) -> Answer:
        return self._api.call("GET", path, headers=self._headers, params=params)


def _form(email: OutboundEmail) -> list[tuple[str, str]]:
    form = [("to", address) for address in email.recipients]
    form += [("v:ref", email.ref), ("o:tracking", "no")]
    if email.ip_pool:
        form.append(("o:sending-ip-pool", email.ip_pool))
    return form


def _outcome(answer: Answer, email: OutboundEmail) -> Outcome:
    value = answer.json()
    if answer.status != 200 or not isinstance(value, dict) or not value.get("id"):
        return _refused(answer)
    message_id = str(value["id"])
    return Outcome(
        result=Result.ACCEPTED,
        code="200",
        detail=str(value.get("message", ""))[:500],
        provider_message_id=message_id,
        rfc_message_id=message_id if message_id != email.rfc_message_id else None,
    )


def _refused(answer: Answer) -> Outcome:
    result = meaning(answer.status, STATUSES, own=answer.json() is not None)
    if answer.body.startswith(_WRONG_ROOT):
        result = Result.CREDENTIALS
    return Outcome(result=result, code=str(answer.status), detail=_text(answer), retry_after=_retry_after(answer))


def _retry_after(answer: Answer) -> float | None:
    """Mailgun says in words when to come back; a header is not promised."""
    told = _TRY_AGAIN.search(_text(answer))
    return answer.retry_after or (retry_after({"retry-after": told[1]}) if told else None)


def _text(answer: Answer) -> str:
    value = answer.json()
    told = value.get("message") if isinstance(value, dict) else None
    return str(told or answer.body.decode(errors="replace"))[:500]


def _items(answer: Answer) -> list[dict[str, Any]] | None:
    value = answer.json()
    items = value.get("items") if answer.status == 200 and isinstance(value, dict) else None
    return objects_in(items) if isinstance(items, list) else None


def _found(item: Mapping[str, Any]) -> LookupAnswer:
    message_id = message_id_of(item)
    return LookupAnswer(answer=Lookup.ACCEPTED, provider_message_id=message_id, rfc_message_id=message_id)
