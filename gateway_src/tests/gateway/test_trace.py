# SPDX-License-Identifier: GPL-3.0-or-later
"""Trace context goes through, and spans reach an OTLP endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sophia.gateway.trace import Tracer
from sophia.settings import TelemetrySettings, UpstreamSettings

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]}


def test_context_is_passed_on_without_an_exporter() -> None:
    tracer = Tracer(TelemetrySettings(), UpstreamSettings(referer="https://sophia.example", title="Sophia"))
    span = tracer.begin(scope(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1"))
    sent = tracer.outgoing(span)
    version, trace, own, flags = sent["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert own != PARENT
    assert len(own) == 16
    assert sent["tracestate"] == "vendor=1"
    assert sent["http-referer"] == "https://sophia.example"


@pytest.mark.parametrize(
    "given", ["", "garbage", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}"]
)
def test_a_bad_context_is_replaced(given: str) -> None:
    tracer = Tracer(TelemetrySettings(), UpstreamSettings())
    sent = tracer.outgoing(tracer.begin(scope(traceparent=given, tracestate="vendor=1")))
    assert len(sent["traceparent"]) == 55
    assert TRACE not in sent["traceparent"]
    assert "tracestate" not in sent


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_are_exported(collector: tuple[str, list[ExportTraceServiceRequest]]) -> None:
    url, received = collector
    tracer = Tracer(TelemetrySettings(otlp_endpoint=url), UpstreamSettings())
    span = tracer.begin(scope(traceparent=f"00-{TRACE}-{PARENT}-01"))
    assert tracer.outgoing(span)["traceparent"].startswith(f"00-{TRACE}-")
    attributes = {"gen_ai.request.model": "openai/gpt-4o", "http.response.status_code": 502, "sophia.request": None}
    tracer.end(span, attributes, "upstream_failed")
    tracer.close()
    (exported,) = [
        each
        for request in received
        for resource in request.resource_spans
        for group in resource.scope_spans
        for each in group.spans
    ]
    assert exported.trace_id.hex() == TRACE
    assert exported.parent_span_id.hex() == PARENT
    assert exported.name == "chat openai/gpt-4o"
    found = {each.key: each.value for each in exported.attributes}
    assert found["http.response.status_code"].int_value == 502
    assert found["error.type"].string_value == "upstream_failed"
    assert "sophia.request" not in found
