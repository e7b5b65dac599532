# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of the router (names: docs/model-router.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sophia.gateway.tally import Count, Spread

__all__ = ["CONTENT_TYPE", "Metrics", "Snapshot", "Standing"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)


class Standing(msgspec.Struct, frozen=True):
    """One backend at a scrape."""

    name: str
    state: str
    outstanding: int
    running: int


class Snapshot(msgspec.Struct, frozen=True):
    """What is read at a scrape."""

    queued: int
    queued_tokens: int
    backends: list[Standing]


class Metrics:
    """One registry for one process; touched from its event loop only."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Count(
            "sophia_router_requests",
            "Requests by model, where they were served (local, overflow, none) and status",
            ("model", "placement", "status"),
            registry,
        )
        self._first_token = Spread(
            "sophia_router_first_token_seconds",
            "From the request's arrival to the first byte of its answer passed on",
            ("model", "placement"),
            _SECONDS,
            registry,
        )
        self._queue_wait = Spread(
            "sophia_router_queue_wait_seconds",
            "Time in the queue of requests that left it served",
            (),
            _SECONDS,
            registry,
        )
        self._attempts = Count(
            "sophia_router_attempts", "Requests sent to backends and how they ended", ("backend", "result"), registry
        )
        self._overflow = Count(
            "sophia_router_overflow", "Requests given to the overflow, by reason", ("reason",), registry
        )
        self._refused = Count("sophia_router_refused", "Requests refused by the router, by code", ("code",), registry)
        self._affinity = Count(
            "sophia_router_affinity",
            "Requests by what became of their prefix: kept, spilled to another backend, or none",
            ("result",),
            registry,
        )
        self._broken_streams = Count(
            "sophia_router_streams_broken", "Streams that did not end honestly", ("backend", "reason"), registry
        )
        self._tokens = Count("sophia_router_tenant_tokens", "Tokens served locally, by tenant", ("tenant",), registry)

    def request(self, model: str, placement: str, status: int) -> None:
        """A request has been answered."""
        self._requests.add((model, placement, str(status)))

    def first_token(self, model: str, placement: str, seconds: float) -> None:
        """The answer begins."""
        self._first_token.observe((model, placement), seconds)

    def queued(self, seconds: float) -> None:
        """A request has left the queue for a backend."""
        self._queue_wait.observe((), seconds)

    def attempt(self, backend: str, result: str) -> None:
        """ok, client (a 4xx), refused, lost, stalled, failed (a 5xx), broken (a stream) or left (the client did)."""
        self._attempts.add((backend, result))

    def overflowed(self, reason: str) -> None:
        """full, slow, down or failed."""
        self._overflow.add((reason,))

    def refused(self, code: str) -> None:
        """The router itself has refused a request."""
        self._refused.add((code,))

    def affinity(self, result: str) -> None:
        """kept, spilled or none."""
        self._affinity.add((result,))

    def broken_stream(self, backend: str, reason: str) -> None:
        """cut, stalled, malformed or error."""
        self._broken_streams.add((backend, reason))

    def served(self, tenant: str, tokens: int) -> None:
        """Tokens of a request that has ended."""
        self._tokens.add((tenant,), tokens)

    def watch(self, snapshot: Callable[[], Snapshot]) -> None:
        """Read queue and backends at each scrape."""
        self.registry.register(_State(snapshot))

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _State(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now = self._snapshot()
        yield GaugeMetricFamily("sophia_router_queue_depth", "Requests that wait", now.queued)
        yield GaugeMetricFamily(
            "sophia_router_queue_tokens", "Estimated tokens of requests that wait", now.queued_tokens
        )
        outstanding = GaugeMetricFamily(
            "sophia_router_outstanding_tokens", "Estimated tokens still to be worked on", labels=("backend",)
        )
        running = GaugeMetricFamily("sophia_router_running", "Requests being served", labels=("backend",))
        up = GaugeMetricFamily("sophia_router_backend_up", "1 where requests may be sent", labels=("backend", "state"))
        for each in now.backends:
            outstanding.add_metric((each.name,), each.outstanding)
            running.add_metric((each.name,), each.running)
            up.add_metric((each.name, each.state), each.state == "up")
        yield from (outstanding, running, up)
