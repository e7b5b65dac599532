# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that decide over near answers, each over all runs of a world: what they serve.

`ours` calls the gateway's own rule check by check. `vcache` is the rule of the paper (arXiv 2502.03771, section 4),
written anew: per entry a logistic curve of the chance that its answer is right, fitted by maximum likelihood, and
exploration with the least chance that keeps the bound over a grid of confidences; each entry begins with the two
observations (0, wrong) and (1, right) and explores six times, as the published program does. Two things are ours: a
small ridge keeps the fit finite where the observations are separable (the program has a table of variances for that),
and entries are neither added nor evicted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sophia.gateway.learn import Rule
from sophia.stores.lessons import Standing

from .worlds import ENTRIES, Stream

__all__ = ["ours", "static", "vcache"]

Served = NDArray[np.bool_]

_BINS = 41
_RIDGE = 1e-4
_NEWTON = 8
_FIRST = 6


def static(stream: Stream, threshold: float) -> Served:
    """Serve from a fixed similarity on."""
    served: Served = stream.similarity >= threshold
    return served


def ours(stream: Stream, rule: Rule, rng: np.random.Generator) -> Served:
    """Serve what is proven, but for the share that is checked."""
    served = np.zeros(stream.wrong.shape, bool)
    draws = rng.random(stream.wrong.shape)
    for run in range(len(stream.wrong)):
        known = Standing()
        for place, (similarity, wrong, draw) in enumerate(
            zip(stream.similarity[run].tolist(), stream.wrong[run].tolist(), draws[run].tolist(), strict=True)
        ):
            if similarity < rule.floor:
                continue
            number = rule.band(similarity)
            if number < known.served and draw >= rule.share(known):
                served[run, place] = True
            else:
                known = rule.observe(known, number, not wrong)
    return served


def vcache(stream: Stream, delta: float, rng: np.random.Generator) -> Served:
    """Serve with the paper's probability, all runs abreast, one request after the other."""
    runs, length = stream.wrong.shape
    grid = np.linspace(0.0, 1.0, _BINS)
    right, wrong = np.zeros((runs, ENTRIES, _BINS)), np.zeros((runs, ENTRIES, _BINS))
    wrong[:, :, 0] = right[:, :, -1] = 1
    middle, slope, spread = np.zeros((runs, ENTRIES)), np.ones((runs, ENTRIES)), np.ones((runs, ENTRIES))
    seen = np.zeros((runs, ENTRIES), int)
    served = np.zeros((runs, length), bool)
    every = np.arange(runs)
    for place in range(length):
        entry, similarity = stream.entry[:, place], stream.similarity[:, place]
        tau = _explore(similarity, middle[every, entry], slope[every, entry], spread[every, entry], delta)
        exploit = (seen[every, entry] >= _FIRST) & (rng.random(runs) > tau)
        served[:, place] = exploit
        who = every[~exploit]
        where = entry[~exploit]
        bins = np.rint(similarity[~exploit] * (_BINS - 1)).astype(int)
        bad = stream.wrong[~exploit, place]
        wrong[who, where, bins] += bad
        right[who, where, bins] += ~bad
        seen[who, where] += 1
        fit = who[seen[who, where] >= _FIRST]
        at = entry[fit]
        if len(fit):
            middle[fit, at], slope[fit, at], spread[fit, at] = _fit(grid, right[fit, at], wrong[fit, at])
    return served


def _fit(grid: NDArray[np.float64], right: NDArray[np.float64], wrong: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Threshold, slope and the threshold's standard error (delta method), one a row."""
    total = right + wrong
    intercept, slope = np.full(len(right), -2.0), np.full(len(right), 4.0)
    for _ in range(_NEWTON):
        chance = 1 / (1 + np.exp(-np.clip(intercept[:, None] + slope[:, None] * grid, -30, 30)))
        residual = right - total * chance
        weight = total * chance * (1 - chance)
        g0, g1 = residual.sum(1) - _RIDGE * intercept, (residual * grid).sum(1) - _RIDGE * slope
        h00, h01, h11 = weight.sum(1) + _RIDGE, (weight * grid).sum(1), (weight * grid**2).sum(1) + _RIDGE
        determinant = np.maximum(h00 * h11 - h01**2, 1e-12)
        intercept = intercept + np.clip((h11 * g0 - h01 * g1) / determinant, -20, 20)
        slope = slope + np.clip((h00 * g1 - h01 * g0) / determinant, -20, 20)
    slope = np.maximum(slope, 1e-3)
    threshold = -intercept / slope
    d0, d1 = -1 / slope, intercept / slope**2
    variance = (d0**2 * h11 - 2 * d0 * d1 * h01 + d1**2 * h00) / determinant
    return np.clip(threshold, 0, 1), slope, np.sqrt(np.maximum(variance, 0))


_EPSILON = np.linspace(1e-6, 1 - 1e-6, 50)


def _quantiles() -> NDArray[np.float64]:
    """The standard normal's quantiles at 1 - epsilon (bisection on the error function)."""
    from math import erf

    found = []
    for level in 1 - _EPSILON:
        low, high = -6.0, 6.0
        for _ in range(60):
            centre = (low + high) / 2
            low, high = (centre, high) if (1 + erf(centre / 2**0.5)) / 2 < level else (low, centre)
        found.append(low)
    return np.array(found)


_Z = _quantiles()


def _explore(
    similarity: NDArray[np.float64],
    middle: NDArray[np.float64],
    slope: NDArray[np.float64],
    spread: NDArray[np.float64],
    delta: float,
) -> NDArray[np.float64]:
    """The least chance of exploring that keeps the bound, over the grid of confidences."""
    threshold = np.clip(middle[:, None] + _Z * spread[:, None], 0, 1)
    likely = 1 / (1 + np.exp(-np.clip(slope[:, None] * (similarity[:, None] - threshold), -30, 30)))
    alpha = (1 - _EPSILON) * likely
    tau: NDArray[np.float64] = (1 - delta / np.maximum(1 - alpha, 1e-12)).min(axis=1)
    return tau
