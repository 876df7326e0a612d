"""Mailboxes of large providers over SMTP: a password, or OAuth with access tokens that are renewed by themselves."""

from dataclasses import replace
from typing import Any, ClassVar

from providers.base import Account
from providers.credentials import OAUTH, Credential, Credentials, Kind
from providers.oauth import AccessTokens
from providers.smtp import Smtp
from providers.smtp_login import Unavailable
from providers.smtp_pools import DIRECT, Route
from providers.smtp_session import Session
from providers.tokens import TokenError

BAD_CREDENTIALS = "535"
"""The reply code to an access token that is not, or no longer, good (RFC 4954 section 6)."""


class MailboxSmtp(Smtp):
    """With a password and what an OAuth connection gave, the password is used."""

    credentials: ClassVar[Credentials] = {
        "username": Credential(Kind.NAME, required=True),
        "password": Credential(Kind.SECRET, instead_of=tuple(OAUTH)),
        **{name: replace(credential, required=False) for name, credential in OAUTH.items()},
    }
    wants_signature: ClassVar[bool] = False
    service: ClassVar[str]
    """Whose tokens log in: a name of `providers.oauth_endpoint.SERVICES`."""
    scope: ClassVar[str]
    """What allows SMTP."""

    def __init__(self, account: Account, **timeouts: Any) -> None:
        super().__init__(account, **timeouts)
        by_token = not account.credentials.get("password") and account.credentials.get("refresh_token")
        self._tokens = AccessTokens(account, self.service, scope=self.scope) if by_token else None

    def _open(self, route: Route = DIRECT) -> Session:
        """A token that the server refuses is renewed once: it may have been revoked or run out on the way."""
        if self._tokens is None:
            return super()._open(route)
        token = self._token(self._tokens)
        try:
            return self._session(replace(self.login(), access_token=token), route)
        except Unavailable as refusal:
            if not (refusal.outcome.code or "").startswith(BAD_CREDENTIALS):
                raise
        return self._session(replace(self.login(), access_token=self._token(self._tokens, stale=token)), route)

    @staticmethod
    def _token(tokens: AccessTokens, stale: str | None = None) -> str:
        """Raises Unavailable."""
        try:
            return tokens.get(stale=stale).access_token
        except TokenError as error:
            raise Unavailable(error.outcome) from error

    def close(self) -> None:
        super().close()
        if self._tokens is not None:
            self._tokens.close()
