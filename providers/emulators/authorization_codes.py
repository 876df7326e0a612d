"""The authorization code flow with PKCE (RFC 7636) as an emulated consent page does it: everybody consents at once."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from providers.emulators.http import Call, Reply


class AuthorizationCodes:
    """Codes given out and not yet redeemed, each good once."""

    def __init__(self) -> None:
        self.declined = False
        """The user says no."""
        self._codes: dict[str, tuple[str, str]] = {}

    def consent(self, call: Call, **more: str) -> Reply:
        """Sends the browser back with a code, and with ``more``."""
        redirect_uri = call.argument("redirect_uri")
        answer = {"state": call.argument("state")}
        if self.declined:
            answer["error"] = "access_denied"
        else:
            code = secrets.token_urlsafe(12)
            self._codes[code] = (call.argument("code_challenge"), redirect_uri)
            answer |= {"code": code, **more}
        return Reply(302, None, {"Location": f"{redirect_uri}?{urlencode(answer)}"})

    def redeem(self, form: Mapping[str, str]) -> bool:
        """Whether the code is one of ours, brought by whoever asked for it."""
        challenge, redirect_uri = self._codes.pop(form.get("code", ""), ("", ""))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return bool(challenge) and proof == challenge and redirect_uri == form.get("redirect_uri")
