# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of the gateway (names: docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sophia.gateway.cache import CacheCounts
from sophia.gateway.shadow import ShadowCounts
from sophia.gateway.slots import Slots
from sophia.gateway.tally import Count, Spread

__all__ = ["CONTENT_TYPE", "STAGES", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("read", "auth", "limits", "plan", "cache", "queue", "budget", "ledger", "upstream", "settle")

_RESPONSE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)
_OVERHEAD_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


class Metrics:
    """One registry for one process; touched from its event loop only."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Count(
            "openrouter_requests",
            "Requests by the model that answered (or was asked for), status and tenant",
            ("model", "status", "tenant"),
            registry,
        )
        self._duration = Spread(
            "openrouter_response_duration_seconds",
            "From the request's arrival to its answer's end",
            ("model",),
            _RESPONSE_BUCKETS,
            registry,
        )
        self._first_token = Spread(
            "sophia_first_token_seconds",
            "From the request's arrival to the first token passed on (streams)",
            ("model",),
            _RESPONSE_BUCKETS,
            registry,
        )
        self._cost = Count("openrouter_cost_dollars", "Confirmed cost in USD", ("model", "tenant"), registry)
        self.quality = Gauge(
            "openrouter_quality_score",
            "Quality score in force, by model and task",
            ("model", "task"),
            registry=registry,
        )
        self._tokens = Count("sophia_tokens", "Tokens billed", ("model", "kind"), registry)
        self._overhead = Spread(
            "sophia_overhead_seconds",
            "Time spent in the gateway's own stages; `upstream` is the time waited for OpenRouter",
            ("stage",),
            _OVERHEAD_BUCKETS,
            registry,
        )
        self._cache = Count("sophia_cache_requests", "Cache look-ups by result", ("result",), registry)
        self._idempotency = Count(
            "sophia_idempotency", "Requests with an idempotency key, by what became of them", ("result",), registry
        )
        self._attempts = Count(
            "sophia_attempts", "Attempts sent upstream by model and how they ended", ("model", "result"), registry
        )
        self._hedges = Count(
            "sophia_hedges", "Late attempts that might be hedged, by what came of it", ("model", "result"), registry
        )
        self._broken_streams = Count(
            "sophia_streams_broken", "Streams that did not end honestly upstream", ("model", "reason"), registry
        )
        self._refused = Count("sophia_refused", "Requests refused by the gateway itself, by code", ("code",), registry)
        self._overrun = Count("sophia_reservation_overrun_dollars", "Cost beyond what had been reserved", (), registry)
        self._overrun.add((), 0)
        self._rates_away = Count(
            "sophia_rates_away", "Times that rate limits were not kept because Redis was away", (), registry
        )
        self._rates_away.add((), 0)
        self._drift = Gauge(
            "sophia_spend_drift_dollars",
            "What the last three-way match found booked wrongly, in USD",
            registry=registry,
        )
        self._match_ok = Gauge("sophia_spend_match_ok", "Whether the last three-way match agreed", registry=registry)
        self._match_time = Gauge(
            "sophia_spend_match_timestamp_seconds", "When the last three-way match was made", registry=registry
        )
        self.in_flight = 0
        Gauge("sophia_requests_in_flight", "Requests being served", registry=registry).set_function(
            lambda: self.in_flight
        )

    def request(self, model: str, status: int, tenant: str, seconds: float) -> None:
        """A request has been answered."""
        self._requests.add((model, str(status), tenant))
        self._duration.observe((model,), seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """The first token of a stream has been passed on."""
        self._first_token.observe((model,), seconds)

    def spent(self, model: str, tenant: str, nanos: int, prompt: int, completion: int) -> None:
        """A cost has been confirmed."""
        self._cost.add((model, tenant), nanos / 1e9)
        self._tokens.add((model, "prompt"), prompt)
        self._tokens.add((model, "completion"), completion)

    def stage(self, stage: str, seconds: float) -> None:
        """Time spent in one of `STAGES`."""
        self._overhead.observe((stage,), seconds)

    def cache(self, result: str) -> None:
        """exact, semantic, miss or off."""
        self._cache.add((result,))

    def idempotency(self, result: str) -> None:
        """first, replayed, or the reason of a refusal."""
        self._idempotency.add((result,))

    def hedge(self, model: str, result: str) -> None:
        """A late attempt's twin won or lost, or there was none: capped, unaffordable."""
        self._hedges.add((model, result))

    def attempt(self, model: str, result: str) -> None:
        """An attempt has ended: ok, or the kind of its fault."""
        self._attempts.add((model, result))

    def broken_stream(self, model: str, reason: str) -> None:
        """cut, stalled, malformed, error, empty or expired."""
        self._broken_streams.add((model, reason))

    def refused(self, code: str) -> None:
        """The gateway itself has refused a request."""
        self._refused.add((code,))

    def overrun(self, nanos: int) -> None:
        """A settlement was larger than its reservation."""
        self._overrun.add((), nanos / 1e9)

    def matched(self, drift: int, ok: bool, at: int) -> None:
        """A three-way match was made: what it found booked wrongly (nano-dollars), and when (ns)."""
        self._drift.set(drift / 1e9)
        self._match_ok.set(ok)
        self._match_time.set(at / 1e9)

    def rates_away(self) -> None:
        """Rate limits were not kept."""
        self._rates_away.add(())

    def watch_queue(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """Show how many requests wait for a turn: interactive and batch."""
        depth = Gauge("sophia_queue_depth", "Requests that wait for their turn", ("class",), registry=self.registry)
        depth.labels("interactive").set_function(lambda: waiting()[0])
        depth.labels("batch").set_function(lambda: waiting()[1])

    def watch(
        self,
        slots: Slots,
        unsettled: Callable[[], tuple[int, int, int]],
        breakers: Callable[[], Iterable[tuple[str, str]]],
        catalogue_age: Callable[[], float],
    ) -> None:
        """Read at each scrape: key slots, ``(open, unconfirmed, unconfirmed nano-dollars)``, breakers, catalogue."""
        self.registry.register(_State(slots, unsettled, breakers, catalogue_age))

    def watch_cache(self, counts: CacheCounts, shadow: ShadowCounts) -> None:
        """Read at each scrape: what the cache has saved, joined and refused, and what its checks came to."""
        self.registry.register(_CacheState(counts, shadow))

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


class _CacheState(Collector):
    def __init__(self, counts: CacheCounts, shadow: ShadowCounts) -> None:
        self._counts = counts
        self._shadow = shadow

    def collect(self) -> Iterable[CounterMetricFamily]:
        counts = self._counts
        for name, text, value in (
            (
                "sophia_cache_saved_dollars",
                "What answers from the cache had cost when they were made",
                counts.saved / 1e9,
            ),
            ("sophia_cache_coalesced", "Hits of requests that waited for the same one under way", counts.coalesced),
            (
                "sophia_cache_failures",
                "Times that a cache store or the embedder did not answer",
                counts.store_failures + counts.embedding_failures,
            ),
            (
                "sophia_cache_thresholds_proven",
                "Times that checks have proven a threshold, or a lower one, from which near answers are then served",
                self._shadow.proven,
            ),
            (
                "sophia_cache_thresholds_switched_off",
                "Times that what was served failed its bound and was switched off",
                self._shadow.switched_off,
            ),
        ):
            yield CounterMetricFamily(name, text, value)
        objections = CounterMetricFamily(
            "sophia_cache_objections", "Near questions that a guard told apart, by reason", labels=("reason",)
        )
        for reason, count in counts.objections.items():
            objections.add_metric((reason,), count)
        yield objections
        checks = CounterMetricFamily(
            "sophia_cache_checks",
            "Near answers compared with fresh ones, by result: same or different",
            labels=("result",),
        )
        for result in ("same", "different"):
            checks.add_metric((result,), self._shadow.checks[result])
        yield checks
