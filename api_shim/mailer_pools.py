"""A mailer's ``ip_pools`` as they are sent in: the ways out of an SMTP mailer, or a provider's own names."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api_shim.credentials import HostName, Port
from api_shim.errors import Fault
from api_shim.text import Line
from providers import SPEAK_SMTP
from providers.guard import Guard, HostNotFound, HostRefused, parse_hosts


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("is not an IP address; write it as 192.0.2.1 or 2001:db8::1") from None


IpAddress = Annotated[str, StringConstraints(max_length=45, strip_whitespace=True), AfterValidator(_address)]


class PoolMember(BaseModel):
    """One way out: an address of the machine to send from, or a relay that takes the mailer's credentials."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"source": "192.0.2.10", "weight": 3}})

    source: IpAddress | None = None
    host: HostName | None = None
    port: Port | None = None
    weight: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.source is None) == (self.host is None):
            raise ValueError("give source, an address to send from, or host, a relay to send through: one of the two")
        if self.port is not None and self.host is None:
            raise ValueError("port is the relay's; give it with host")
        return self


Pool = Line | Annotated[list[PoolMember], Field(min_length=1, max_length=100)]
Relay = tuple[str, str, int | None]
"""Field, host and port."""


def relays(pools: Mapping[str, Any]) -> Iterator[Relay]:
    """The relays of pools as the database keeps them."""
    for name, members in pools.items():
        for index, member in enumerate(members if isinstance(members, list) else ()):
            if member.get("host"):
                yield f"ip_pools.{name}[{index}].host", member["host"], member.get("port")


def unfit_pools(provider: str, pools: Mapping[str, Any]) -> list[Fault]:
    """Faults for pools that the provider cannot have."""
    if provider not in SPEAK_SMTP:
        named = [name for name, members in pools.items() if isinstance(members, list)]
        message = f"{provider} has pools of its own; give the name of one as text"
        return [Fault(f"ip_pools.{name}", message) for name in named]
    if provider != "smtp":
        message = f"{provider} sends through its own servers; a pool may only name source addresses"
        return [Fault(field, message) for field, _, _ in relays(pools)]
    return []


def foreign_sources(allowed: str, pools: Mapping[str, Any]) -> list[Fault]:
    """Faults for source addresses that are not for tenants; ``allowed`` as in POSTROAD_SOURCE_ADDRESSES."""
    networks = [ipaddress.ip_network(entry, strict=False) for entry in parse_hosts(allowed)]
    named = (
        (f"ip_pools.{name}[{index}].source", member["source"])
        for name, members in pools.items()
        for index, member in enumerate(members if isinstance(members, list) else ())
        if member.get("source")
    )
    message = "is not listed in POSTROAD_SOURCE_ADDRESSES; use one that is, or have the operator list it"
    return [
        Fault(field, f"{source} {message}")
        for field, source in named
        if networks and not any(ipaddress.ip_address(source) in network for network in networks)
    ]


def unproven_relays(
    pools: Mapping[str, Any], before: Mapping[str, Any], held: Mapping[str, Any], own_host: str | None
) -> list[Fault]:
    """Faults for relays that were not there before, where there are credentials that they would receive.

    Whoever names them must know those credentials.
    """
    if not held.get("password"):
        return []
    known = {own_host, *(host for _, host, _ in relays(before))}
    message = "is a new relay, which would receive the mailer's credentials; send them along"
    return [Fault(field, message, "credentials_needed") for field, host, _ in relays(pools) if host not in known]


def refused_relays(guard: Guard, found: Sequence[Relay]) -> list[Fault]:
    """Faults for relays that must not be connected to. Looks names up: no transaction may be open."""
    faults = []
    for field, host, port in found:
        try:
            guard.addresses(host, port or 25)
        except HostRefused as refusal:
            faults.append(Fault(field, str(refusal), "host_refused"))
        except HostNotFound:
            continue
    return faults
