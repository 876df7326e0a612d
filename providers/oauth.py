"""Access tokens of mailboxes, from their refresh tokens (RFC 6749 6).

Getting a token sends no mail, so it is repeated once when the answer is lost.
"""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.base import Account
from providers.http import Timeout
from providers.oauth_endpoint import TokenEndpoint
from providers.tokens import MARGIN_SECONDS, Grant, SharedToken, TokenUnavailable


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
        self._scope = scope
        self._endpoint = TokenEndpoint(account, service, timeout=timeout)
        self._shared = SharedToken(account, self._renew) if self._endpoint.service.rotates else None
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
            **({"scope": self._scope} if self._scope else {}),
        }
        try:
            return self._endpoint.grant(credentials, form)
        except TokenUnavailable:
            return self._endpoint.grant(credentials, form)

    def close(self) -> None:
        self._endpoint.close()


def forget(account: Account) -> None:
    """The account's token is not given again."""
    _cache.pop(_fingerprint(account), None)


def _fingerprint(account: Account) -> str:
    """Names the account and its credentials without holding them."""
    parts = [account.mailer_id, account.auth_url, *(account.credentials.get(name) for name in _IDENTITY)]
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


_IDENTITY = ("tenant", "client_id", "client_secret", "refresh_token")
