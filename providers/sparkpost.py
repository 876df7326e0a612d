"""SparkPost: transmissions of ``email_rfc822`` and the message events index.

The raw form carries most: every header and part as composed. SparkPost still chooses Message-ID and envelope sender. It
reads ``{{`` in headers as its own template language, so a mail with that in a header is refused. A mail with
List-Unsubscribe goes as non-transactional: SparkPost puts its own such header and reports who used it. Its open and
click tracking is off: links and pixel are in the mail already.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

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
from providers.http import Answer, Api, NoAnswer, fields_of, meaning, objects_in
from providers.mail_by_mail import MailByMail
from providers.sparkpost_hooks import hook_events, ref_of

ROOT = "https://api.sparkpost.com"
"""``https://api.eu.sparkpost.com`` and others are set as the account's base_url."""

STATUSES: dict[int, Result] = {
    400: Result.PERMANENT,
    401: Result.CREDENTIALS,
    403: Result.CREDENTIALS,
    404: Result.CREDENTIALS,  # not SparkPost's API
    408: Result.TRANSIENT,
    413: Result.PERMANENT,
    415: Result.PERMANENT,
    420: Result.THROTTLED,  # a sending limit; nothing of the call was taken
    422: Result.PERMANENT,
    429: Result.THROTTLED,
    503: Result.TRANSIENT,
}
"""What a refusal means. Any other answer leaves it open whether the mail was taken."""

CODES: dict[str, Result] = {
    "1502": Result.TRANSIENT,
    "1900": Result.TRANSIENT,
    "1902": Result.PERMANENT,  # every recipient is suppressed
    "2101": Result.THROTTLED,
    "2102": Result.THROTTLED,
    "2103": Result.CREDENTIALS,  # the sandbox domain's limit: the account needs a domain of its own
    "2105": Result.THROTTLED,
    "7000": Result.CREDENTIALS,  # the sending domain is not set up
    "7001": Result.CREDENTIALS,
}
"""``errors[].code`` where it says more than the status."""

RETENTION = timedelta(days=10)
PAGE = 500
MAX_PAGES = 10

_UNSUBSCRIBE = re.compile(rb"^list-unsubscribe:", re.IGNORECASE | re.MULTILINE)


class SparkPost(MailByMail):
    """See the module for what SparkPost makes of a mail."""

    name = "sparkpost"
    title = "SparkPost"
    credentials: ClassVar[Credentials] = {
        "api_key": Credential(Kind.TOKEN, required=True),
        "hook_secret": Credential(Kind.SECRET),  # see `providers.sparkpost_hooks`
    }
    batch: ClassVar[int] = 50
    group: ClassVar[int] = 8
    confirms_delivery: ClassVar[bool] = True
    max_recipients: ClassVar[int | None] = 2000
    max_bytes: ClassVar[int] = 20 * 1024 * 1024
    has_ip_pools: ClassVar[bool] = True
    settle_seconds: ClassVar[float] = 10 * 60.0
    keeps_message_id: ClassVar[bool] = False

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        root = (account.base_url or ROOT).rstrip("/")
        self._api = Api(account, root if root.endswith("/api/v1") else f"{root}/api/v1")
        self._headers = {"Authorization": str(account.credentials["api_key"]), "Accept": "application/json"}

    def refusal(self, email: OutboundEmail) -> str | None:
        reason = super().refusal(email)
        if reason:
            return reason
        mime = email.mime or b""
        if b"{{" in _head(mime):
            return "a header holds {{, which SparkPost would read as its template language"
        try:
            mime.decode()
        except UnicodeDecodeError:
            return "SparkPost takes JSON, and this mail holds bytes that are no UTF-8"
        return None

    def send_one(self, email: OutboundEmail) -> Outcome:
        answer = self._api.call("POST", "transmissions", headers=self._headers, json=_transmission(email))
        return _outcome(answer, email)

    def lookup(self, email: OutboundEmail) -> LookupAnswer:
        """Searches the events of the first recipient for one that carries our ref."""
        try:
            for page in self._pages(email.recipients[0]):
                found = next((event for event in page if ref_of(event) == email.ref), None)
                if found is not None:
                    return LookupAnswer(answer=Lookup.ACCEPTED, provider_message_id=found.get("transmission_id"))
        except Failed as error:
            return LookupAnswer(answer=Lookup.UNANSWERED, detail=str(error))
        except LookupError as error:
            return LookupAnswer(answer=Lookup.CANNOT_TELL, detail=str(error))
        return LookupAnswer(answer=Lookup.NOT_ACCEPTED, detail="SparkPost has no event of this mail")

    def _pages(self, recipient: str) -> Iterator[list[dict[str, Any]]]:
        """All events of a recipient. Raises NoAnswer if SparkPost does not tell, LookupError if it tells too much."""
        now = datetime.now(UTC)
        query = {"recipients": recipient, "per_page": str(PAGE), "from": _utc(now - RETENTION), "to": _utc(now)}
        for _ in range(MAX_PAGES):
            answer = self._api.call("GET", "events/message", headers=self._headers, params=query)
            value = answer.json()
            if answer.status != 200 or not isinstance(value, dict) or not isinstance(value.get("results"), list):
                raise NoAnswer(_error(answer)[1])
            yield objects_in(value["results"])
            following = fields_of(value.get("links")).get("next")
            if not following:
                return
            query = {name: values[0] for name, values in parse_qs(urlsplit(str(following)).query).items()}
        raise LookupError(f"the recipient has more than {MAX_PAGES * PAGE} events")

    def check(self) -> Outcome:
        """Reads the account's record."""
        try:
            answer = self._api.call("GET", "account", headers=self._headers)
        except Failed as error:
            return error.outcome
        # A key that may only send is refused here for its scope alone.
        if answer.status in (200, 403) and isinstance(answer.json(), dict):
            return Outcome(result=Result.ACCEPTED, detail="SparkPost knows the key")
        return _refused(answer)

    def parse_events(self, request: HookRequest) -> Sequence[ProviderEvent]:
        return hook_events(request, str(self.account.credentials.get("hook_secret") or ""))

    def close(self) -> None:
        super().close()
        self._api.close()


