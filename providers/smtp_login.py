"""How to get into an SMTP server: where it is, how it is encrypted, who logs in."""

import base64
import enum
from collections.abc import Callable, Generator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from providers.base import Failed, Outcome, Result


class Security(enum.StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


SCHEMES = {"smtp": Security.NONE, "smtp+starttls": Security.STARTTLS, "smtps": Security.TLS}
"""Of a ``base_url``."""
OAUTH_FIELDS = ("client_id", "client_secret", "refresh_token")
"""Instead of a password they ask for XOAUTH2; the access token they were exchanged for stands beside them."""
_PORTS = {Security.NONE: 25, Security.STARTTLS: 587, Security.TLS: 465}


class Unavailable(Failed):
    """No connection that mail can go over; ``outcome`` is that of every mail that wanted one."""


def misconfigured(detail: str) -> Unavailable:
    """The mailer must be mended before its mail can go."""
    return Unavailable(Outcome(result=Result.CREDENTIALS, detail=detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A server and the way in."""

    host: str
    port: int
    security: Security
    username: str | None = None
    """None: no AUTH."""
    password: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    """OAuth 2 bearer token for XOAUTH2; preferred to the password."""
    mechanism: str | None = None
    """Forces ``PLAIN``, ``LOGIN`` or ``XOAUTH2``."""
    verify: bool | None = None
    """Whether the certificate is checked. None: unless the server is on this machine. False: refused elsewhere."""

    @classmethod
    def read(cls, credentials: Mapping[str, Any], base_url: str | None) -> Self:
        """From a mailer's credentials; ``base_url`` (``smtp://host:port`` and so on) wins over host, port, security.

        Raises Unavailable naming what is missing or wrong.
        """
        host, port, security = _place(credentials, base_url)
        mechanism = credentials.get("auth")
        if mechanism is not None and str(mechanism).upper() not in MECHANISMS:
            raise misconfigured("auth must be plain, login or xoauth2")
        oauth = any(credentials.get(field) for field in OAUTH_FIELDS)
        if oauth and not credentials.get("password"):
            mechanism = mechanism or "xoauth2"
        return cls(
            host=host,
            port=port,
            security=security,
            username=credentials.get("username") or None,
            password=credentials.get("password"),
            access_token=credentials.get("access_token"),
            mechanism=str(mechanism).upper() if mechanism else None,
            verify=credentials.get("verify"),
        )

    def choose(self, offered: Set[str]) -> str:
        """The mechanism to use. Raises Unavailable if the server offers none that fits."""
        wanted = [self.mechanism] if self.mechanism else (["XOAUTH2"] if self.access_token else ["PLAIN", "LOGIN"])
        for mechanism in wanted:
            if mechanism in offered:
                return mechanism
        raise misconfigured(f"the server does not offer AUTH {' or '.join(wanted)} here")

    def secret(self, mechanism: str) -> str:
        """What the mechanism needs beside the name. Raises Unavailable if it was not given."""
        found = self.access_token if mechanism == "XOAUTH2" else self.password
        if not found:
            raise misconfigured("there is no access token" if mechanism == "XOAUTH2" else "there is no password")
        return found


def _place(credentials: Mapping[str, Any], base_url: str | None) -> tuple[str, int, Security]:
    try:
        if base_url:
            url = urlsplit(base_url)
            security = SCHEMES[url.scheme]
            host, port = url.hostname, url.port
        else:
            security = Security(credentials.get("security") or Security.NONE)
            host, port = credentials.get("host"), int(credentials.get("port") or 0)
    except (ValueError, KeyError) as error:
        raise misconfigured("port, security or base_url is not one that SMTP knows") from error
    if not host:
        raise misconfigured("host is missing")
    return host, port or _PORTS[security], security


Exchange = Generator[bytes, bytes, None]
"""Yields the client's lines without line ends, is sent the text of each 334; ends when it has nothing more to say."""


def _plain(username: str, secret: str) -> Exchange:
    yield b"AUTH PLAIN " + base64.b64encode(f"\0{username}\0{secret}".encode())


def _login(username: str, secret: str) -> Exchange:
    yield b"AUTH LOGIN"
    yield base64.b64encode(username.encode())
    yield base64.b64encode(secret.encode())


def _xoauth2(username: str, secret: str) -> Exchange:
    blob = f"user={username}\x01auth=Bearer {secret}\x01\x01".encode()
    yield b"AUTH XOAUTH2 " + base64.b64encode(blob)
    # A 334 carries the reason in JSON; the 535 proper comes only after an empty line.
    yield b""


MECHANISMS: dict[str, Callable[[str, str], Exchange]] = {"PLAIN": _plain, "LOGIN": _login, "XOAUTH2": _xoauth2}
