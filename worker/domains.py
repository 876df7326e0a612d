"""Which domains take mail, as the DNS says. Remembered in the process.

Only a clear answer counts against a domain. Whatever else happens (a timeout, a broken server, no resolver at all)
leaves it unknown, and unknown is good enough to be sent to.
"""

import enum
import ipaddress
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

LIFETIME_SECONDS = 2.0
"""Longest that one domain is asked about, all its questions together."""

AT_ONCE = 16
"""Domains asked about at the same time."""

CROWD = 8
"""Callers that may wait for the DNS at the same time: slow domains must not hold every thread of an API."""

KEPT = 20_000
"""Domains remembered; the first learned is forgotten first."""

_UNASKED = frozenset(("test", "example", "invalid", "localhost", "example.com", "example.net", "example.org"))
"""RFC 6761: names for tests and documents. No public server speaks for them, but a relay of one's own may."""


class Mail(enum.StrEnum):
    """What a domain is to mail."""

    TAKEN = "taken"
    """It has a mail server: an MX record, or an address record in its place (RFC 5321 section 5.1)."""
    NO_DOMAIN = "no_domain"
    """It does not exist (NXDOMAIN)."""
    NO_SERVER = "no_server"
    """It exists and has neither MX nor address record."""
    REFUSED = "refused"
    """It says that it takes no mail: a null MX (RFC 7505)."""
    UNKNOWN = "unknown"
    """Not asked, or no clear answer."""


_REMEMBERED_SECONDS = {
    Mail.TAKEN: 3600.0,
    Mail.NO_DOMAIN: 300.0,
    Mail.NO_SERVER: 300.0,
    Mail.REFUSED: 300.0,
    Mail.UNKNOWN: 30.0,
}


def read_servers(listed: str) -> list[tuple[str, int]]:
    """``POSTROAD_DNS_SERVERS`` as addresses and ports; 53 where none is given. Raises ValueError naming the entry."""
    return [_server(entry.strip()) for entry in listed.split(",") if entry.strip()]


def _server(entry: str) -> tuple[str, int]:
    address, _, port = entry.rpartition(":") if _has_port(entry) else (entry, "", "53")
    try:
        number = int(port)
        return str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))), number
    except ValueError as error:
        raise ValueError(f"POSTROAD_DNS_SERVERS: {entry!r} is not address:port, such as 192.0.2.53:53") from error


def _has_port(entry: str) -> bool:
    return "]:" in entry if entry.startswith("[") else entry.count(":") == 1


class Domains:
    """Asks about many domains at once and remembers the answers. Made for several threads."""

    def __init__(self, servers: str = "") -> None:
        """servers: as in ``POSTROAD_DNS_SERVERS``; empty: the system's. Raises ValueError."""
        self._servers = read_servers(servers)
        self._resolver: dns.resolver.Resolver | None = None
        self._known: dict[str, tuple[Mail, float]] = {}
        self._learning = threading.Lock()
        self._room = threading.BoundedSemaphore(CROWD)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="dns")

    def look_up(self, domains: Collection[str], seconds: float) -> dict[str, Mail]:
        """What each domain is to mail, within so many seconds; what takes longer is unknown this time.

        So is whatever is not remembered while `CROWD` others wait.
        """
        now = time.monotonic()
        found = {domain: self._remembered(domain, now) for domain in domains}
        answers: dict[str, Mail] = {}
        if None in found.values() and self._room.acquire(blocking=False):
            try:
                answers = self._answers([domain for domain, known in found.items() if known is None], seconds)
            finally:
                self._room.release()
        return {domain: known or answers.get(domain, Mail.UNKNOWN) for domain, known in found.items()}

    def _answers(self, domains: Collection[str], seconds: float) -> dict[str, Mail]:
        asked = {self._threads.submit(self._learn, domain): domain for domain in domains}
        done, late = wait(asked, timeout=seconds)
        for lookup in late:
            lookup.cancel()
        return {asked[lookup]: lookup.result() for lookup in done}

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _remembered(self, domain: str, now: float) -> Mail | None:
        if not is_asked(domain):
            return Mail.UNKNOWN
        known, until = self._known.get(domain, (None, 0.0))
        return known if until > now else None

    def _learn(self, domain: str) -> Mail:
        mail = self._ask(domain)
        with self._learning:
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[domain] = (mail, time.monotonic() + _REMEMBERED_SECONDS[mail])
        return mail

    def _ask(self, domain: str) -> Mail:
        end = time.monotonic() + LIFETIME_SECONDS
        try:
            name = dns.name.from_text(domain)
            return self._mx(name, end) or self._address(name, end)
        except dns.resolver.NXDOMAIN:
            return Mail.NO_DOMAIN
        except (dns.exception.DNSException, OSError, ValueError):
            return Mail.UNKNOWN

    def _mx(self, name: dns.name.Name, end: float) -> Mail | None:
        """None: it has no MX record."""
        answer = self._answer(name, "MX", end)
        if not answer:
            return None
        return Mail.REFUSED if all(record.exchange == dns.name.root for record in answer) else Mail.TAKEN

    def _address(self, name: dns.name.Name, end: float) -> Mail:
        return Mail.TAKEN if any(self._answer(name, kind, end) for kind in ("A", "AAAA")) else Mail.NO_SERVER

    def _answer(self, name: dns.name.Name, kind: str, end: float) -> dns.resolver.Answer | None:
        left = max(end - time.monotonic(), 0.01)
        answer = self._open().resolve(name, kind, lifetime=left, raise_on_no_answer=False)
        return answer if answer.rrset is not None else None

    def _open(self) -> dns.resolver.Resolver:
        """Made when it is first needed: a machine without a resolver can do everything else."""
        if self._resolver is None:
            self._resolver = open_resolver(self._servers)
        return self._resolver


def open_resolver(servers: Sequence[tuple[str, int]]) -> dns.resolver.Resolver:
    """Asks these servers; without any, the system's."""
    resolver = dns.resolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in servers]
    return resolver


def is_asked(domain: str) -> bool:
    """Whether the DNS can tell anything about the domain: it is a name, and none of RFC 6761's."""
    if domain.startswith("["):
        return False  # an address literal, RFC 5321 section 4.1.3
    labels = domain.rstrip(".").lower().split(".")
    return labels[-1] not in _UNASKED and ".".join(labels[-2:]) not in _UNASKED
