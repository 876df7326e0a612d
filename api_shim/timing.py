"""How long requests take, by route, and their spans where somebody traces.

A route is named by its pattern below the base, never by what a caller sent.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from starlette.routing import Route
from starlette.types import Scope

from worker.meter import Meter
from worker.series import HTTP
from worker.traces import Traces

UNKNOWN = "none"
"""Requests that no route answers, whatever their path."""


class Timing:
    """Measures requests up to the beginning of their answer. ``bases``: where the API's routes answer."""

    def __init__(self, meter: Meter, traces: Traces | None, bases: Sequence[str]) -> None:
        self._meter = meter
        self._traces = traces
        self._bases = bases
        self._patterns: dict[object, str] = {}
        """Of plain endpoints, which do not say by themselves which route they answer."""

    def begin(self, scope: Scope, traceparent: str | None) -> Callable[[int], object]:
        """A request begins. Returns what is to be called with the status when its answer does."""
        started = time.perf_counter()
        if self._traces is None:
            return partial(self._observe, scope, started)
        span = self._traces.server(scope["method"], traceparent)
        scope["traceparent"] = self._traces.traceparent(span)

        def answered(status: int) -> None:
            route = self._observe(scope, started, status)
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes({"http.request.method": scope["method"], "http.route": route})
            span.set_attribute("http.response.status_code", status)
            span.end()

        return answered

    def _observe(self, scope: Scope, started: float, status: int) -> str:
        route = self._route(scope)
        self._meter.observe(HTTP, time.perf_counter() - started, route, str(status))
        return route

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
