"""OAuth 2 for mailboxes: access tokens from refresh tokens (RFC 6749 6), and the connect flow with PKCE (RFC 7636).

Getting a token sends no mail, so it is repeated once when the answer is lost.
"""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from providers.base import Account, Result
from providers.http import Answer, Api, NoAnswer, NotSent, Timeout, retry_after
from providers.tokens import (
    MARGIN_SECONDS,
    ClientRefused,
    Grant,
    SharedToken,
    TokenError,
    TokenRevoked,
    TokenUnavailable,
    lifetime,
)

TIMEOUT = Timeout(connect=5.0, read=10.0, total=12.0)
"""Of the token endpoint. Asked twice it still ends before whoever waits for the same renewal gives up."""

_ERRORS: dict[str, type[TokenError]] = {
    "invalid_grant": TokenRevoked,
    "access_denied": TokenRevoked,
    "interaction_required": TokenRevoked,
    "consent_required": TokenRevoked,
    "login_required": TokenRevoked,
    "temporarily_unavailable": TokenUnavailable,
    "server_error": TokenUnavailable,
    "internal_failure": TokenUnavailable,
    "slow_down": TokenUnavailable,
    "rate_limit_exceeded": TokenUnavailable,
}
"""``error`` of a token answer -> what it means. Every other one is about the client or the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where an identity provider's endpoints are. Paths may hold ``{tenant}``."""

    authorize_root: str
    authorize_path: str
    grant_root: str
    grant_path: str
    revoke_path: str | None
    """None where tokens cannot be given back by a call."""
    authorize_extra: Mapping[str, str]
    rotates: bool
    """Each renewal brings a new refresh token, which is to be used from then on."""


SERVICES: dict[str, Service] = {
    "google": Service(
        authorize_root="https://accounts.google.com",
        authorize_path="/o/oauth2/v2/auth",
        grant_root="https://oauth2.googleapis.com",
        grant_path="/token",
        revoke_path="/revoke",
        # Without prompt=consent a second consent brings no refresh token.
        authorize_extra={"access_type": "offline", "prompt": "consent", "include_granted_scopes": "true"},
        rotates=False,
    ),
    "microsoft": Service(
        authorize_root="https://login.microsoftonline.com",
        authorize_path="/{tenant}/oauth2/v2.0/authorize",
        grant_root="https://login.microsoftonline.com",
        grant_path="/{tenant}/oauth2/v2.0/token",
        revoke_path=None,
        authorize_extra={"prompt": "select_account"},
        rotates=True,
    ),
}


@dataclass(frozen=True, slots=True)
class _Cached:
    grant: Grant
    until: float


_cache: dict[str, _Cached] = {}


def _keep(key: str, grant: Grant) -> None:
    now = time.monotonic()
    for old in [old for old, cached in list(_cache.items()) if cached.until <= now]:
        _cache.pop(old, None)
    _cache[key] = _Cached(grant, now + grant.expires_in - MARGIN_SECONDS)


class AccessTokens:
    """Access tokens of one account, shared by all adapters of this process that hold the same credentials.

    Where refresh tokens rotate, all processes share them.
    """

    def __init__(
        self, account: Account, service: str, *, scope: str | None = None, timeout: Timeout | None = None
    ) -> None:
        """scope: what to ask for where the refresh token is good for more than one resource."""
        self._account = account
        self._service = SERVICES[service]
        self._scope = scope
        self._api = _token_api(account, self._service, timeout)
        self._shared = SharedToken(account, self._renew) if self._service.rotates else None
        self._key = _fingerprint(account)
        self._lock = threading.Lock()

    def get(self, *, stale: str | None = None) -> Grant:
        """A token good for at least some minutes. Raises TokenError.

        stale: a token that was just refused; it is not given again. One thread renews, the others wait for it.
        """
        if self._shared is not None:
            return self._shared.get(stale=stale)
        with self._lock:
            found = _cache.get(self._key)
            if found and found.until > time.monotonic() and found.grant.access_token != stale:
                return found.grant
            grant = self._renew(self._account.credentials)
            _keep(self._key, grant)
            return grant

    def _renew(self, credentials: Mapping[str, Any]) -> Grant:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": str(credentials.get("refresh_token") or ""),
            **_client(credentials),
            **({"scope": self._scope} if self._scope else {}),
        }
        path = _path(self._service.grant_path, credentials)
        try:
            return _grant(_post(self._api, path, form))
        except TokenUnavailable:
            return _grant(_post(self._api, path, form))

    def close(self) -> None:
        self._api.close()


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
    path = _path(found.authorize_path, {"tenant": tenant})
    return f"{(root or found.authorize_root).rstrip('/')}{path}?{urlencode(query)}"


