"""Identity providers, and an account's token endpoint (RFC 6749 3.2): a form in, tokens or the reason for none out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from providers.base import Account, Result
from providers.http import Answer, Api, NoAnswer, NotSent, Timeout, fields_of
from providers.tokens import ClientRefused, Grant, TokenError, TokenRevoked, TokenUnavailable, lifetime

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


class TokenEndpoint:
    """For any number of threads. Methods raise TokenError and nothing else."""

    def __init__(self, account: Account, service: str, *, timeout: Timeout | None = None) -> None:
        self.service = SERVICES[service]
        self._api = Api(account, account.auth_url or self.service.grant_root, timeout=timeout or TIMEOUT)

    def grant(self, credentials: Mapping[str, Any], form: Mapping[str, str]) -> Grant:
        """Tokens for what the form holds, asked for once. credentials: whose client asks."""
        client = {name: str(credentials[name]) for name in ("client_id", "client_secret") if credentials.get(name)}
        return _grant(self._post(path_for(self.service.grant_path, credentials), {**form, **client}))

    def revoke(self, token: str) -> bool:
        """Gives a refresh token back: True. False where the service has no such call."""
        if self.service.revoke_path is None:
            return False
        answer = self._post(self.service.revoke_path, {"token": token})
        # 400 invalid_token: it was dead before.
        if answer.status not in (200, 400):
            raise _refusal(answer)
        return True

    def _post(self, path: str, form: Mapping[str, str]) -> Answer:
        try:
            return self._api.call("POST", path, data=form, headers={"Accept": "application/json"})
        except NotSent as error:
            kind = ClientRefused if error.outcome.result is Result.CREDENTIALS else TokenUnavailable
            raise kind(f"token endpoint: {error}") from error
        except NoAnswer as error:
            raise TokenUnavailable(f"token endpoint: {error}") from error

    def close(self) -> None:
        self._api.close()


def path_for(path: str, credentials: Mapping[str, Any]) -> str:
    """A path of `Service` for the tenant that the credentials name."""
    return path.format(tenant=quote(str(credentials.get("tenant") or "common"), safe=""))


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
    known = fields_of(answer.json())
    error = known.get("error")
    code = error if isinstance(error, str) else ""
    if answer.status == 429 or answer.status >= 500 or answer.status == 200:
        return TokenUnavailable(f"token endpoint: HTTP {answer.status}", code, answer.retry_after)
    words = known.get("error_description") or f"HTTP {answer.status}"
    return _ERRORS.get(code, ClientRefused)(f"{code or 'token endpoint'}: {words}", code)
