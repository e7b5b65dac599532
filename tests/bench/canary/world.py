# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated traffic: requests, errors in bursts, costs, drift and spikes, as counts in bins of 15 s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BIN = 15


class Arrays(NamedTuple):
    """Counts of many runs: each of shape (runs, bins); as ``engines.Counts``."""

    n0: np.ndarray
    k0: np.ndarray
    n1: np.ndarray
    k1: np.ndarray

    def merged(self, bins: int) -> Arrays:
        """Return the counts of bins that are ``bins`` times as long."""
        return Arrays(*(item[:, : item.shape[1] // bins * bins].reshape(len(item), -1, bins).sum(2) for item in self))


@dataclass(frozen=True)
class World:
    """Poisson traffic at ``rps`` requests a second, of which the canary gets ``share``.

    Errors come in bursts: causes arrive independently and each makes a geometric number of errors, ``burst`` on
    average, in its arm and bin. ``ratio`` is how much worse the canary is: by more causes, or by larger bursts
    (``larger``); ``canary_burst`` is its burst where that differs with the rate unchanged. ``profile`` "drift" is a
    cycle in load (half) and error rate (four fifths) with spikes of eight times the errors for a minute in both arms.
    A part ``straddle`` of the bursts lies across two bins. ``cost`` is the sigma of log-normal costs with a mean of 1
    for the baseline: then ``k`` is a sum of costs.
    """

    rps: float = 50.0
    share: float = 0.2
    rate: float = 0.005
    ratio: float = 1.0
    burst: float = 1.0
    larger: bool = False
    canary_burst: float | None = None
    profile: str = "flat"
    straddle: float = 0.0
    cost: float | None = None
    bins: int = 480

    def draw(self, rng: np.random.Generator, runs: int) -> Arrays:
        """Return the counts of ``runs`` independent runs."""
        load, errors = self._profile()
        n0, k0 = self._arm(rng, runs, (1 - self.share) * load, self.rate * errors, self.burst, 1.0)
        burst = self.canary_burst or (self.burst * self.ratio if self.larger else self.burst)
        n1, k1 = self._arm(rng, runs, self.share * load, self.rate * self.ratio * errors, burst, self.ratio)
        return Arrays(n0, k0, n1, k1)

    def _profile(self) -> tuple[np.ndarray, np.ndarray]:
        load, errors = np.ones(self.bins), np.ones(self.bins)
        if self.profile == "drift":
            time = np.arange(self.bins)
            load = 1 + 0.5 * np.sin(4 * np.pi * time / self.bins)
            errors = 1 + 0.8 * np.sin(2 * np.pi * time / self.bins)
            for start in range(10, self.bins, 60):
                errors[start : start + 4] *= 8
        return load, errors

    def _arm(
        self, rng: np.random.Generator, runs: int, load: np.ndarray, rate: np.ndarray, burst: float, dearness: float
    ) -> tuple[np.ndarray, np.ndarray]:
        n = rng.poisson(self.rps * BIN * load, (runs, self.bins))
        if self.cost is not None:
            return n.astype(float), dearness * _log_normal_sums(rng, n, self.cost)
        causes = rng.poisson(n * np.minimum(rate, 0.9) / burst)
        across = rng.binomial(causes, self.straddle) if self.straddle else np.zeros_like(causes)
        k = _errors(rng, causes - across, burst)
        if self.straddle:
            errors = _errors(rng, across, burst)
            here = rng.binomial(errors, 0.5)
            k += here
            k[:, 1:] += (errors - here)[:, :-1]
        return n.astype(float), np.minimum(k, n).astype(float)


@dataclass(frozen=True)
class Slow:
    """Frequent events, one a request at most: the ratio of slow requests. ``rate`` is the baseline's."""

    rps: float = 50.0
    share: float = 0.2
    rate: float = 0.1
    ratio: float = 1.0
    bins: int = 480

    def draw(self, rng: np.random.Generator, runs: int) -> Arrays:
        n0 = rng.poisson(self.rps * BIN * (1 - self.share), (runs, self.bins))
        n1 = rng.poisson(self.rps * BIN * self.share, (runs, self.bins))
        k0, k1 = rng.binomial(n0, self.rate), rng.binomial(n1, self.rate * self.ratio)
        return Arrays(*(item.astype(float) for item in (n0, k0, n1, k1)))


def _errors(rng: np.random.Generator, causes: np.ndarray, burst: float) -> np.ndarray:
    """Return the sum of as many geometric numbers (from 1, ``burst`` on average) as there are causes."""
    if burst <= 1:
        return causes.copy()
    return causes + np.where(causes > 0, rng.negative_binomial(np.maximum(causes, 1), 1 / burst), 0)


def _log_normal_sums(rng: np.random.Generator, n: np.ndarray, sigma: float) -> np.ndarray:
    ends = np.cumsum(n.ravel())
    sums = np.concatenate([[0.0], np.cumsum(rng.lognormal(-sigma * sigma / 2, sigma, int(ends[-1])))])
    return (sums[ends] - sums[ends - n.ravel()]).reshape(n.shape)
