"""Google's OAuth 2 endpoints, for an emulator that needs them: one user, who consents to everything at once."""

import secrets
import time

from providers.emulators.authorization_codes import AuthorizationCodes
from providers.emulators.http import Call, Reply

ALL_SCOPES = "https://mail.google.com/ https://www.googleapis.com/auth/gmail.settings.basic"


class GoogleOAuth:
    """Grants, renews and revokes. Answers None to a call that is for somebody else."""

    def __init__(self) -> None:
        self.client_id = "client"
        self.client_secret = "client-secret"  # noqa: S105
        self.refresh_token = "refresh-token"  # noqa: S105
        self.scopes = ALL_SCOPES
        """What the user has granted, separated by spaces."""
        self.lifetime = 3600.0
        """Seconds an access token lives."""
        self.revoked = False
        self.granted = 0
        """How many access tokens were given out."""
        self._tokens: dict[str, float] = {}
        self.codes = AuthorizationCodes()

    def scopes_of(self, token: str) -> frozenset[str] | None:
        """The scopes of an access token; None if it is not, or no longer, good."""
        good = not self.revoked and self._tokens.get(token, 0.0) > time.monotonic()
        return frozenset(self.scopes.split()) if good else None

    def expire(self) -> None:
        """Makes all access tokens stale. The refresh token stays good."""
        self._tokens.clear()

    def revoke(self) -> None:
        """The user takes the grant back and gives another: neither kind of token given out so far is good."""
        self.expire()
        self.refresh_token = secrets.token_urlsafe(16)

    def answer(self, call: Call) -> Reply | None:
        match call.method, call.path:
            case "POST", "/token":
                return self._token(call)
            case "POST", "/revoke":
                return self._revoke(call)
            case "GET", "/o/oauth2/v2/auth":
                return self.codes.consent(call, scope=self.scopes)
        return None

    def _token(self, call: Call) -> Reply:
        form = {name: values[0] for name, values in call.form.items()}
        if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
            return _refusal("invalid_client", "The OAuth client was not found.", 401)
        match form.get("grant_type"):
            case "refresh_token":
                good = not self.revoked and form.get("refresh_token") == self.refresh_token
            case "authorization_code":
                good = self._redeem(form)
            case _:
                return _refusal("unsupported_grant_type", "Invalid grant_type.")
        if not good:
            return _refusal("invalid_grant", "Token has been expired or revoked.")
        first = {"refresh_token": self.refresh_token} if form["grant_type"] == "authorization_code" else {}
        return Reply(200, {**self._grant(), **first})

    def _grant(self) -> dict[str, object]:
        token = secrets.token_urlsafe(16)
        self.granted += 1
        self._tokens[token] = time.monotonic() + self.lifetime
        return {"access_token": token, "expires_in": int(self.lifetime), "scope": self.scopes, "token_type": "Bearer"}

    def _redeem(self, form: dict[str, str]) -> bool:
        good = self.codes.redeem(form)
        self.revoked = self.revoked and not good
        return good

    def _revoke(self, call: Call) -> Reply:
        token = call.form.get("token", [""])[0]
        if self.revoked or token != self.refresh_token:
            return _refusal("invalid_token", "Token expired or revoked")
        self.revoked = True
        return Reply(200, {})


def _refusal(error: str, description: str, status: int = 400) -> Reply:
    return Reply(status, {"error": error, "error_description": description})
