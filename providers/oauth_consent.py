"""The connect flow: a user's browser is sent to the provider and comes back with a code, with PKCE (RFC 7636)."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlencode

from providers.base import Account
from providers.oauth import forget
from providers.oauth_endpoint import SERVICES, TokenEndpoint, path_for
from providers.tokens import Grant


def code_verifier() -> str:
    """A fresh PKCE secret; kept on our side until the callback."""
    return secrets.token_urlsafe(48)


def code_challenge(verifier: str) -> str:
    """What of the secret goes into the authorization URL (S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def authorization_url(
    service: str,
    *,
    client_id: str,
    redirect_uri: str,
    state: str,
    code_challenge: str,
    scopes: Sequence[str],
    tenant: str = "common",
    login_hint: str | None = None,
    root: str | None = None,
) -> str:
    """Where to send the user's browser. ``root`` is the mailer's ``auth_url``, if it has one."""
    found = SERVICES[service]
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": state,
        "code_challenge": code_challenge,
        "code_challenge_method": "S256",
        **found.authorize_extra,
    }
    if login_hint:
        query["login_hint"] = login_hint
    path = path_for(found.authorize_path, {"tenant": tenant})
    return f"{(root or found.authorize_root).rstrip('/')}{path}?{urlencode(query)}"


def exchange_code(account: Account, service: str, *, code: str, verifier: str, redirect_uri: str) -> Grant:
    """The callback's code for tokens, once: a code is good for one use. Raises TokenError.

    account: its credentials hold client_id and client_secret (for Microsoft also tenant).
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
    }
    with closing(TokenEndpoint(account, service)) as endpoint:
        return endpoint.grant(account.credentials, form)


def revoke(account: Account, service: str) -> bool:
    """Gives the refresh token back: True. False where the service has no such call. Raises TokenError."""
    with closing(TokenEndpoint(account, service)) as endpoint:
        revoked = endpoint.revoke(str(account.credentials.get("refresh_token") or ""))
    if revoked:
        forget(account)
    return revoked
