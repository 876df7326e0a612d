"""OAuth access tokens: what one is, why there is none, and how the processes of a mailer share one.

TokenError          result
  TokenRevoked      CREDENTIALS   the user must connect the mailbox again
  ClientRefused     CREDENTIALS   our client id, secret, scopes or URL are wrong; an operator must act
  TokenUnavailable  TRANSIENT     the token endpoint does not answer now
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.base import Account, Failed, NotKept, Outcome, Result

MARGIN_SECONDS = 120.0
"""A token is renewed this long before it expires, so that it outlives the calls it is used for."""
TOKEN = "token"  # noqa: S105 -- a name
"""Where a shared access token stands in the credentials: ``{"access_token", "expires_at", "scopes"}``."""


class TokenError(Failed):
    """No access token."""

    result: Result = Result.TRANSIENT

    def __init__(self, detail: str, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(Outcome(result=self.result, detail=detail[:500], code=code or None, retry_after=retry_after))


class TokenRevoked(TokenError):
    result = Result.CREDENTIALS


class ClientRefused(TokenError):
    result = Result.CREDENTIALS


class TokenUnavailable(TokenError):
    result = Result.TRANSIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the token endpoint gave."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    """None where the one at hand stays valid. Microsoft gives a new one each time."""
    expires_in: float
    """Seconds."""
    scopes: frozenset[str]
    """What was really granted, which may be less than was asked for. Empty where the answer does not say."""


def lifetime(expires_in: Any) -> float:
    """Seconds a token lives, of an answer's ``expires_in``; 0, good for one use, where that is no number."""
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError):
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


class SharedToken:
    """The access token of an account whose refresh token is replaced at each renewal, for any number of threads.

    The token is kept with the credentials, so that of all processes that need a new one at the same time one asks for
    it and the others find it there.
    """

    def __init__(self, account: Account, renew: Callable[[Mapping[str, Any]], Grant]) -> None:
        """renew: asks the token endpoint with these credentials; raises TokenError."""
        self._renew = renew
        self._keeper = account.keeper or _Alone(account.credentials)
        self._latest: Mapping[str, Any] = account.credentials
        self._lock = threading.Lock()

    def get(self, *, stale: str | None = None) -> Grant:
        """A token good for at least some minutes. ``stale`` was just refused and is not given again.

        Raises TokenError.
        """
        with self._lock:
            found = _kept(self._latest, stale)
            if found is None:
                self._latest = self._shared(stale)
                found = _grant(self._latest)
            return found

    def _shared(self, stale: str | None) -> Mapping[str, Any]:
        def renewed(stored: Mapping[str, Any]) -> Mapping[str, Any] | None:
            return None if _kept(stored, stale) else _with(stored, self._renew(stored))

        try:
            return self._keeper(renewed)
        except NotKept as error:
            raise TokenUnavailable(f"the token could not be renewed: {error}") from error


class _Alone:
    """Keeps credentials in memory, where no other process uses them."""

    def __init__(self, credentials: Mapping[str, Any]) -> None:
        self._credentials = credentials

    def __call__(self, renew: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        self._credentials = renew(self._credentials) or self._credentials
        return self._credentials


def _with(credentials: Mapping[str, Any], grant: Grant) -> dict[str, Any]:
    return {
        **credentials,
        "refresh_token": grant.refresh_token or credentials.get("refresh_token"),
        TOKEN: {
            "access_token": grant.access_token,
            "expires_at": time.time() + grant.expires_in,
            "scopes": sorted(grant.scopes),
        },
    }


def _kept(credentials: Mapping[str, Any], stale: str | None) -> Grant | None:
    if TOKEN not in credentials:
        return None
    grant = _grant(credentials)
    return grant if grant.access_token != stale and grant.expires_in > MARGIN_SECONDS else None


def _grant(credentials: Mapping[str, Any]) -> Grant:
    token = credentials[TOKEN]
    return Grant(
        access_token=token["access_token"],
        expires_in=token["expires_at"] - time.time(),
        scopes=frozenset(token["scopes"]),
    )
