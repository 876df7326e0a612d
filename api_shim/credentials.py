"""What each provider's credentials are, and where a tenant's own roots may point.

Values are secret: faults name fields, never what stood in them.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from api_shim.errors import Fault
from api_shim.text import Line, Text
from providers.guard import Guard, HostNotFound, HostRefused

Token = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")
]
"""What goes into a header or a URL: visible ASCII."""
Secret = Annotated[Text, Field(min_length=1, max_length=4096)]
Username = Annotated[Line, Field(min_length=1)]
HostName = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=253, pattern=r"^([A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+)$")
]
Port = Annotated[int, Field(ge=1, le=65535)]


class Credentials(BaseModel):
    """One provider's. Unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class SmtpCredentials(Credentials):
    host: HostName | None = None
    """May only be left out where ``base_url`` names the server."""
    port: Port | None = None
    security: Literal["none", "starttls", "tls"] = "none"
    username: Username | None = None
    password: Secret | None = None
    auth: Literal["plain", "login"] | None = None
    verify: bool | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together; give both or neither")
        return self


class MailboxSmtpCredentials(Credentials):
    """A mailbox of a large provider: a password, or what an OAuth connection needs."""

    username: Username
    password: Secret | None = None
    client_id: Token | None = None
    client_secret: Token | None = None
    refresh_token: Token | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.password is None and (self.client_id is None or self.client_secret is None):
            raise ValueError("give password, or client_id, client_secret and refresh_token")
        return self


class OutlookSmtpCredentials(MailboxSmtpCredentials):
    tenant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$", max_length=255)] = "common"


class PostmarkCredentials(Credentials):
    server_token: Token
    message_stream: Token | None = None
    hook_secret: Secret | None = None


class MailgunCredentials(Credentials):
    api_key: Token
    domain: HostName
    signing_key: Token | None = None
    """Without it no event of Mailgun can be believed."""


class SparkPostCredentials(Credentials):
    api_key: Token
    hook_secret: Secret | None = None


class GmailCredentials(Credentials):
    client_id: Token
    client_secret: Token
    refresh_token: Token | None = None
    """Missing until the mailbox is connected."""
    scope: Line | None = None
    """The scopes that were granted, separated by spaces."""
    push_service_account: Token | None = None
    """Whose OIDC token a Pub/Sub push must carry. Without it the token in the hook's URL is enough."""
    push_audience: Token | None = None
    """What that token must be made out to."""

    @model_validator(mode="after")
    def _audience_known(self) -> Self:
        if (self.push_service_account is None) != (self.push_audience is None):
            raise ValueError("push_service_account and push_audience go together; give both or neither")
        return self


class Microsoft365Credentials(Credentials):
    tenant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$", max_length=255)]
    client_id: Token
    client_secret: Token
    refresh_token: Token | None = None
    client_state: Token | None = None


CREDENTIALS: dict[str, type[Credentials]] = {
    "smtp": SmtpCredentials,
    "gmail_smtp": MailboxSmtpCredentials,
    "outlook_smtp": OutlookSmtpCredentials,
    "postmark": PostmarkCredentials,
    "mailgun": MailgunCredentials,
    "sparkpost": SparkPostCredentials,
    "gmail": GmailCredentials,
    "microsoft365": Microsoft365Credentials,
}
"""By provider; one for each adapter."""

SMTP_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
HTTP_PORTS = {"http": 80, "https": 443}
SMTP_PROVIDERS = frozenset({"smtp", "gmail_smtp", "outlook_smtp"})
CONNECTED = frozenset({"gmail", "microsoft365", "gmail_smtp", "outlook_smtp"})
"""Providers whose mailboxes are connected by OAuth; only they have an ``auth_url``."""


def read_credentials(provider: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The credentials as they are sealed, and everything that is wrong with them."""
    try:
        read = CREDENTIALS[provider].model_validate(dict(given))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return {}, [
            Fault(".".join(["credentials", *map(str, item["loc"])]), item["msg"], item["type"]) for item in found
        ]
    return read.model_dump(exclude_none=True), []


def awaits_connection(provider: str, credentials: Mapping[str, Any]) -> bool:
    """Whether the mailbox must be connected by OAuth before anything can be sent."""
    return provider in CONNECTED and not credentials.get("refresh_token") and not credentials.get("password")


def root_faults(provider: str, base_url: str | None, auth_url: str | None, host: str | None) -> list[Fault]:
    """What is wrong with the way the roots are written; where they point is for `refused_hosts`."""
    faults = []
    ports = SMTP_PORTS if provider in SMTP_PROVIDERS else HTTP_PORTS
    if base_url is not None and (problem := url_problem(base_url, ports)):
        faults.append(Fault("base_url", problem))
    if auth_url is not None and provider not in CONNECTED:
        faults.append(Fault("auth_url", f"{provider} takes no OAuth tokens; leave auth_url out"))
    elif auth_url is not None and (problem := url_problem(auth_url, HTTP_PORTS)):
        faults.append(Fault("auth_url", problem))
    if provider == "smtp" and base_url is None and host is None:
        faults.append(Fault("credentials.host", "name the SMTP server, or give its base_url", "required"))
    return faults


def url_problem(url: str, schemes: Mapping[str, int], *, path: bool = True) -> str | None:
    """Why ``url`` is no root of a service, as the rest of a sentence; None where it is one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in schemes or not host:
        return f"must start with {', '.join(f'{scheme}://' for scheme in schemes)} and name a host"
    if parts.username is not None or parts.password is not None:
        return "must hold no user name or password; credentials are kept sealed, URLs are not"
    if parts.query or parts.fragment or not (path or parts.path in ("", "/")):
        return "must be a root: without a query or a fragment" + ("" if path else ", and without a path")
    return None


def moved_roots(
    given: Mapping[str, str | None], base_url: str | None, auth_url: str | None, credentials: Mapping[str, Any]
) -> list[Fault]:
    """Faults for new roots on another host than the one in use.

    Whoever changes them there must know the credentials: they would be sent to that host.
    """
    known = {"base_url": host_in_use(base_url, credentials), "auth_url": _host_of(auth_url)}
    moved = [field for field, url in given.items() if url is not None and _host_of(url) != known[field]]
    message = "names another host than before, which would receive the credentials; send them along"
    return [Fault(field, message, "credentials_needed") for field in moved]


def host_in_use(base_url: str | None, credentials: Mapping[str, Any]) -> str | None:
    """The host that receives the credentials; None: the provider's own."""
    return _host_of(base_url) or credentials.get("host")


def _host_of(url: str | None) -> str | None:
    return urlsplit(url).hostname if url is not None else None


def refused_hosts(
    guard: Guard, base_url: str | None, auth_url: str | None, credentials: Mapping[str, Any]
) -> list[Fault]:
    """Faults for hosts that must not be connected to. A name that does not resolve now is looked at again when used."""
    faults = []
    for field, host, port in _hosts(base_url, auth_url, credentials):
        try:
            guard.addresses(host, port)
        except HostRefused as refusal:
            faults.append(Fault(field, str(refusal), "host_refused"))
        except HostNotFound:
            continue
    return faults


def _hosts(
    base_url: str | None, auth_url: str | None, credentials: Mapping[str, Any]
) -> Iterator[tuple[str, str, int]]:
    for field, url in (("base_url", base_url), ("auth_url", auth_url)):
        if url is not None:
            parts = urlsplit(url)
            yield field, parts.hostname or "", parts.port or (SMTP_PORTS | HTTP_PORTS)[parts.scheme]
    if host := credentials.get("host"):
        yield "credentials.host", host, credentials.get("port") or 25
