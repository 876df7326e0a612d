"""Calls as values: what is asked, and how the answer is read. Nothing here touches the network."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypedDict, TypeVar
from urllib.parse import quote

Json = dict[str, Any]
T = TypeVar("T")

BASE: Final = "/v1/"
REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT"})
"""Methods that do the same when they are done twice. A second DELETE would answer that nothing is there."""


class Mailbox(TypedDict, total=False):
    email: str
    name: str | None


class Mail(TypedDict, total=False):
    """The fields of all three shapes; which of them stand together is told by the documentation of the API.

    ``from_`` is the field ``from``, which Python does not take as a keyword.
    """

    to_email: str
    to_name: str | None
    html_body: str
    from_email: str | None
    email_config_id: str | None
    body_html: str
    body_text: str
    reply_to: str | Sequence[str]
    text_body: str
    from_: Mailbox
    to: str | Sequence[str] | Sequence[Mailbox]
    cc: str | Sequence[str] | Sequence[Mailbox]
    bcc: str | Sequence[str] | Sequence[Mailbox]
    process_email_inbulk: bool
    replyTo: str
    subject: str
    content: Sequence[Mapping[str, str]]
    template_id: str | None
    substitutions: Mapping[str, Mapping[str, str | int | float]]
    headers: Mapping[str, str]
    attachments: Sequence[Mapping[str, Any]]
    mailer_id: str | None
    settings: Mapping[str, Any]
    campaign_id: str
    custom_args: Mapping[str, Any]
    contact_id: str | None
    deal_id: str | None
    opportunity_id: str | None
    customer_id: str | None
    company_id: str | None
    thread_id: str | None
    mode: str
    sender_user_id: str | None
    priority: int | str
    send_at: str | datetime
    expires_at: str | datetime
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer. Names of headers are in lower case; body is JSON, or text where it is none."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One call. ``path`` stands below /v1 or begins with it."""

    method: str
    path: str
    read: Callable[[Reply], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def target(self) -> str:
        """Path on the server."""
        if "://" in self.path or self.path.startswith("//"):
            raise ValueError(f"{self.path!r} is an address; give a path such as contacts")
        path = self.path.lstrip("/")
        return f"/{path}" if f"/{path}".startswith(BASE) else BASE + path

    @property
    def repeatable(self) -> bool:
        """Whether it may be made again although the first may have been taken."""
        return self.method in REPEATABLE or "Idempotency-Key" in self.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A mail that was taken.

    status: ``queued`` where the outcome is not known yet. id, message_id: absent in the mailer shape, which may stand
    for many mails; see ``messages(ref_id=...)``. replayed: an earlier call with the same Idempotency-Key did it.
    """

    ref_id: str
    status: str
    id: str | None
    message_id: str | None
    provider_message_id: str | None
    thread_id: str | None
    provider: str | None
    replayed: bool
    json: Json = field(repr=False)
    """The answer as it came; that to a dry run has no ``ref_id``."""


def send(
    body: Mapping[str, Any] | None,
    fields: Mapping[str, Any],
    *,
    path: str = "email/send",
    wait: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Sent]:
    """``POST /v1/email/send``, with a body as it is or with fields by name.

    wait: seconds to hold the answer until the outcome is known, 0 never; by default what the shape does.
    """
    if body is not None and fields:
        raise TypeError("give a body or fields, not both")
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    if wait is not None:
        headers["Prefer"] = f"wait={wait:.0f}" if wait > 0 else "respond-async"
    content = body if body is not None else {name.rstrip("_"): _plain(value) for name, value in fields.items()}
    return Call(method="POST", path=path, body=content, headers=headers, read=_sent)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _sent(reply: Reply) -> Sent:
    body: Json = reply.body
    return Sent(
        ref_id=body.get("ref_id", ""),
        status=body.get("status", "rehearsed" if body.get("dry_run") else "queued"),
        id=body.get("id"),
        message_id=body.get("message_id"),
        provider_message_id=body.get("provider_message_id"),
        thread_id=body.get("thread_id"),
        provider=body.get("provider"),
        replayed=reply.headers.get("idempotency-replayed") == "true",
        json=body,
    )


def plain(
    method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None, key: str | None = None
) -> Call[Any]:
    """Any route; the answer as JSON, None where there is none."""
    given = {name: _query(value) for name, value in (params or {}).items() if value is not None}
    headers = {"Idempotency-Key": key} if key else {}
    return Call(method=method, path=path, params=given, body=body, headers=headers, read=lambda reply: reply.body)


def _query(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _plain(value)


def one(collection: str, id_: str) -> Call[Any]:
    """``GET /v1/{collection}/{id}``."""
    return plain("GET", f"{collection}/{quote(id_, safe='')}")


def page(path: str, params: Mapping[str, Any], cursor: str | None) -> Call[Any]:
    """One page of a list, beginning at ``cursor``."""
    return plain("GET", path, params={**params, "cursor": cursor})
