"""How long requests take, by route. A route is named by its pattern below the base, never by what a caller sent."""

import time
from collections.abc import Sequence

from starlette.routing import Route
from starlette.types import Scope

from worker.meter import Meter
from worker.series import HTTP

UNKNOWN = "none"
"""Requests that no route answers, whatever their path."""


class Timing:
    """Measures requests up to the beginning of their answer. ``bases``: where the API's routes answer."""

    def __init__(self, meter: Meter, bases: Sequence[str]) -> None:
        self._meter = meter
        self._bases = bases
        self._patterns: dict[object, str] = {}
        """Of plain endpoints, which do not say by themselves which route they answer."""

    def observe(self, scope: Scope, started: float, status: int) -> None:
        """started: by `time.perf_counter`."""
        self._meter.observe(HTTP, time.perf_counter() - started, self._route(scope), str(status))

    def _route(self, scope: Scope) -> str:
        if "route" in scope:
            pattern: str = scope["route"].path
            return pattern
        if "endpoint" not in scope:
            return UNKNOWN
        if not self._patterns:
            self._patterns = {
                route.endpoint: self._without_base(route.path)
                for route in scope["app"].routes
                if isinstance(route, Route)
            }
        return self._patterns.get(scope["endpoint"], UNKNOWN)

    def _without_base(self, path: str) -> str:
        return next((path.removeprefix(base) for base in self._bases if path.startswith(f"{base}/")), path)
