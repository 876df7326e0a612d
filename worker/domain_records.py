"""The DNS records that a sending domain needs: what to publish, and what is there (RFC 7208, 6376, 7489, 5321).

expected(...)       the records, exactly as they are to be published
Records.look_at     asks the DNS for each; what was found, whether it will do, and else what to do
"""

import enum
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dns.exception
import dns.rdatatype
import dns.resolver

from worker.dkim import Algorithm, record
from worker.domains import open_resolver, read_servers
from worker.storable import text

LIFETIME_SECONDS = 5.0
"""Longest that all the questions of one check may take."""

MOST_KEPT = 10
"""Records of one name that are kept and shown."""

BOUNCES = "bounces"
"""Label of the return path: mail that cannot be delivered comes back to this subdomain."""


class Purpose(enum.StrEnum):
    DKIM = "dkim"
    SPF = "spf"
    DMARC = "dmarc"
    MX = "mx"
    """Answers reach the domain."""
    RETURN_PATH = "return_path"
    """Bounces reach postroad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record to publish."""

    purpose: Purpose
    type: str
    """``TXT`` or ``MX``."""
    name: str
    """Whole, without the final dot."""
    value: str
    """As most DNS hosts take it: a TXT without quotes, an MX as ``priority host``."""
    required: bool
    """Receivers look for it. Of the others, each is needed for its own purpose only."""

    @property
    def key(self) -> str:
        """What its finding is kept under."""
        return f"{self.type} {self.name}"

    @property
    def zone_line(self) -> str:
        """The same as a line of a zone file: a long TXT in strings of 255 characters (RFC 1035 section 3.3)."""
        if self.type != "TXT":
            return f"{self.name}. IN {self.type} {self.value}."
        strings = (self.value[at : at + 255] for at in range(0, len(self.value), 255))
        return f"{self.name}. IN TXT " + " ".join(f'"{string}"' for string in strings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the DNS says of one record."""

    found: tuple[str, ...]
    ok: bool | None
    """None: the DNS gave no clear answer."""
    advice: str | None
    """What to do, where it will not do."""

    def to_json(self) -> dict[str, Any]:
        return {"found": list(self.found), "ok": self.ok, "advice": self.advice}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """The part of a DKIM key that is published."""

    selector: str
    algorithm: Algorithm
    public: str


def expected(domain: str, keys: Sequence[PublicKey], *, spf: str, mail_host: str) -> list[Record]:
    """The records of a domain.

    spf: mechanisms of the servers that its mail leaves from, such as ``mx ip4:192.0.2.10``. mail_host: where
    ``postroad inbound`` listens.
    """
    signing = [
        Record(
            purpose=Purpose.DKIM,
            type="TXT",
            name=dkim_name(key.selector, domain),
            value=record(key.algorithm, key.public),
            required=True,
        )
        for key in keys
    ]
    returns = f"{BOUNCES}.{domain}"
    others = (
        (Purpose.SPF, "TXT", domain, f"v=spf1 {spf} ~all", True),
        (Purpose.DMARC, "TXT", f"_dmarc.{domain}", "v=DMARC1; p=none", True),
        (Purpose.MX, "MX", domain, f"10 {mail_host}", False),
        (Purpose.RETURN_PATH, "MX", returns, f"10 {mail_host}", False),
        (Purpose.RETURN_PATH, "TXT", returns, f"v=spf1 {spf} ~all", False),
    )
    return signing + [
        Record(purpose=purpose, type=type_, name=name, value=value, required=required)
        for purpose, type_, name, value, required in others
    ]


def dkim_name(selector: str, domain: str) -> str:
    return f"{selector}._domainkey.{domain}"


class Records:
    """Asks the DNS. For one check."""

    def __init__(self, servers: str = "") -> None:
        """servers: as in ``POSTROAD_DNS_SERVERS``. Raises ValueError."""
        self._servers = read_servers(servers)
        self._end = time.monotonic() + LIFETIME_SECONDS

    def look_at(self, records: Sequence[Record]) -> dict[str, Finding]:
        """What there is of each, by `Record.key`. Takes at most about `LIFETIME_SECONDS`."""
        with ThreadPoolExecutor(8, thread_name_prefix="records") as threads:
            found = threads.map(self._finding, records)
            return {each.key: finding for each, finding in zip(records, found, strict=True)}

    def _finding(self, wanted: Record) -> Finding:
        try:
            found = self._found(wanted.name, wanted.type)
            if not found and wanted.purpose is Purpose.DMARC:
                found = self._inherited(wanted.name)
        except (dns.exception.DNSException, OSError) as error:
            unclear = f"the DNS gave no clear answer ({type(error).__name__}); check again in a moment"
            return Finding(found=(), ok=None, advice=unclear)
        lacking = _JUDGES[wanted.purpose, wanted.type](wanted, found)
        return Finding(
            found=tuple(text(value, 1024) for value in found[:MOST_KEPT]), ok=lacking is None, advice=lacking
        )

    @cached_property
    def _resolver(self) -> dns.resolver.Resolver:
        """Made where its failure is an answer like any other: a machine may have none."""
        return open_resolver(self._servers)

    def _found(self, name: str, type_: str) -> list[str]:
        left = max(self._end - time.monotonic(), 0.01)
        try:
            answer = self._resolver.resolve(name, type_, lifetime=left, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return []
        return [_shown(item) for item in answer] if answer.rrset is not None else []

    def _inherited(self, name: str) -> list[str]:
        """DMARC of a subdomain may stand at a domain above it; a top-level domain has none for others."""
        parent = name.removeprefix("_dmarc.").partition(".")[2]
        return (
            [] if "." not in parent else self._found(f"_dmarc.{parent}", "TXT") or self._inherited(f"_dmarc.{parent}")
        )


def _shown(item: Any) -> str:
    if item.rdtype == dns.rdatatype.MX:
        return f"{item.preference} {item.exchange.to_text(omit_final_dot=True)}"
    return b"".join(item.strings).decode("utf-8", "replace")


def _tags(value: str) -> dict[str, str]:
    """A tag list (RFC 6376 section 3.2), white space in values left out as in ``p=``."""
    pairs = (item.partition("=") for item in value.split(";") if "=" in item)
    return {name.strip(): re.sub(r"\s", "", given) for name, _, given in pairs}


def _judge_dkim(wanted: Record, found: Sequence[str]) -> str | None:
    ours = _tags(wanted.value)["p"]
    keys = [tags["p"] for tags in map(_tags, found) if "p" in tags]
    if keys == [ours]:
        return None
    if not keys:
        return f"publish this TXT record at {wanted.name}"
    if ours in keys:
        return f"{wanted.name} holds {len(keys)} keys; leave only this one, receivers may look at any of them"
    return f"{wanted.name} holds another key; put this value in its place, all of it, as one record"


def _judge_spf(wanted: Record, found: Sequence[str]) -> str | None:
    policies = [value for value in found if value.lower().split(" ")[0] == "v=spf1"]
    if not policies:
        return f"publish this TXT record at {wanted.name}"
    if len(policies) > 1:
        return f"{wanted.name} has {len(policies)} SPF records, which counts as none; make one of them"
    words = [word.removeprefix("+") for word in policies[0].lower().split()]
    if "all" in words:
        return "it ends in +all, which lets everybody send as you; end it in ~all or -all"
    missing = [word for word in wanted.value.lower().split()[1:-1] if word not in words]
    if missing:
        return f"add {' '.join(missing)} before its last word"
    return None


def _judge_dmarc(wanted: Record, found: Sequence[str]) -> str | None:
    policies = [tags for tags in map(_tags, found) if tags.get("v", "").upper() == "DMARC1"]
    if not policies:
        return f"publish this TXT record at {wanted.name}; rua=mailto:ADDRESS in it has reports sent to you"
    if len(policies) > 1:
        return f"there are {len(policies)} DMARC records, which counts as none; leave one"
    if policies[0].get("p", "").lower() not in ("none", "quarantine", "reject"):
        return "its p= must be none, quarantine or reject"
    return None


def _judge_mx(wanted: Record, found: Sequence[str]) -> str | None:
    if not found:
        return f"publish an MX record at {wanted.name}: this one, or that of the server which takes its mail"
    if all(value.split(" ")[1] == "." for value in found):
        return "a null MX refuses all mail, so answers come back to their writers; name a server that takes it"
    return None


def _judge_return_path(wanted: Record, found: Sequence[str]) -> str | None:
    host = wanted.value.split(" ")[1].lower()
    hosts = {value.split(" ")[1].lower() for value in found}
    if host not in hosts:
        return f"publish this MX record at {wanted.name} to have bounces read; not needed where nothing reads them"
    return None


_JUDGES: Mapping[tuple[Purpose, str], Callable[[Record, Sequence[str]], str | None]] = {
    (Purpose.DKIM, "TXT"): _judge_dkim,
    (Purpose.SPF, "TXT"): _judge_spf,
    (Purpose.DMARC, "TXT"): _judge_dmarc,
    (Purpose.MX, "MX"): _judge_mx,
    (Purpose.RETURN_PATH, "MX"): _judge_return_path,
    (Purpose.RETURN_PATH, "TXT"): _judge_spf,
}
"""Why what was found will not do, as a thing to do; None where it will."""
