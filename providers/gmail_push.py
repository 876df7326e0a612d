"""Who may tell us of new mail in a Gmail mailbox: Pub/Sub's push subscription, by its OIDC token or by the hook's URL.

https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions. A notice carries nothing that is believed: it only
makes us look, so the token in the hook's URL is enough where no service account is configured.
"""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from providers.base import Account, BadSignature, HookRequest, ProviderEvent
from providers.http import Api, NoAnswer, NotSent
from providers.inbox import SOMEWHERE

CERTS_ROOT = "https://www.googleapis.com"
"""An account's ``auth_url`` takes its place."""
CERTS_PATH = "oauth2/v1/certs"
CERTS_SECONDS = 3600.0
"""How long Google's certificates are remembered; each is published long before it signs."""
CLOCK_SKEW_SECONDS = 60
_URL_SAFE = str.maketrans("+/", "-_")
"""Both alphabets of base64 (RFC 4648) were seen."""
ISSUERS = ("https://accounts.google.com", "accounts.google.com")


class PushGate:
    """Lets the notices of one account in. Asks for Google's certificates when it first needs them."""

    def __init__(self, account: Account) -> None:
        self._sender = account.credentials.get("push_service_account")
        self._audience = account.credentials.get("push_audience")
        self._api = Api(account, account.auth_url or CERTS_ROOT)
        self._certs: Mapping[str, str] = {}
        self._certs_until = 0.0

    def notices(self, request: HookRequest) -> list[ProviderEvent]:
        """One notice to look into the mailbox. Raises BadSignature."""
        if self._sender:
            self._check_token(request.headers.get("authorization", ""))
        try:
            message = json.loads(request.body)["message"]
            data = str(message["data"]).translate(_URL_SAFE)
            notice = json.loads(base64.urlsafe_b64decode(data + "=="))
            mailbox, history_id = str(notice["emailAddress"]), int(notice["historyId"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadSignature("the call is no notice of Gmail's") from None
        return [
            ProviderEvent(
                type="received",
                at=datetime.now(UTC),
                natural_key=f"gmail:{message.get('messageId')}:{history_id}",
                recipient=mailbox,
                locator=SOMEWHERE,
            )
        ]

    def _check_token(self, authorization: str) -> None:
        """Raises BadSignature unless Google signed a token for this audience and the configured service account."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise BadSignature("the push subscription sends no OIDC token; enable authentication on it")
        try:
            claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
                token, self._google_certs(), audience=self._audience, clock_skew_in_seconds=CLOCK_SKEW_SECONDS
            )
        except (GoogleAuthError, ValueError, TypeError, KeyError):
            raise BadSignature("the OIDC token is not Google's, too old, or for another audience") from None
        if claims.get("iss") not in ISSUERS:
            raise BadSignature("the OIDC token is not of Google's accounts")
        if claims.get("email") != self._sender or claims.get("email_verified") is not True:
            raise BadSignature("the OIDC token is of another service account than push_service_account")

    def _google_certs(self) -> Mapping[str, str]:
        if time.monotonic() >= self._certs_until:
            try:
                answer = self._api.call("GET", CERTS_PATH)
            except (NotSent, NoAnswer) as error:
                raise BadSignature("Google's certificates cannot be had now") from error
            certs = answer.json()
            if answer.status != 200 or not isinstance(certs, dict):
                raise BadSignature("Google's certificates cannot be had now")
            self._certs, self._certs_until = certs, time.monotonic() + CERTS_SECONDS
        return self._certs

    def close(self) -> None:
        self._api.close()
