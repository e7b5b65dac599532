# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers' rules on the same counts, and the rules that were considered and dropped.

After the peers' sources: Flagger ``pkg/controller/scheduler_metrics.go``, Argo Rollouts ``docs/features/analysis.md``
and ``metricproviders/prometheus``, Kayenta ``MannWhitneyClassifier.scala`` and ``NetflixACAJudge.scala``. The canary's
share is held still, so that all see the same traffic.
"""

from __future__ import annotations

import numpy as np

from .ours import NEVER, Outcome, log_mean, share
from .world import BIN, Arrays

MINUTE = 60 // BIN
SUCCESS = 0.99


def flagger(seen: Arrays, threshold: int = 5, steps: int = 5) -> Outcome:
    """A check a minute on the canary alone: 5 failed ones roll back, 5 good ones walk the weight to its maximum.

    No value (no requests) halts the advancement and counts as a failed check.
    """
    minute = seen.merged(MINUTE)
    good = (minute.n1 > 0) & (minute.k1 <= (1 - SUCCESS) * minute.n1)
    return _outcome((~good).cumsum(1) >= threshold, good.cumsum(1) >= steps, MINUTE)


def argo(seen: Arrays, count: int = 5, limit: int = 3) -> Outcome:
    """An analysis of 5 measurements, a minute apart; it fails when more than ``failureLimit`` of them fail.

    No requests make the query NaN, and NaN does not meet the success condition.
    """
    minute = seen.merged(MINUTE)
    failed = ~((minute.n1 > 0) & (minute.k1 <= (1 - SUCCESS) * minute.n1))
    failures = failed[:, :count].cumsum(1)
    over = np.zeros(failed.shape, bool)
    over[:, :count] = failures > limit
    done = np.zeros(failed.shape, bool)
    done[:, count - 1] = failures[:, -1] <= limit
    return _outcome(over, done, MINUTE)


def kayenta(seen: Arrays, every: int = 5, intervals: int = 12) -> Outcome:
    """A judgement every 5 minutes for an hour on all minutes so far; the first High ends it, the last Pass promotes.

    High: the lower limit of the 98 % Mann-Whitney interval of the shift is above a quarter of its Hodges-Lehmann
    estimate. Minutes without requests have no sample. Of tied data Kayenta makes untied data by adding noise; here
    they pass.
    """
    minute = seen.merged(MINUTE)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = minute.k0 / minute.n0, minute.k1 / minute.n1
    runs, bins = rates[0].shape
    high = np.zeros((runs, bins), bool)
    passed = np.zeros((runs, bins), bool)
    for look in range(1, intervals + 1):
        end = look * every
        for start in range(0, runs, 250):
            part = slice(start, start + 250)
            high[part, end - 1] = _mann_whitney_high(rates[0][part, :end], rates[1][part, :end])
    passed[:, intervals * every - 1] = True
    return _outcome(high, passed, MINUTE)


def _mann_whitney_high(control: np.ndarray, canary: np.ndarray) -> np.ndarray:
    """Say for each run whether the canary is classified High (normal approximation of the interval's ranks)."""
    runs, size = control.shape
    shifts = (canary[:, :, None] - control[:, None, :]).reshape(runs, -1)
    m, n = (~np.isnan(canary)).sum(1), (~np.isnan(control)).sum(1)
    pairs = m * n
    shifts.sort(1)  # NaN sorts last
    rank = np.floor(pairs / 2 - 2.3263 * np.sqrt(pairs * (m + n + 1) / 12)).astype(int)
    rows = np.arange(runs)
    lower = np.where(rank >= 1, shifts[rows, np.clip(rank - 1, 0, size * size - 1)], -np.inf)
    estimate = (shifts[rows, np.maximum((pairs - 1) // 2, 0)] + shifts[rows, np.minimum(pairs // 2, size * size - 1)]) / 2
    return (pairs > 0) & (lower > 0.25 * np.nan_to_num(estimate))


def z_tests(seen: Arrays, ratio: float, every: int = 2, alpha_z: float = 1.6449) -> Outcome:
    """Two one-sided z-tests at 5 %, looked at every 30 s as if each look were the only one; from 200 requests on."""
    n0, k0, n1, k1 = (item.cumsum(1) for item in seen)
    with np.errstate(invalid="ignore", divide="ignore"):
        p0, p1 = k0 / n0, k1 / n1
        pooled = (k0 + k1) / (n0 + n1)
        worse = (p1 - p0) / np.sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n1))
        better = (p1 - ratio * p0) / np.sqrt(p1 * (1 - p1) / n1 + ratio * ratio * p0 * (1 - p0) / n0)
    looked = (np.arange(n0.shape[1]) % every == every - 1) & (n1 >= 200)
    return _outcome(looked & (np.nan_to_num(worse) >= alpha_z), looked & (np.nan_to_num(better) <= -alpha_z), 1)


RATIOS = np.geomspace(1.15, 12, 8)


def counts(seen: Arrays, ratio: float, dispersed: bool = False, alpha: float = 0.05) -> Outcome:
    """The conditional count e-process (after Lindon and Malek 2022), which takes errors for independent.

    ``dispersed`` divides the evidence by 1.3 times the dispersion measured so far, from the fifth bin on.
    """
    scale = 1.3 * _phi(seen) if dispersed else np.ones(seen.k0.shape)
    logs = []
    for null, others in ((1.0, RATIOS), (ratio, ratio / RATIOS)):
        base = share(seen.n0, seen.n1, null)
        steps = []
        for other in others:
            theta = share(seen.n0, seen.n1, other)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = seen.k1 * np.log(theta / base) + seen.k0 * np.log((1 - theta) / (1 - base))
            steps.append(np.nan_to_num(step, posinf=0, neginf=0).cumsum(1) / np.maximum(scale, 1.0))
        logs.append(log_mean(np.stack(steps, -1)))
    first = 5 if dispersed else 0
    crossed = [log >= -np.log(alpha) for log in logs]
    for item in crossed:
        item[:, :first] = False
    return _outcome(crossed[0], crossed[1], 1)


def asymptotic(seen: Arrays, ratio: float, alpha: float = 0.05, burn_in: int = 20) -> Outcome:
    """The asymptotic confidence sequence (Waudby-Smith et al. 2021) on bin differences, 30 s bins, from ``burn_in`` on."""
    half = seen.merged(2)
    crossed = []
    for sign, null in ((1, 1.0), (-1, ratio)):
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.nan_to_num(sign * (half.k1 / half.n1 - null * half.k0 / half.n0))
        time = np.arange(1, difference.shape[1] + 1)
        mean = difference.cumsum(1) / time
        variance = np.maximum((difference**2).cumsum(1) / time - mean**2, 1e-18)
        spread = 2 * np.log(1 / (2 * alpha))
        rho2 = (spread + np.log1p(spread)) / 40
        room = time * rho2 + 1
        bound = np.sqrt(variance * 2 * room / (time * time * rho2) * np.log1p(np.sqrt(room) / (2 * alpha)))
        crossed.append((mean > bound) & (time >= burn_in))
    return _outcome(crossed[0], crossed[1], 2)


def by_dispersion(seen: Arrays, ratio: float) -> Outcome:
    """Choose by the dispersion measured so far: counts where it is at most 1.2, else the asymptotic sequence."""
    phi = _phi(seen)
    fast, slow = counts(seen, ratio), asymptotic(seen, ratio)
    rows = np.arange(len(phi))

    def allowed(times: np.ndarray, independent: bool) -> np.ndarray:
        at = np.minimum(times, phi.shape[1] - 1)
        return np.where((times < NEVER) & ((phi[rows, at] <= 1.2) == independent), times, NEVER)

    return Outcome(*(
        np.minimum(allowed(getattr(fast, name), True), allowed(getattr(slow, name), False)) for name in ("rollback", "promote")
    ))


def _phi(seen: Arrays) -> np.ndarray:
    """Return the Pearson dispersion of the canary's share of the errors, up to each bin."""
    total, theta = seen.k0 + seen.k1, share(seen.n0, seen.n1, 1.0)
    spread = total * theta * (1 - theta)
    term = np.where(spread > 0, (seen.k1 - theta * total) ** 2 / np.maximum(spread, 1e-300), 0.0)
    return np.maximum(term.cumsum(1) / np.maximum((spread > 0).cumsum(1), 1), 1e-9)


def _outcome(rollback: np.ndarray, promote: np.ndarray, bins: int) -> Outcome:
    """Return first crossings, in bins of 15 s, of conditions on bins that are ``bins`` times as long."""
    return Outcome(*(
        np.where(item.any(1), (item.argmax(1) + 1) * bins - 1, NEVER) for item in (rollback, promote)
    ))
