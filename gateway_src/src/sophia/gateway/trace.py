# SPDX-License-Identifier: GPL-3.0-or-later
"""Trace context in and out (W3C Trace Context), and spans for OpenTelemetry where an endpoint is configured.

Without an endpoint only the context is passed on, so that a trace goes through the gateway. Span names and
attributes follow OpenTelemetry's semantic conventions for generative AI; prompts and answers are never recorded.
"""

from __future__ import annotations

import random
import re
import time
from typing import Any

from sophia.gateway.asgi import Scope, header
from sophia.settings import TelemetrySettings, UpstreamSettings

__all__ = ["Span", "Tracer"]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ZERO_TRACE = "0" * 32
_ZERO_SPAN = "0" * 16


class Span:
    """One request's span: its identifiers, and the recording one where there is an exporter."""

    __slots__ = ("flags", "recording", "span", "state", "trace")

    def __init__(self, trace: str, span: str, flags: str, state: str | None, recording: Any = None) -> None:
        self.trace = trace
        self.span = span
        self.flags = flags
        self.state = state
        self.recording = recording

    def headers(self) -> dict[str, str]:
        """What goes upstream."""
        headers = {"traceparent": f"00-{self.trace}-{self.span}-{self.flags}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers


class Tracer:
    """Begins and ends spans."""

    def __init__(self, settings: TelemetrySettings, upstream: UpstreamSettings) -> None:
        self._fixed = {"x-openrouter-title": upstream.title} if upstream.title else {}
        if upstream.referer:
            self._fixed["http-referer"] = upstream.referer
        self._provider: Any = None
        self._tracer: Any = None
        if settings.otlp_endpoint is not None:
            self._provider = _provider(settings)
            self._tracer = self._provider.get_tracer("sophia.gateway")

    def begin(self, scope: Scope) -> Span:
        """The span of a request, child of what its headers name."""
        given = header(scope, b"traceparent")
        found = _TRACEPARENT.fullmatch(given) if given is not None else None
        if found is not None and (found[1] == _ZERO_TRACE or found[2] == _ZERO_SPAN):
            found = None
        state = header(scope, b"tracestate") if found is not None else None
        if self._tracer is not None:
            return _recorded(self._tracer, found, state)
        trace, flags = (found[1], found[3]) if found is not None else (f"{random.getrandbits(128):032x}", "00")
        return Span(trace, f"{random.getrandbits(64) or 1:016x}", flags, state)

    def outgoing(self, span: Span) -> dict[str, str]:
        """The headers of every request upstream: trace context and attribution."""
        return self._fixed | span.headers()

    def end(self, span: Span, attributes: dict[str, Any], error: str | None = None) -> None:
        """End the span with attributes by OpenTelemetry's names; `error` is a stable code."""
        recording = span.recording
        if recording is None:
            return
        for name, value in attributes.items():
            if value is not None:
                recording.set_attribute(name, value)
        recording.update_name(f"chat {attributes.get('gen_ai.request.model') or ''}".strip())
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            recording.set_attribute("error.type", error)
            recording.set_status(Status(StatusCode.ERROR, error))
        recording.end(time.time_ns())

    def close(self) -> None:
        """Send what is still queued."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider(settings: TelemetrySettings) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        resource=Resource.create({"service.name": settings.service_name}),
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        shutdown_on_exit=False,
    )
    endpoint = f"{str(settings.otlp_endpoint).rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


def _recorded(tracer: Any, found: re.Match[str] | None, state: str | None) -> Span:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

    context = None
    if found is not None:
        parent = SpanContext(
            int(found[1], 16),
            int(found[2], 16),
            is_remote=True,
            trace_flags=TraceFlags(int(found[3], 16)),
            trace_state=TraceState.from_header([state] if state else []),
        )
        context = trace.set_span_in_context(NonRecordingSpan(parent))
    recording = tracer.start_span("chat", context=context, kind=SpanKind.SERVER)
    own = recording.get_span_context()
    flags = f"{int(own.trace_flags):02x}"
    return Span(f"{own.trace_id:032x}", f"{own.span_id:016x}", flags, state, recording)
