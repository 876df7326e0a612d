"""Traces by OpenTelemetry, where they are asked for: one from a request over claim, composing, sending and follow-up
to the webhook.

A submission keeps the ``traceparent`` (W3C Trace Context) of the request that brought it. Workers do many mails at
once, so that a step of theirs becomes a span in the trace of every submission it was about, linked to the others. Where
no endpoint is set nothing is imported for it, and nothing is measured.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind

MOST = 64
"""Traces that one step is shown in: a batch may hold mail of hundreds of submissions."""

EXPORT_MILLISECONDS = 1_000

Attributes = Mapping[str, str | int | float | bool]


class TracesUnavailable(Exception):
    """Traces are asked for, but the libraries are not there. Its text says what to do."""


class Traces:
    """Makes and exports the spans of one process. To be opened after any fork; `close` sends what is left."""

    def __init__(self, endpoint: str, *, service: str, ratio: float) -> None:
        """endpoint: root of an OTLP/HTTP receiver. Raises TracesUnavailable."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            fix = "POSTROAD_OTEL_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'postroad[otel]'"
            raise TracesUnavailable(fix) from error
        resource = Resource.create({"service.name": service, "process.pid": os.getpid()})
        self._provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_MILLISECONDS))
        self._tracer = self._provider.get_tracer("postroad")
        self._propagator = TraceContextTextMapPropagator()

    def server(self, name: str, parent: str | None) -> "Span":
        """Begins the span of a request; ``parent`` is the caller's traceparent, ignored if it is none."""
        from opentelemetry.trace import SpanKind

        return self._start(name, parent, SpanKind.SERVER)

    def traceparent(self, span: "Span") -> str | None:
        """What continues a span elsewhere; None if it is not sampled, so that nobody spends time on it."""
        from opentelemetry.trace import set_span_in_context

        if not span.get_span_context().trace_flags.sampled:
            return None
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return carrier.get("traceparent")

    @contextmanager
    def step(self, name: str, parents: Iterable[str | None], attributes: Attributes) -> Iterator[None]:
        """Shows what happens inside as a span in each of the traces."""
        started = time.time_ns()
        try:
            yield
        finally:
            self.note(name, parents, attributes, started)

    def note(self, name: str, parents: Iterable[str | None], attributes: Attributes, started: int) -> None:
        """Shows what happened since ``started`` (`time.time_ns`) as a span in each of the traces."""
        from opentelemetry.trace import SpanKind

        distinct = list(dict.fromkeys(parent for parent in parents if parent))[:MOST]
        for parent in distinct:
            others = [each for each in distinct if each != parent]
            span = self._start(name, parent, SpanKind.CONSUMER, attributes, links=others, started=started)
            span.end()

    @contextmanager
    def request(self, name: str, parents: Iterable[str | None], attributes: Attributes) -> Iterator[str | None]:
        """The span of a request to somebody else, which concerns these traces; yields its traceparent.

        With one trace it is part of it; with several it begins its own and is linked to them.
        """
        from opentelemetry.trace import SpanKind

        distinct = list(dict.fromkeys(parent for parent in parents if parent))[:MOST]
        if not distinct:
            yield None
            return
        parent, links = (distinct[0], []) if len(distinct) == 1 else (None, distinct)
        span = self._start(name, parent, SpanKind.CLIENT, attributes, links=links)
        try:
            yield self.traceparent(span)
        finally:
            span.end()

    def _start(
        self,
        name: str,
        parent: str | None,
        kind: "SpanKind",
        attributes: Attributes | None = None,
        *,
        links: Iterable[str] = (),
        started: int | None = None,
    ) -> "Span":
        return self._tracer.start_span(
            name,
            context=self._context(parent),
            kind=kind,
            attributes=dict(attributes or {}),
            links=[self._link(each) for each in links],
            start_time=started,
        )

    def _context(self, traceparent: str | None) -> "Context":
        from opentelemetry.context import Context

        return self._propagator.extract({"traceparent": traceparent} if traceparent else {}, Context())

    def _link(self, traceparent: str) -> "Link":
        from opentelemetry.trace import Link, get_current_span

        return Link(get_current_span(self._context(traceparent)).get_span_context())

    def close(self) -> None:
        """Sends what was not sent yet, for some seconds at most."""
        self._provider.shutdown()


def open_traces(settings: Settings, service: str) -> Traces | None:
    """This process' traces; None where nobody wants any. Raises TracesUnavailable."""
    if not settings.otel_endpoint:
        return None
    return Traces(settings.otel_endpoint, service=service, ratio=settings.otel_ratio)
