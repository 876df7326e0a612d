"""The addresses a Gmail mailbox may send as."""

from dataclasses import dataclass

from providers.gmail_service import GmailService
from providers.http import objects_in


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


def aliases(service: GmailService) -> list[Alias]:
    """Raises CallFailed, for one where the scopes do not allow to ask."""
    found = service.call(service.users.settings().sendAs().list(userId="me"))
    return [
        Alias(
            email=item["sendAsEmail"],
            name=item.get("displayName") or None,
            reply_to=item.get("replyToAddress") or None,
            is_primary=bool(item.get("isPrimary")),
            is_default=bool(item.get("isDefault")),
            usable=bool(item.get("isPrimary")) or item.get("verificationStatus") == "accepted",
        )
        for item in objects_in(found.get("sendAs"))
    ]
