"""Traced requests as spans of OpenTelemetry, sent over OTLP/HTTP. Needs `inferloop[otel]`.

The settings of the environment hold, as OpenTelemetry names them: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_BSP_*.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inferloop.core.errors import MissingDependency
from inferloop.prediction.timeline import Timeline

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

REQUEST, QUEUE, COMPUTE = "inferloop.request", "inferloop.queue", "inferloop.compute"
_TRACES = "/v1/traces"


class Spans:
    """Makes a span of each traced request, with one for the queue and one for the engine below it. Event loop only.

    Args:
        endpoint: the base address of a collector, `http://127.0.0.1:4318`; empty takes the environment's.
        exporter: where the spans go instead.

    Raises:
        MissingDependency: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str = "", *, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingDependency("OpenTelemetry is not installed", hint="pip install 'inferloop[otel]'") from error
        named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "inferloop"}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _otlp(endpoint)))
        self._tracer = self._provider.get_tracer("inferloop")
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def record(
        self, model: str, version: str, *, start_ns: int, end_ns: int, parent: str, timeline: Timeline, error: str
    ) -> None:
        """One request that is over.

        Args:
            model: its name.
            version: its number; 0 if none was chosen.
            start_ns: when it came in, nanoseconds since the epoch.
            end_ns: when its answer was there.
            timeline: where it was meanwhile.
            parent: the caller's `traceparent`; empty or broken begins a new trace.
            error: the status of gRPC that it failed with; empty if it did not.
        """
        context = self._propagator.extract({"traceparent": parent}) if parent else None
        facts: dict[str, str | int] = {"inferloop.model": model, "inferloop.version": version}
        if timeline.batch_rows:
            facts["inferloop.batch_rows"] = timeline.batch_rows
        kind = self._trace.SpanKind.SERVER
        span = self._tracer.start_span(REQUEST, context, kind=kind, attributes=facts, start_time=start_ns)
        if error:
            span.set_status(self._trace.StatusCode.ERROR, error)
        below = self._trace.set_span_in_context(span)
        queued, started, ended = timeline.queue_start_ns, timeline.compute_start_ns, timeline.compute_end_ns
        if queued:
            self._tracer.start_span(QUEUE, below, start_time=queued).end(started or end_ns)
        if started:
            self._tracer.start_span(COMPUTE, below, start_time=started).end(ended or end_ns)
        span.end(end_ns)

    def flush(self) -> None:
        """Send what waits. Blocks, up to 30 s where nobody listens."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what waits, and end. Blocks as `flush`."""
        self._provider.shutdown()


def _otlp(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingDependency("the OTLP exporter is not installed", hint="pip install 'inferloop[otel]'") from error
    if not endpoint:
        return OTLPSpanExporter()
    return OTLPSpanExporter(endpoint=endpoint if endpoint.endswith(_TRACES) else endpoint.rstrip("/") + _TRACES)
