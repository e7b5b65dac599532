# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in counts, under the server's names (vLLM docs, "Production Metrics", V1 engine)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .engine import Engine, Sequence

__all__ = ["Figures"]

_LABELS = ("model_name", "engine")
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_WHOLE = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)


class Figures:
    """One registry for one stand-in."""

    def __init__(self, model: str) -> None:
        self.registry = registry = CollectorRegistry()
        self._model = model
        values = (model, "0")

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, _LABELS, registry=registry)

        self._queries = counter("vllm:prefix_cache_queries", "Prefix cache queries, in tokens").labels(*values)
        self._hits = counter("vllm:prefix_cache_hits", "Prefix cache hits, in tokens").labels(*values)
        self._prompt = counter("vllm:prompt_tokens", "Prefill tokens processed").labels(*values)
        self._generated = counter("vllm:generation_tokens", "Generation tokens processed").labels(*values)
        self._success = Counter(
            "vllm:request_success", "Successfully processed requests", (*_LABELS, "finished_reason"), registry=registry
        )
        self._first = Histogram(
            "vllm:time_to_first_token_seconds", "Time to first token", _LABELS, buckets=_FIRST, registry=registry
        ).labels(*values)
        self._whole = Histogram(
            "vllm:e2e_request_latency_seconds", "End-to-end latency", _LABELS, buckets=_WHOLE, registry=registry
        ).labels(*values)
        self.aborted = 0

    def watch(self, engine: Engine) -> None:
        """Read the engine's state at each scrape."""
        self.registry.register(_State(engine, (self._model, "0")))

    def admitted(self, sequence: Sequence) -> None:
        """A sequence has come into the batch."""
        self._queries.inc(sequence.prompt_tokens)
        self._hits.inc(sequence.cached)
        self._prompt.inc(sequence.prompt_tokens)

    def token(self, sequence: Sequence) -> None:
        """A token has been decoded."""
        self._generated.inc()
        if sequence.given == 1:
            self._first.observe(time.monotonic() - sequence.arrived)

    def ended(self, sequence: Sequence, reason: str) -> None:
        """stop, length or abort."""
        self._success.labels(self._model, "0", reason).inc()
        if reason == "abort":
            self.aborted += 1
        else:
            self._whole.observe(time.monotonic() - sequence.arrived)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _State(Collector):
    def __init__(self, engine: Engine, values: tuple[str, str]) -> None:
        self._engine = engine
        self._values = values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        engine = self._engine
        for name, text, value in (
            ("vllm:num_requests_running", "Requests in model execution batches", len(engine.running)),
            ("vllm:num_requests_waiting", "Requests waiting to be processed", len(engine.waiting)),
            ("vllm:kv_cache_usage_perc", "KV-cache usage; 1 is all of it", engine.blocks.held / engine.blocks.total),
        ):
            family = GaugeMetricFamily(name, text, labels=_LABELS)
            family.add_metric(self._values, value)
            yield family
