"""Where a webhook may go: the URLs that are refused outright, and the addresses that a host may have."""

import functools
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import idna

from providers.guard import Guard, HostNotFound, HostRefused

_PORTS = {"http": 80, "https": 443}
_LOW_PORTS = frozenset({80, 443, 8080, 8443})
# Ports from 1024 up on which something other than HTTP listens that a crafted POST could speak to.
_FOREIGN_PORTS = frozenset(
    {1433, 1521, 2049, 2375, 2376, 2379, 2380, 3306, 3389, 5060, 5061, 5432, 5672, 6000, 6379, 6443, 6667, 9092, 10250}
    | {11211, 26379, 27017}
)
_UNWRITABLE = re.compile(r"[\x00-\x20\x7f\\]")
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


class UrlRefused(Exception):
    """The URL can never be posted to. The text says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart. ``host`` is ASCII, without brackets."""

    tls: bool
    host: str
    port: int
    authority: str
    """The Host header."""
    path: str
    """Path and query, percent-encoded."""


@functools.lru_cache(maxsize=4096)
def parse_url(url: str) -> Target:
    """Raises UrlRefused unless this is a plain http or https URL with a host and a port that webhooks may use."""
    if _UNWRITABLE.search(url):
        raise UrlRefused("the URL contains a space, a backslash or a control character; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UrlRefused(f"the URL cannot be read: {error}") from error
    if parts.scheme not in _PORTS:
        raise UrlRefused(f"the scheme {parts.scheme or '(none)'} is not supported; use https or http")
    if "@" in parts.netloc:
        raise UrlRefused("the URL contains a user name or password; put a secret into the path or check the signature")
    if "#" in url:
        raise UrlRefused("the URL contains a fragment, which is never sent; remove everything from the # on")
    host = _ascii_host(parts.hostname)
    if port is None:
        port = _PORTS[parts.scheme]
    if (port < 1024 and port not in _LOW_PORTS) or port in _FOREIGN_PORTS:
        raise UrlRefused(
            f"port {port} is not allowed; use 80, 443, 8080, 8443 or one from 1024 up where HTTP is spoken"
        )
    shown = f"[{host}]" if ":" in host else host
    return Target(
        tls=parts.scheme == "https",
        host=host,
        port=port,
        authority=shown if port == _PORTS[parts.scheme] else f"{shown}:{port}",
        path=quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        + (f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?[]')}" if parts.query else ""),
    )


def _ascii_host(host: str | None) -> str:
    if not host:
        raise UrlRefused("the URL has no host")
    if "%" in host:
        raise UrlRefused(f"the host {host} has a zone or an escape; use a public host name")
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError as error:
            raise UrlRefused(f"the host {host} is not a valid name: {error}") from error
    return host.removesuffix(".")


def check_url(url: str, guard: Guard) -> str | None:
    """What is wrong with a webhook URL, for its owner; None if it may be registered.

    A name that does not resolve now is let through: it is checked again at every connect.
    """
    try:
        target = parse_url(url)
        addresses_of(guard, target)
    except (UrlRefused, HostRefused) as refusal:
        return str(refusal)
    except HostNotFound:
        if _NUMERIC.fullmatch(target.host.rpartition(".")[2]):
            return f"{target.host} is neither an address nor a host name"
    return None


def addresses_of(guard: Guard, target: Target) -> list[str]:
    """The addresses that may be connected to. The refusal does not tell what a name resolved to: it may be internal."""
    try:
        return guard.addresses(target.host, target.port)
    except HostRefused as refusal:
        text = f"{target.host} is not, or not only, a public address; list the host in {guard.setting} to allow it"
        raise HostRefused(text) from refusal