def _head(mime: bytes) -> bytes:
    return mime.partition(b"\r\n\r\n")[0]


def _transmission(email: OutboundEmail) -> dict[str, Any]:
    mime = email.mime or b""
    options: dict[str, Any] = {
        "open_tracking": False,
        "click_tracking": False,
        "perform_substitutions": False,
        "transactional": not _UNSUBSCRIBE.search(_head(mime)),
    }
    if email.ip_pool:
        options["ip_pool"] = email.ip_pool
    recipients = [{"address": {"email": address}, "metadata": {"ref": email.ref}} for address in email.recipients]
    return {"options": options, "recipients": recipients, "content": {"email_rfc822": mime.decode()}}


def _outcome(answer: Answer, email: OutboundEmail) -> Outcome:
    value = answer.json() or {}
    results = value.get("results") if isinstance(value, dict) else None
    if answer.status != 200 or not isinstance(results, dict) or not results.get("id"):
        return _refused(answer)
    faulty = value.get("errors") or results.get("rcpt_to_errors")
    code, detail = _error(answer) if faulty else ("200", "")
    if not results.get("total_accepted_recipients", 1):
        return Outcome(result=Result.PERMANENT, code=code, detail=detail)
    return Outcome(
        result=Result.ACCEPTED,
        code=code,
        detail=detail,
        provider_message_id=str(results["id"]),
        recipients=_rejected(results, email.recipients),
    )


def _rejected(results: Mapping[str, Any], recipients: Sequence[str]) -> dict[str, Outcome]:
    """Recipients that a partial acceptance names. It may only count them; then the detail of the whole tells."""
    rejected: dict[str, Outcome] = {}
    for error in objects_in(results.get("rcpt_to_errors")):
        text = f"{error.get('message', '')}: {error.get('description', '')}"
        outcome = Outcome(result=Result.PERMANENT, code=str(error.get("code")), detail=text[:500])
        words = {word.strip("'\"<>()[].,:;").casefold() for word in text.split()}
        rejected |= {address: outcome for address in recipients if address.casefold() in words}
    return rejected


def _refused(answer: Answer) -> Outcome:
    code, detail = _error(answer)
    result = CODES.get(code) or meaning(answer.status, STATUSES, own=answer.json() is not None)
    shown = f"{answer.status}/{code}" if code else str(answer.status)
    return Outcome(result=result, code=shown, detail=detail, retry_after=answer.retry_after)


def _error(answer: Answer) -> tuple[str, str]:
    """Code and words of the first error."""
    value = answer.json()
    known = value if isinstance(value, dict) else {}
    errors = objects_in(known.get("errors")) or objects_in(fields_of(known.get("results")).get("rcpt_to_errors"))
    if not errors:
        return "", answer.body.decode(errors="replace")[:500]
    words = (errors[0].get(name) for name in ("message", "description"))
    return str(errors[0].get("code") or ""), ": ".join(str(word) for word in words if word)[:500]


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
