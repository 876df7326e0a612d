"""IP pools of an SMTP mailer: ways out by name, one of which is drawn for each batch that goes over a connection."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from providers.base import Outcome, Result
from providers.smtp_login import Login, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way out: from an address of this machine, or through another relay, or as the mailer says."""

    source: str | None = None
    """The address to connect from."""
    host: str | None = None
    """The relay to connect to in place of the mailer's own server; spoken to with the mailer's credentials."""
    port: int | None = None

    def applied(self, login: Login) -> Login:
        """Where to connect and as whom, on this way."""
        if self.host is None:
            return login
        return replace(login, host=self.host, port=self.port or login.port)


DIRECT = Route()

_Members = tuple[Sequence[Route], Sequence[int]]
"""Routes and their weights."""


class Pools:
    """Read from the mailer's ``ip_pools``: name -> ``[{"source" | "host", "port", "weight"}, ...]``."""

    def __init__(self, ip_pools: Mapping[str, Any]) -> None:
        self._pools: dict[str, _Members] = {name: _members(given) for name, given in ip_pools.items()}

    def draw(self, name: str) -> Route:
        """A route of the pool, each as often as its weight says; without pools all mail goes the mailer's own way.

        Raises Unavailable where the mailer no longer has the pool: its mail must not leave by another address.
        """
        if not name or not self._pools:
            return DIRECT
        if name not in self._pools:
            gone = f"the mailer no longer has the IP pool {name!r}"
            raise Unavailable(Outcome(result=Result.TRANSIENT, detail=gone))
        routes, weights = self._pools[name]
        return random.choices(routes, weights)[0]  # noqa: S311 -- not a secret

    def routes(self) -> list[Route]:
        """Every way out, each once, but for the mailer's own."""
        found = (route for routes, _ in self._pools.values() for route in routes)
        return [route for route in dict.fromkeys(found) if route != DIRECT]


def _members(given: Any) -> _Members:
    """A pool that only bears a name, as API providers have them, leads nowhere of its own."""
    if not isinstance(given, list):
        return (DIRECT,), (1,)
    routes = [Route(source=one.get("source"), host=one.get("host"), port=one.get("port")) for one in given]
    return routes, [one.get("weight", 1) for one in given]
