# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters and histograms for one event loop: plain numbers, rendered by `prometheus_client` at each scrape.

`prometheus_client`'s own take a lock for every increment and look children up by label strings, a few microseconds
each; the hot path increments some twenty of them. These must be touched from one thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["Count", "Spread"]


class Count(Collector):
    """A counter by labels. `add` takes the label values as one tuple."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._values: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        """Count."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def describe(self) -> Iterable[CounterMetricFamily]:
        """The family without its samples, for the registry."""
        return [CounterMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The family as it stands."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return [family]


class _Cells:
    __slots__ = ("counts", "total")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.total = 0.0


class Spread(Collector):
    """A histogram by labels, with fixed upper bounds."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = tuple(bounds)
        self._cells: dict[tuple[str, ...], _Cells] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Note a value."""
        cells = self._cells.get(labels)
        if cells is None:
            cells = self._cells[labels] = _Cells(len(self._bounds) + 1)
        cells.counts[bisect_left(self._bounds, value)] += 1
        cells.total += value

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The family without its samples, for the registry."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The family as it stands."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, cells in self._cells.items():
            buckets: list[tuple[str, float]] = []
            sum_so_far = 0
            for bound, count in zip([*map(str, map(float, self._bounds)), "+Inf"], cells.counts, strict=True):
                sum_so_far += count
                buckets.append((bound, sum_so_far))
            family.add_metric(labels, buckets, cells.total)
        return [family]
