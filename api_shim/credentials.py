"""Reads a mailer's credentials by its adapter's table, and says where a tenant's own roots may point.

Values are secret: faults name fields, never what stood in them.
"""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    create_model,
)

from api_shim.connecting import CONSENTS
from api_shim.errors import Fault
from api_shim.text import Line, Text
from providers import SPEAK_SMTP, adapter
from providers.credentials import REFRESH_TOKEN, Credential, Credentials, Kind
from providers.guard import Guard, HostNotFound, HostRefused

Username = Annotated[Line, Field(min_length=1)]
HostName = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=253, pattern=r"^([A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+)$")
]
Port = Annotated[int, Field(ge=1, le=65535)]

KINDS: Mapping[Kind, Any] = {
    Kind.TOKEN: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")
    ],
    Kind.SECRET: Annotated[Text, Field(min_length=1, max_length=4096)],
    Kind.NAME: Username,
    Kind.LINE: Line,
    Kind.ID: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$", max_length=255)],
    Kind.HOST: HostName,
    Kind.PORT: Port,
    Kind.SWITCH: bool,
}
"""How a value of each kind is read."""

SMTP_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
HTTP_PORTS = {"http": 80, "https": 443}


def read_credentials(provider: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The credentials as they are sealed, and everything that is wrong with them."""
    try:
        read = _reader(provider).validate_python(dict(given))
    except ModuleNotFoundError:
        return {}, [Fault("provider", f"{provider} is not installed here; install postroad[{provider}]")]
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return {}, [
            Fault(".".join(["credentials", *map(str, item["loc"])]), item["msg"], item["type"]) for item in found
        ]
    return read.model_dump(exclude_none=True), []


@cache
def _reader(provider: str) -> TypeAdapter[BaseModel]:
    """Reads what the adapter's table names. Unknown fields are refused, so that none is misspelt in silence."""
    table = adapter(provider).credentials
    fields: dict[str, Any] = {name: _field(credential) for name, credential in table.items()}
    config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    model = create_model(provider, __config__=config, **fields)
    return TypeAdapter(Annotated[model, AfterValidator(partial(_complete, table))])


def _field(credential: Credential) -> tuple[Any, Any]:
    """Type and default, as pydantic wants them."""
    kind = KINDS[credential.kind] if isinstance(credential.kind, Kind) else Literal[credential.kind]
    if credential.required:
        return kind, ...
    return (kind | None if credential.default is None else kind), credential.default


def _complete(table: Credentials, read: BaseModel) -> BaseModel:
    missing = {name for name in table if getattr(read, name) is None}
    for name, credential in table.items():
        if credential.beside and (name in missing) != (credential.beside in missing):
            raise ValueError(f"{name} and {credential.beside} go together; give both or neither")
        if name in missing and not missing.isdisjoint({*credential.instead_of} - {REFRESH_TOKEN}):
            *first, last = credential.instead_of
            raise ValueError(f"give {name}, or {', '.join(first)} and {last}")
    return read


def awaits_connection(provider: str, credentials: Mapping[str, Any]) -> bool:
    """Whether the mailbox must be connected by OAuth before anything can be sent."""
    return provider in CONSENTS and not credentials.get("refresh_token") and not credentials.get("password")


def root_faults(provider: str, base_url: str | None, auth_url: str | None, host: str | None) -> list[Fault]:
    """What is wrong with the way the roots are written; where they point is for `refused_hosts`."""
    faults = []
    ports = SMTP_PORTS if provider in SPEAK_SMTP else HTTP_PORTS
    if base_url is not None and (problem := url_problem(base_url, ports)):
        faults.append(Fault("base_url", problem))
    if auth_url is not None and provider not in CONSENTS:
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
