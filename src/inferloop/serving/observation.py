"""What a server notes down of itself: metrics on a port of their own, traces, an access log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from inferloop.core.errors import NotFound
from inferloop.net.http import Request, Response, error_response
from inferloop.net.http_connection import Handler
from inferloop.serving.access import AccessLog
from inferloop.serving.services import Services
from inferloop.serving.spans import Spans
from inferloop.serving.tracing import OPENTELEMETRY, TIMESTAMPS, TraceSetting, Tracing

_METRICS = "/metrics"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class ObservationSettings:
    """What is noted down.

    Attributes:
        metrics_port: serves `GET /metrics` and nothing else; 0 takes a free one, None serves them on the REST port only.
        trace_folder: where clients may have files of traces written; None for nowhere.
        otel_endpoint: the base address of an OTLP/HTTP collector; empty sends spans only if OpenTelemetry's variables name one.
        trace_rate: with a collector, one of so many requests is traced.
        access_log: the file that gets a line for each request, `-` for stderr; empty for none.
    """

    metrics_port: int | None = None
    trace_folder: Path | None = None
    otel_endpoint: str = ""
    trace_rate: int = 1
    access_log: str = ""


@asynccontextmanager
async def observing(services: Services, settings: ObservationSettings) -> AsyncIterator[None]:
    """Put traces and access log into the services; what waits is written when it ends.

    Raises:
        InvalidInput: the access log cannot be written.
        MissingDependency: spans are asked for, and OpenTelemetry is not installed.
    """
    access = services.access = AccessLog(settings.access_log) if settings.access_log else None
    spans = Spans(settings.otel_endpoint) if settings.otel_endpoint or _is_named() else None
    setting = TraceSetting(TIMESTAMPS, settings.trace_rate, mode=OPENTELEMETRY) if spans is not None else None
    tracing = services.tracing = Tracing(settings.trace_folder, spans, setting, tally=services.tally)
    services.tracer = tracing if tracing.active else None
    try:
        yield
    finally:
        services.tracer = services.access = None
        await asyncio.to_thread(tracing.close)
        if access is not None:
            await asyncio.to_thread(access.close)


def metrics_only(handle: Callable[[Request], Awaitable[Response]]) -> Handler:
    """The application of the metrics port: what `handle` answers at /metrics, and nothing else."""

    async def answer(request: Request) -> Response:
        if request.path.rstrip("/") != _METRICS:
            return error_response(NotFound(f"nothing at {request.path!r}", hint="GET /metrics"))
        return await handle(request)

    return answer


def _is_named() -> bool:
    """Whether the environment names a collector, and does not say that nothing is to be sent."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(os.environ.get(name) for name in _ENDPOINTS)
