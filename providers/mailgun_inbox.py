"""Mail that Mailgun's routes bring: as MIME, as fields of a form, or as the address at which it is stored.

``forward()`` posts a form: to a URL that ends in ``mime`` the whole mail, to any other its fields.
``store(notify=...)`` posts the ``message-url`` beside them, where the mail lies for three days.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from email.policy import HTTP
from email.utils import getaddresses
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from providers.base import Account, Failed, HookRequest, Outcome, ProviderEvent, Result
from providers.http import Api
from providers.inbox import LARGEST_FETCH, Fetched, Inbox, ReadFailed

STORAGE_DOMAINS = (".mailgun.net", ".mailgun.org")
"""Where Mailgun keeps mail. Our API key goes nowhere else but to the account's own root."""
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file of a form."""

    name: str
    """Of its field: ``attachment-1``."""
    filename: str
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    fields: Mapping[str, str] = field(repr=False)
    uploads: Sequence[Upload] = ()

    def digest(self) -> str:
        """The same for every repetition of a call, whatever boundary it is written with."""
        parts = [
            *sorted(self.fields.items()),
            *((file.name, hashlib.sha256(file.data).hexdigest()) for file in self.uploads),
        ]
        return hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()


def is_form(request: HookRequest) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS


def read_form(request: HookRequest) -> Form:
    """A form in either encoding (RFC 7578, or URL-encoded). Raises ValueError."""
    kind = request.headers["content-type"]
    if not kind.lower().startswith("multipart"):
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True, errors="surrogateescape")
        return Form(fields=dict(pairs))
    fields: dict[str, str] = {}
    uploads = []
    for name, filename, content_type, data in _parts(request.body, kind):
        if filename is None:
            fields[name] = data.decode(errors="surrogateescape")
        else:
            uploads.append(Upload(name=name, filename=filename, content_type=content_type, data=data))
    return Form(fields=fields, uploads=uploads)


def _parts(body: bytes, kind: str) -> Iterator[tuple[str, str | None, str, bytes]]:
    """Name, file name, type and content of each part."""
    boundary = BytesHeaderParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode()).get_boundary()
    if not boundary:
        raise ValueError("the form names no boundary")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesHeaderParser(policy=HTTP).parsebytes(head)
        name = headers.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise ValueError("a part of the form has no name")
        yield name, headers.get_filename(), headers.get_content_type(), data


def received(form: Form) -> ProviderEvent:
    """The mail of a route's call."""
    given = form.fields
    headers = _headers(given)
    message_id = given.get("Message-Id") or next((v for n, v in headers if n.lower() == "message-id"), None)
    raw = given.get("body-mime")
    data = {"raw": raw.encode(errors="surrogateescape"), "envelope_from": given.get("sender")} if raw else None
    stored = given.get("message-url")
    return ProviderEvent(
        type="received",
        at=_moment(given),
        natural_key=f"mailgun:route:{given.get('recipient')}:{message_id or form.digest()}",
        rfc_message_id=message_id,
        recipient=given.get("recipient"),
        data=data or ({} if stored else _fields(form, headers)),
        locator=None if data else stored,
    )


def _moment(given: Mapping[str, str]) -> datetime:
    return datetime.fromtimestamp(float(given["timestamp"]), UTC)


def _headers(given: Mapping[str, str]) -> list[list[str]]:
    found = json.loads(given.get("message-headers") or "[]")
    return [[str(name), str(value)] for name, value in found]


def _fields(form: Form, headers: list[list[str]]) -> dict[str, Any]:
    """The mail by its fields, in the form of `providers.postmark_hooks`."""
    given = form.fields
    addresses = {name: ", ".join(v for n, v in headers if n.lower() == name) for name in ("to", "cc")}
    return {
        "from": _boxes(given.get("from") or given.get("sender", ""))[:1],
        "to": _boxes(addresses["to"] or given.get("recipient", "")),
        "cc": _boxes(addresses["cc"]),
        "subject": given.get("subject", ""),
        "text": given.get("body-plain"),
        "html": given.get("body-html"),
        "headers": headers,
        "attachments": _files(form),
    }


def _boxes(value: str) -> list[dict[str, Any]]:
    return [{"email": address, "name": name or None} for name, address in getaddresses([value]) if address]


def _files(form: Form) -> list[dict[str, Any]]:
    content_ids = {
        field_: cid.strip("<>") for cid, field_ in json.loads(form.fields.get("content-id-map") or "{}").items()
    }
    return [
        {
            "filename": file.filename,
            "content_type": file.content_type,
            "content_base64": base64.b64encode(file.data).decode(),
            "content_id": content_ids.get(file.name),
        }
        for file in form.uploads
    ]


class MailgunInbox(Inbox):
    """Mailgun tells of every mail by its routes. What it stored is fetched from the URL that it named."""

    watched = False

    def __init__(self, account: Account, root: str, headers: Mapping[str, str]) -> None:
        self._account = account
        self._root = root
        self._headers = headers

    def fetch(self, locator: str) -> Fetched | None:
        url = urlsplit(locator)
        api = Api(self._account, self._storage(locator))
        try:
            answer = api.call(
                "GET", url.path, headers={**self._headers, "Accept": "message/rfc2822"}, max_bytes=LARGEST_FETCH
            )
        except Failed as error:
            raise ReadFailed(Outcome(result=Result.TRANSIENT, detail=str(error))) from error
        finally:
            api.close()
        if answer.status == 404:
            return None
        mail = answer.json()
        if answer.status != 200 or not isinstance(mail, dict) or not mail.get("body-mime"):
            result = Result.CREDENTIALS if answer.status in (401, 403) else Result.TRANSIENT
            raise ReadFailed(Outcome(result=result, detail=f"HTTP {answer.status} instead of a stored mail"))
        return Fetched(raw=str(mail["body-mime"]).encode(errors="surrogateescape"))

    def _storage(self, locator: str) -> str:
        """The root of a stored mail's URL, if it may see our key. Raises ReadFailed."""
        url, own = urlsplit(locator), urlsplit(self._root)
        at_mailgun = url.scheme == "https" and f".{url.hostname}".endswith(STORAGE_DOMAINS) and url.port in (None, 443)
        if not at_mailgun and (url.scheme, url.netloc) != (own.scheme, own.netloc):
            raise ReadFailed(Outcome(result=Result.PERMANENT, detail="the stored mail is at no address of Mailgun's"))
        return f"{url.scheme}://{url.netloc}"
