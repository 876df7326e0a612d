"""Access tokens for Microsoft Graph, by msal from the account's refresh token.

Microsoft gives a new refresh token with most answers, so all processes of a mailer share one renewal.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from providers.base import Account, Result
from providers.http import Answer, Api, NoAnswer, NotSent
from providers.oauth_endpoint import TIMEOUT
from providers.tokens import Grant, SharedToken, TokenError, lifetime

AUTHORITY = "https://login.microsoftonline.com"
SCOPES = ("Mail.ReadWrite", "Mail.Send")
GRAPH_ELSEWHERE = ("graph.microsoft.us", "dod-graph.microsoft.us", "microsoftgraph.chinacloudapi.cn")
"""Graph hosts of national clouds. Scopes there must name the host; elsewhere the bare name means the public Graph."""

ERRORS: dict[str, Result] = {
    "temporarily_unavailable": Result.TRANSIENT,
    "server_error": Result.TRANSIENT,
    "request_timeout": Result.TRANSIENT,
}
"""OAuth ``error`` -> result. Every other speaks of the grant, the client or the request, and needs a person."""

AADSTS: dict[int, Result] = {
    50196: Result.TRANSIENT,  # a loop of requests was stopped
    90033: Result.TRANSIENT,  # "a transient error has occurred"
}
"""``error_codes`` that say more than ``error``. See AADSTS error codes in the Entra documentation."""


_STRANGE = (RuntimeError, LookupError, TypeError, AttributeError)
"""How msal meets an answer of another shape; RuntimeError is the root of what it says of id tokens."""


class NoToken(TokenError):
    """There is no access token now; ``result`` says what that means for a mail. Nothing of it was sent."""

    def __init__(self, result: Result, detail: str, code: str = "", retry_after: float | None = None) -> None:
        self.result = result
        super().__init__(detail, code, retry_after)


class Tokens:
    """The access token of one account, for any number of threads and processes."""

    def __init__(self, account: Account) -> None:
        self._api = Api(account, account.auth_url or AUTHORITY, timeout=TIMEOUT)
        self._scopes = scopes_for(account.base_url)
        self._transport = _Transport(self._api)
        self._app: Any = None
        self._client: tuple[str, ...] = ()
        self._shared = SharedToken(account, self._renew)

    def get(self, *, instead_of: str = "") -> str:
        """A token, from memory where one is good and not ``instead_of``, which Graph refused. Raises TokenError."""
        return self._shared.get(stale=instead_of).access_token

    def close(self) -> None:
        self._api.close()

    def _renew(self, credentials: Mapping[str, Any]) -> Grant:
        from msal.exceptions import MsalError

        try:
            answer: dict[str, Any] = self._application(credentials).acquire_token_by_refresh_token(
                str(credentials["refresh_token"]), scopes=list(self._scopes)
            )
        except NotSent as error:
            raise NoToken(error.outcome.result, str(error)) from error
        except (NoAnswer, MsalError) as error:  # MsalError: the endpoint answered 5xx, now or a moment ago
            raise NoToken(Result.TRANSIENT, f"the token endpoint gave no answer: {error}") from error
        except ValueError as error:
            raise NoToken(Result.CREDENTIALS, "tenant, client_id or client_secret has no valid form") from error
        except _STRANGE as error:
            raise NoToken(Result.TRANSIENT, f"msal cannot read the answer: {type(error).__name__}") from error
        if "access_token" not in answer:
            raise _refusal(answer, self._transport.last)
        return Grant(
            access_token=str(answer["access_token"]),
            refresh_token=answer.get("refresh_token"),
            expires_in=lifetime(answer.get("expires_in")),
            scopes=frozenset(str(answer.get("scope") or "").split()),
        )

    def _application(self, credentials: Mapping[str, Any]) -> Any:
        """msal's client. Its constructor may fail, so it is made when first needed and kept only if it was."""
        import msal

        client = tuple(str(credentials[name]) for name in ("tenant", "client_id", "client_secret"))
        if self._client != client:
            tenant, client_id, client_secret = client
            self._app = msal.ConfidentialClientApplication(
                client_id,
                client_credential=client_secret,
                authority=f"{AUTHORITY}/{tenant}",
                instance_discovery=False,
                http_client=self._transport,
            )
            self._client = client
        return self._app


def scopes_for(base_url: str | None) -> tuple[str, ...]:
    """What to ask for, as the Graph at ``base_url`` names it."""
    host = urlsplit(base_url or "").hostname
    return tuple(f"https://{host}/{scope}" for scope in SCOPES) if host in GRAPH_ELSEWHERE else SCOPES


def _refusal(answer: dict[str, Any], last: Answer | None) -> NoToken:
    error = str(answer.get("error") or "no access_token in the answer")
    codes = [code for code in answer.get("error_codes") or () if isinstance(code, int)]
    named = [AADSTS[code] for code in codes if code in AADSTS]
    result = named[0] if named else ERRORS.get(error, Result.CREDENTIALS)
    if last is not None and last.status == 429:
        result = Result.THROTTLED
    detail = f"{error}: {answer.get('error_description', '')}"
    return NoToken(result, detail, "/".join([error, *map(str, codes)]), last.retry_after if last else None)


@dataclass(frozen=True, slots=True)
class _Response:
    """What msal wants of an answer."""

    status_code: int
    text: str
    headers: dict[str, str]


class _Transport:
    """msal's HTTP client over ours: its ``https://login...`` becomes the account's own root."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.last: Answer | None = None
        """The last answer that really came; msal repeats refusals from memory for up to a minute."""

    def get(self, url: str, **_: Any) -> _Response:
        """The endpoints of a tenant. They are the same everywhere, so nobody is asked."""
        authority = url.partition("/v2.0/")[0]
        endpoints = {"issuer": f"{authority}/v2.0"} | {
            f"{name}_endpoint": f"{authority}/oauth2/v2.0/{path}"
            for name, path in (("authorization", "authorize"), ("token", "token"))
        }
        return _Response(200, json.dumps(endpoints), {})

    def post(self, url: str, *, headers: Any = None, data: Any = None, params: Any = None, **_: Any) -> _Response:
        answer = self._api.call("POST", urlsplit(url).path, headers=headers, data=data, params=params)
        self.last = answer
        value = answer.json()
        if answer.status < 500 and not isinstance(value, dict):
            raise NoAnswer(f"HTTP {answer.status} without a JSON object")
        # Who the user is does not matter here, and msal would log it.
        kept = {name: item for name, item in (value or {}).items() if name not in ("id_token", "client_info")}
        return _Response(answer.status, json.dumps(kept), dict(answer.headers))

    def close(self) -> None:
        self._api.close()
