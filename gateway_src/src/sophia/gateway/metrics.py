# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of the gateway (names: docs/metrics.md).

Children are kept by label tuple: looking one up in a dictionary costs a tenth of `labels()` on the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sophia.gateway.slots import Slots

__all__ = ["CONTENT_TYPE", "STAGES", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("read", "auth", "limits", "plan", "cache", "budget", "ledger", "upstream", "settle")

_RESPONSE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)
_OVERHEAD_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


class Metrics:
    """One registry for one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "openrouter_requests",
            "Requests by the model that answered (or was asked for), status and tenant",
            ("model", "status", "tenant"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "openrouter_response_duration_seconds",
            "From the request's arrival to its answer's end",
            ("model",),
            buckets=_RESPONSE_BUCKETS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "sophia_first_token_seconds",
            "From the request's arrival to the first token passed on (streams)",
            ("model",),
            buckets=_RESPONSE_BUCKETS,
            registry=self.registry,
        )
        self._cost = Counter(
            "openrouter_cost_dollars", "Confirmed cost in USD", ("model", "tenant"), registry=self.registry
        )
        self.quality = Gauge(
            "openrouter_quality_score",
            "Quality score in force, by model and task",
            ("model", "task"),
            registry=self.registry,
        )
        self._tokens = Counter("sophia_tokens", "Tokens billed", ("model", "kind"), registry=self.registry)
        self._overhead = Histogram(
            "sophia_overhead_seconds",
            "Time spent in the gateway's own stages; `upstream` is the time waited for OpenRouter",
            ("stage",),
            buckets=_OVERHEAD_BUCKETS,
            registry=self.registry,
        )
        self._cache = Counter("sophia_cache_requests", "Cache look-ups by result", ("result",), registry=self.registry)
        self._attempts = Counter(
            "sophia_attempts",
            "Attempts sent upstream by model and how they ended",
            ("model", "result"),
            registry=self.registry,
        )
        self._broken_streams = Counter(
            "sophia_streams_broken",
            "Streams that did not end honestly upstream",
            ("model", "reason"),
            registry=self.registry,
        )
        self._refused = Counter(
            "sophia_refused", "Requests refused by the gateway itself, by code", ("code",), registry=self.registry
        )
        self.in_flight = Gauge("sophia_requests_in_flight", "Requests being served", registry=self.registry)
        self.overrun = Counter(
            "sophia_reservation_overrun_dollars", "Cost beyond what had been reserved", registry=self.registry
        )
        self.rates_away = Counter(
            "sophia_rates_away", "Times that rate limits were not kept because Redis was away", registry=self.registry
        )
        self._stages = {stage: self._overhead.labels(stage) for stage in STAGES}
        self._children: dict[tuple[Any, ...], Any] = {}

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def request(self, model: str, status: int, tenant: str, seconds: float) -> None:
        """A request has been answered."""
        self._child(self._requests, model, str(status), tenant).inc()
        self._child(self._duration, model).observe(seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """The first token of a stream has been passed on."""
        self._child(self._first_token, model).observe(seconds)

    def spent(self, model: str, tenant: str, nanos: int, prompt: int, completion: int) -> None:
        """A cost has been confirmed."""
        self._child(self._cost, model, tenant).inc(nanos / 1e9)
        self._child(self._tokens, model, "prompt").inc(prompt)
        self._child(self._tokens, model, "completion").inc(completion)

    def stage(self, stage: str, seconds: float) -> None:
        """Time spent in one of `STAGES`."""
        self._stages[stage].observe(seconds)

    def cache(self, result: str) -> None:
        """exact, semantic, miss or off."""
        self._child(self._cache, result).inc()

    def attempt(self, model: str, result: str) -> None:
        """An attempt has ended: ok, or the kind of its fault."""
        self._child(self._attempts, model, result).inc()

    def broken_stream(self, model: str, reason: str) -> None:
        """cut, stalled, malformed, error or empty."""
        self._child(self._broken_streams, model, reason).inc()

    def refused(self, code: str) -> None:
        """The gateway itself has refused a request."""
        self._child(self._refused, code).inc()

    def watch(
        self,
        slots: Slots,
        unsettled: Callable[[], tuple[int, int, int]],
        breakers: Callable[[], Iterable[tuple[str, str]]],
        catalogue_age: Callable[[], float],
    ) -> None:
        """Read at each scrape: key slots, ``(open, unconfirmed, unconfirmed nano-dollars)``, breakers, catalogue."""
        self.registry.register(_State(slots, unsettled, breakers, catalogue_age))

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _State(Collector):
    def __init__(
        self,
        slots: Slots,
        unsettled: Callable[[], tuple[int, int, int]],
        breakers: Callable[[], Iterable[tuple[str, str]]],
        catalogue_age: Callable[[], float],
    ) -> None:
        self._slots = slots
        self._unsettled = unsettled
        self._breakers = breakers
        self._catalogue_age = catalogue_age

    def collect(self) -> Iterable[GaugeMetricFamily]:
        loaded = GaugeMetricFamily(
            "openrouter_key_loaded", "1 for each key that is loaded, by slot and hash", labels=("slot", "hash")
        )
        for slot in self._slots.loaded.values():
            loaded.add_metric((slot.name, slot.hash), 1)
        yield loaded
        flying = GaugeMetricFamily("openrouter_key_in_flight", "Requests in flight on each key", labels=("hash",))
        for key_hash in {slot.hash for slot in self._slots.loaded.values()} | set(self._slots.in_flight):
            flying.add_metric((key_hash,), self._slots.in_flight[key_hash])
        yield flying
        opened, unconfirmed, amount = self._unsettled()
        unsettled = GaugeMetricFamily(
            "sophia_ledger_unsettled",
            "Attempts that are not settled: open, or ended with unknown cost",
            labels=("state",),
        )
        unsettled.add_metric(("open",), opened)
        unsettled.add_metric(("unconfirmed",), unconfirmed)
        yield unsettled
        yield GaugeMetricFamily(
            "sophia_ledger_unconfirmed_dollars", "Reserved for attempts whose cost is not confirmed", amount / 1e9
        )
        breakers = GaugeMetricFamily(
            "sophia_breaker_open", "1 for each model whose circuit breaker is not closed", labels=("model", "state")
        )
        for model, state in self._breakers():
            breakers.add_metric((model, state), 1)
        yield breakers
        yield GaugeMetricFamily(
            "sophia_catalogue_age_seconds", "Since OpenRouter's catalogue was last read", self._catalogue_age()
        )
