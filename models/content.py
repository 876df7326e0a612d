"""What is to be sent, as plain values: the part of a submission that is stored once and compiled by the worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox. ``email`` is checked and normalised (domain in lower case); ``name`` is one line or None."""

    email: str
    name: str | None = None

    @property
    def domain(self) -> str:
        return self.email.rpartition("@")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentRef:
    """An attachment whose bytes lie in `models.blob.Blob` under their hash."""

    sha256: str
    size: int
    filename: str
    content_type: str
    inline: bool = False
    content_id: str | None = None
    """Without angle brackets."""
    content_location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendSettings:
    """The switches of ``settings``."""

    open_tracking: bool = False
    click_tracking: bool = False
    validate: bool = False
    phishing_protection: bool = False
    unsubscribe: bool = False
    list_id: str = ""
    """The list that the mail belongs to: who unsubscribed from it gets none, and unsubscribing means this list."""
    ip_pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything that the messages of one submission share."""

    sender: Address
    to: tuple[Address, ...] = ()
    """The To header of a shared message. Empty for individual messages: each names its own recipient."""
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    subject: str
    html: str | None = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Custom headers, checked. Message-ID and Thread-Id never stand here."""
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    """Message-IDs with brackets, oldest first."""
    provider_thread_id: str | None = None
    """The conversation id of a provider that keeps one (Gmail)."""
    attachments: tuple[AttachmentRef, ...] = ()
    individual: bool
    """One message per recipient, with its own variables."""
    personalised: bool
    """``{{name}}`` is substituted. False: braces are plain text."""
    settings: SendSettings = SendSettings()

    def filled(self) -> dict[str, Any]:
        """What `from_json` reads, once it is JSON. Empty fields are left out: a row is kept for every submission."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) or value is False}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        values["sender"] = Address(**values["sender"])
        for name in ("to", "cc", "bcc", "reply_to"):
            values[name] = tuple(Address(**item) for item in values.get(name, ()))
        values["references"] = tuple(values.get("references", ()))
        values["attachments"] = tuple(AttachmentRef(**item) for item in values.get("attachments", ()))
        values["settings"] = SendSettings(**values.get("settings", {}))
        values.setdefault("subject", "")
        return cls(**values)


def message_id_for(message: UUID, domain: str, custom: str | None = None) -> str:
    """The RFC 5322 Message-ID of a message, frozen at intake.

    ``<postroad{uuid}@domain>``; a caller's own id is wrapped as ``<postroad_{custom}@domain>``.
    """
    return f"<postroad_{custom}@{domain}>" if custom else f"<postroad{message}@{domain}>"