def exchange_code(account: Account, service: str, *, code: str, verifier: str, redirect_uri: str) -> Grant:
    """The callback's code for tokens, once: a code is good for one use. Raises TokenError.

    account: its credentials hold client_id and client_secret (for Microsoft also tenant).
    """
    found = SERVICES[service]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
        **_client(account.credentials),
    }
    api = _token_api(account, found, None)
    try:
        return _grant(_post(api, _path(found.grant_path, account.credentials), form))
    finally:
        api.close()


def revoke(account: Account, service: str) -> bool:
    """Gives the refresh token back: True. False where the service has no such call. Raises TokenError."""
    found = SERVICES[service]
    if found.revoke_path is None:
        return False
    api = _token_api(account, found, None)
    try:
        answer = _post(api, found.revoke_path, {"token": str(account.credentials.get("refresh_token") or "")})
    finally:
        api.close()
    # 400 invalid_token: it was dead before.
    if answer.status not in (200, 400):
        raise _refusal(answer)
    _cache.pop(_fingerprint(account), None)
    return True


def _token_api(account: Account, service: Service, timeout: Timeout | None) -> Api:
    return Api(account, account.auth_url or service.grant_root, timeout=timeout or TIMEOUT)


def _fingerprint(account: Account) -> str:
    """Names the account and its credentials without holding them."""
    parts = [account.mailer_id, account.auth_url, *(account.credentials.get(name) for name in _IDENTITY)]
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


_IDENTITY = ("tenant", "client_id", "client_secret", "refresh_token")


def _client(credentials: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(credentials[name]) for name in ("client_id", "client_secret") if credentials.get(name)}


def _path(path: str, credentials: Mapping[str, Any]) -> str:
    return path.format(tenant=quote(str(credentials.get("tenant") or "common"), safe=""))


def _post(api: Api, path: str, form: Mapping[str, str]) -> Answer:
    try:
        return api.call("POST", path, data=form, headers={"Accept": "application/json"})
    except NotSent as error:
        kind = ClientRefused if error.outcome.result is Result.CREDENTIALS else TokenUnavailable
        raise kind(f"token endpoint: {error}") from error
    except NoAnswer as error:
        raise TokenUnavailable(f"token endpoint: {error}") from error


def _grant(answer: Answer) -> Grant:
    body = answer.json()
    if answer.status != 200 or not isinstance(body, dict):
        raise _refusal(answer)
    token = body.get("access_token")
    if not isinstance(token, str) or not token:
        raise TokenUnavailable("token endpoint: an answer without access_token")
    return Grant(
        access_token=token,
        refresh_token=body.get("refresh_token"),
        expires_in=lifetime(body.get("expires_in")),
        scopes=frozenset(str(body.get("scope") or "").split()),
    )


def _refusal(answer: Answer) -> TokenError:
    body = answer.json()
    known = body if isinstance(body, dict) else {}
    error = known.get("error")
    code = error if isinstance(error, str) else ""
    if answer.status == 429 or answer.status >= 500 or answer.status == 200:
        return TokenUnavailable(f"token endpoint: HTTP {answer.status}", code, retry_after(answer.headers))
    words = known.get("error_description") or f"HTTP {answer.status}"
    return _ERRORS.get(code, ClientRefused)(f"{code or 'token endpoint'}: {words}", code)
