"""Which addresses may be connected to. Stands before every URL or host that a tenant can set.

The host is resolved once, every answer must be allowed, and the caller connects to one of the very addresses that
were checked: a second lookup could answer otherwise (DNS rebinding). `ipaddress.is_global` alone is not enough:
Python 3.11 calls NAT64, 6to4, IPv4-compatible and some multicast addresses global.
"""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_V4_REFUSED = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
# Only global unicast is allowed in IPv6; inside it, what tunnels to IPv4 or is reserved is not.
_V6_GLOBAL = ipaddress.ip_network("2000::/3")
_V6_REFUSED = [ipaddress.ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]


class HostRefused(Exception):
    """The host is, or resolves to, an address that must not be connected to. Says which and why."""


class HostNotFound(Exception):
    """The name does not resolve now. May resolve later."""


def is_public(address: IPAddress) -> bool:
    """Whether the address is reachable on the public Internet and nowhere else."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _V4_REFUSED)
    return address in _V6_GLOBAL and not any(address in network for network in _V6_REFUSED)


@dataclass(frozen=True, slots=True)
class Guard:
    """Public addresses pass; others only if their host is listed.

    allowed_hosts: host names, addresses or networks in CIDR form that may be reached although they are not public.
    ``*`` lets everything pass.
    """

    allowed_hosts: frozenset[str] = frozenset()
    setting: str = "POSTROAD_MAILER_ALLOWED_HOSTS"
    """Named in the refusal, so that an operator knows what to change."""

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolves ``host`` and returns its addresses, all of which are allowed.

        Raises HostRefused if any is not, HostNotFound if the name does not resolve.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HostNotFound(f"{host} does not resolve") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for text in addresses:
            self._check(host, text)
        return addresses

    def _check(self, host: str, text: str) -> None:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            address = mapped
        if is_public(address) or self._listed(host.lower().rstrip("."), address):
            return
        shown = host if host == text else f"{host} ({text})"
        raise HostRefused(f"{shown} is not a public address; list the host in {self.setting} to allow it")

    def _listed(self, host: str, address: IPAddress) -> bool:
        if "*" in self.allowed_hosts or host in self.allowed_hosts or str(address) in self.allowed_hosts:
            return True
        networks = (ipaddress.ip_network(entry, strict=False) for entry in self.allowed_hosts if "/" in entry)
        return any(address.version == network.version and address in network for network in networks)


def parse_hosts(hosts: str | Iterable[str]) -> frozenset[str]:
    """The set behind a comma-separated setting."""
    items = hosts.split(",") if isinstance(hosts, str) else hosts
    return frozenset(item.strip().lower() for item in items if item.strip())
