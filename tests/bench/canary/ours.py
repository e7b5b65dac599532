# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's own rule on many runs at once. ``test_canary_bench.py`` holds it to the module's engines, bin by bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ansible_collections.sophia.platform.plugins.module_utils._canary import engines, plan
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import ANY, MEAN, Metric, Settings

from .world import Arrays

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Outcome:
    """The bin (from 0) after which each run would first have rolled back and been promoted; NEVER if not."""

    rollback: np.ndarray
    promote: np.ndarray

    @property
    def rolled_back(self) -> np.ndarray:
        return (self.rollback < NEVER) & (self.rollback <= self.promote)

    @property
    def promoted(self) -> np.ndarray:
        return (self.promote < NEVER) & (self.promote < self.rollback)

    @property
    def decided(self) -> np.ndarray:
        return np.minimum(self.rollback, self.promote)


class Wealth:
    """Many e-processes side by side: ``engines.Evidence`` for arrays."""

    def __init__(self, runs: int) -> None:
        self.wealth = np.zeros((runs, 1))

    def add(self, factors: np.ndarray, where: np.ndarray) -> None:
        self.wealth = self.wealth + np.where(where[:, None], factors, 0.0)

    @property
    def log(self) -> np.ndarray:
        return log_mean(self.wealth)


def log_mean(logs: np.ndarray) -> np.ndarray:
    top = logs.max(-1)
    return top + np.log(np.exp(logs - top[..., None]).mean(-1))


def share(n0: np.ndarray, n1: np.ndarray, ratio: float) -> np.ndarray:
    return ratio * n1 / np.maximum(ratio * n1 + n0, 1e-300)


def linear(bets: Sequence[float], gain: np.ndarray, risk: np.ndarray, valid: np.ndarray) -> np.ndarray:
    most = engines.STAKE / np.maximum(risk, 1e-300)
    factors = np.log1p(np.minimum(np.array(bets), most[:, None]) * np.where(valid, gain, 0.0)[:, None])
    return factors


def relative(seen: np.ndarray, expected: np.ndarray, valid: np.ndarray) -> np.ndarray:
    valid = valid & (expected > 0)
    excess = np.where(valid, np.minimum(seen / np.where(valid, expected, 1.0) - 1.0, engines.EXCESS), 0.0)
    return np.log1p(engines.STAKE * np.array(engines.STAKES) * excess[:, None])


def worse(n0, k0, n1, k1, ratio):
    expected = share(n0, n1, ratio) * (k0 + k1)
    return linear(engines.WORSE_BETS, k1 - expected, expected, np.minimum(n0, n1) > 0)


def better(n0, k0, n1, k1, ratio):
    expected = share(n0, n1, ratio) * (k0 + k1)
    return linear(engines.BETTER_BETS, expected - k1, k0 + k1 - expected, np.minimum(n0, n1) > 0)


def worse_mean(n0, k0, n1, k1, ratio):
    return relative(k1, share(n0, n1, ratio) * (k0 + k1), np.minimum(n0, n1) > 0)


def capped(n0, k0, n1, k1, ratio, largest, sign):
    bets = sign * np.array(engines.CAPPED_BETS)
    theta = share(n0, n1, ratio)
    factors = bets * (k1 / largest)[:, None] - ((k0 + k1) / largest)[:, None] * np.log1p(theta[:, None] * np.expm1(bets))
    return np.where((np.minimum(n0, n1) > 0)[:, None], factors, 0.0)


def above(n, k, limit):
    return relative(k, n * limit, np.ones(len(n), bool))


def below(n, k, limit, largest):
    bets = np.array(engines.CAPPED_BETS)
    return (-bets * k[:, None] - (n * limit)[:, None] * np.expm1(-bets)) / largest


def worse_of(metric: Metric, counts):
    if metric.kind == MEAN:
        return worse_mean(*counts, metric.tolerance)
    if metric.bursts == ANY:
        return capped(*counts, metric.tolerance, metric.largest, 1.0)
    return worse(*counts, metric.tolerance)


