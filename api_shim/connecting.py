"""Connecting a mailbox by OAuth: what is asked of whom, and what is remembered between the start and the callback.

The state that travels through the browser is sealed: it holds the PKCE verifier, says for which mailer of which
workspace the consent was asked, and is good for ten minutes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from providers.microsoft365_token import scopes_for
from providers.oauth_consent import authorization_url, code_challenge, code_verifier
from worker.vault import SecretUnreadable, Vault

STATE_SECONDS = 600
_PURPOSE = "oauth state"

GOOGLE_MAIL = "https://mail.google.com/"
_GMAIL = "https://www.googleapis.com/auth/gmail."


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a provider's mailbox needs."""

    service: str
    """A name of `providers.oauth_endpoint.SERVICES`."""
    scopes: Callable[[str | None], tuple[str, ...]]
    """``base_url`` of the mailer -> what is asked for."""
    enough: frozenset[str]
    """Without one of these nothing can be sent. A user may grant less than was asked for."""

    def suffices(self, granted: frozenset[str]) -> bool:
        """Whether mail can be sent with these scopes; also where the answer did not name any."""
        return not granted or not self.enough.isdisjoint(short_scopes(granted))


def short_scopes(granted: frozenset[str]) -> frozenset[str]:
    """The scopes without the address before their name, in lower case."""
    return frozenset(scope.rstrip("/").rpartition("/")[2].lower() for scope in granted)


CONSENTS: dict[str, Consent] = {
    "gmail": Consent(
        service="google",
        scopes=lambda _: (f"{_GMAIL}modify",),  # drafts, sending, looking mails up, the list of aliases
        enough=frozenset({"mail.google.com", "gmail.modify", "gmail.compose", "gmail.send"}),
    ),
    "gmail_smtp": Consent(
        service="google", scopes=lambda _: (GOOGLE_MAIL,), enough=frozenset({"mail.google.com"})
    ),
    "microsoft365": Consent(
        service="microsoft",
        scopes=lambda base_url: ("offline_access", *scopes_for(base_url)),
        enough=frozenset({"mail.send"}),
    ),
    "outlook_smtp": Consent(
        service="microsoft",
        scopes=lambda _: ("offline_access", "https://outlook.office.com/SMTP.Send"),
        enough=frozenset({"smtp.send"}),
    ),
}  # fmt: skip
"""Providers whose mailboxes are connected by OAuth; only they have an ``auth_url``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A consent that was asked for."""

    workspace_id: UUID
    mailer_id: UUID
    key_id: UUID | None
    """Whose key asked for it."""
    client_id: str
    redirect_uri: str
    verifier: str = field(default_factory=code_verifier, repr=False)
    """PKCE's secret; only its digest is seen outside."""


class StateUnusable(Exception):
    """The state is not ours, or its time is over."""


def start(
    vault: Vault,
    started: Started,
    *,
    provider: str,
    credentials: Mapping[str, Any],
    base_url: str | None,
    auth_url: str | None,
) -> str:
    """Where to send the user's browser."""
    consent = CONSENTS[provider]
    return authorization_url(
        consent.service,
        client_id=started.client_id,
        redirect_uri=started.redirect_uri,
        state=_seal(vault, started),
        code_challenge=code_challenge(started.verifier),
        scopes=consent.scopes(base_url),
        tenant=str(credentials.get("tenant") or "common"),
        login_hint=credentials.get("username"),
        root=auth_url,
    )


def _seal(vault: Vault, started: Started) -> str:
    value = {
        "workspace_id": str(started.workspace_id),
        "mailer_id": str(started.mailer_id),
        "key_id": str(started.key_id) if started.key_id else None,
        "client_id": started.client_id,
        "redirect_uri": started.redirect_uri,
        "verifier": started.verifier,
        "until": time.time() + STATE_SECONDS,
    }
    return vault.seal(_PURPOSE, value).decode()


def read_state(vault: Vault, state: str) -> Started:
    """What `start` sealed. Raises StateUnusable."""
    try:
        value = vault.open(_PURPOSE, state.encode())
    except (SecretUnreadable, UnicodeEncodeError) as error:
        raise StateUnusable("this address is not one that we gave out") from error
    if value["until"] < time.time():
        raise StateUnusable("this took longer than ten minutes")
    return Started(
        workspace_id=UUID(value["workspace_id"]),
        mailer_id=UUID(value["mailer_id"]),
        key_id=UUID(value["key_id"]) if value["key_id"] else None,
        client_id=value["client_id"],
        redirect_uri=value["redirect_uri"],
        verifier=value["verifier"],
    )