def better_of(metric: Metric, counts):
    if metric.kind == MEAN or metric.bursts == ANY:
        return capped(*counts, metric.ratio, metric.largest, -1.0)
    return better(*counts, metric.ratio)


class Rule:
    """The module's rule for one rollout of many runs; the stages are fed one after the other."""

    def __init__(self, settings: Settings, runs: int) -> None:
        self.settings = settings
        self.runs = runs
        self._bar_rollback = -np.log(plan.SLACK * settings.alpha_rollback)
        self._bar_promote = -np.log(plan.SLACK * settings.alpha_promote)
        self._started: list[list[tuple[Wealth, Wealth, Wealth]]] = []

    def stage(self, seen: Sequence[Arrays], live: np.ndarray, stop: bool) -> Outcome:
        """Feed a stage's counts, one ``Arrays`` a metric; only runs that are ``live`` take part.

        With ``stop`` a run takes nothing in after its first decision; without it, both tests go on to the end, which
        shows how often each would ever have been wrong.
        """
        settings, runs = self.settings, self.runs
        self._started.append([
            (Wealth(runs), Wealth(runs), Wealth(runs)) for _item in settings.metrics
        ])
        good = [
            (Wealth(runs), Wealth(runs), Wealth(runs)) for _item in settings.metrics
        ]
        requests = [np.zeros(runs) for _item in settings.metrics]
        bins = [np.zeros(runs) for _item in settings.metrics]
        rollback, promote = np.full(runs, NEVER), np.full(runs, NEVER)
        live = live.copy()
        for time in range(seen[0].n0.shape[1]):
            fine = np.ones(runs, bool)
            for index, metric in enumerate(settings.metrics):
                counts = [item[:, time] for item in seen[index]]
                usable = ~((counts[2] <= 0) & (counts[0] > 0))
                fine &= usable
                requests[index] += counts[2]
                bins[index] += usable
                self._add(index, metric, counts, good[index], live & usable)
            rolled = live & (self._rollback_log() >= self._bar_rollback)
            for index, metric in enumerate(settings.metrics):
                fine &= requests[index] >= settings.min_requests
                fine &= bins[index] >= settings.min_bins
                fine &= self._promote_log(metric, good[index]) >= self._bar_promote
            rollback[rolled & (rollback == NEVER)] = time
            promoted = live & fine & ~(rolled & stop)
            promote[promoted & (promote == NEVER)] = time
            if stop:
                live &= ~(rolled | promoted)
                if not live.any():
                    break
        return Outcome(rollback, promote)

    def _add(self, index, metric: Metric, counts, good, where) -> None:
        _n0, _k0, n1, k1 = counts
        bad: list[np.ndarray | None] = [None, None, None]
        if metric.ratio is not None:
            bad[0] = worse_of(metric, counts)
            good[0].add(better_of(metric, counts), where)
        for place, limit in ((1, metric.floor), (2, metric.limit)):
            if limit is not None:
                bad[place] = above(n1, k1, limit)
                good[place].add(below(n1, k1, limit, metric.largest), where)
        for stage in self._started:
            for place, factors in enumerate(bad):
                if factors is not None:
                    stage[index][place].add(factors, where)

    def _rollback_log(self) -> np.ndarray:
        tests = []
        waiting = [np.zeros(self.runs)] * (len(self.settings.stages) - len(self._started))
        for index, metric in enumerate(self.settings.metrics):
            if metric.ratio is not None:
                logs = [
                    stage[index][0].log if metric.floor is None else np.minimum(stage[index][0].log, stage[index][1].log)
                    for stage in self._started
                ]
                tests.append(log_mean(np.stack(logs + waiting, -1)))
            if metric.limit is not None:
                tests.append(log_mean(np.stack([stage[index][2].log for stage in self._started] + waiting, -1)))
        return log_mean(np.stack(tests, -1))

    @staticmethod
    def _promote_log(metric: Metric, good) -> np.ndarray:
        needed = []
        if metric.ratio is not None:
            logs = good[0].log
            needed.append(logs if metric.floor is None else log_mean(np.stack([logs, good[1].log], -1)))
        if metric.limit is not None:
            needed.append(good[2].log)
        return np.minimum.reduce(needed)
