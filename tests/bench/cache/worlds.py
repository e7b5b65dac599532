# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of requests that a near entry could answer, and whether its answer would be wrong: what rules are tried on.

A run is one partition over `length` requests. Each request meets an entry (Zipf over `ENTRIES`) at a similarity; the
chance that the entry's answer would be wrong is the world's own function of similarity, entry and time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENTRIES", "WORLDS", "Stream", "World"]

ENTRIES = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stream:
    """Runs by requests: similarity, entry, and whether the entry's answer is wrong there."""

    similarity: Floats
    entry: NDArray[np.int64]
    wrong: NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """`chance(similarity, threshold, time)` is of a wrong answer; thresholds differ by entry, time goes from 0 to 1."""

    name: str
    text: str
    chance: Callable[[Floats, Floats, Floats], Floats]

    def draw(self, rng: np.random.Generator, runs: int, length: int) -> Stream:
        # Near questions whose wording was evened out are mostly at 1; the rest thins out downward.
        similarity = 1 - rng.beta(0.6, 3.0, (runs, length)) * 0.3
        weights = 1 / np.arange(1, ENTRIES + 1)
        entry = rng.choice(ENTRIES, (runs, length), p=weights / weights.sum())
        thresholds = np.take_along_axis(rng.normal(0.88, 0.03, (runs, ENTRIES)), entry, axis=1)
        time = np.broadcast_to(np.linspace(0, 1, length), similarity.shape)
        return Stream(similarity, entry, rng.random((runs, length)) < self.chance(similarity, thresholds, time))


def _sigmoid(value: Floats) -> Floats:
    return 1 / (1 + np.exp(-value))


WORLDS = (
    World(
        "similarity tells",
        "wrong below an entry's own threshold (0.88 on average), right above: the model that vCache assumes",
        lambda s, t, _: _sigmoid(-120 * (s - t)),
    ),
    World("guards left 0.2 %", "0.2 % wrong at any similarity", lambda s, _t, _: np.full_like(s, 0.002)),
    World(
        "look-alikes",
        "similarity tells, and 5 % are look-alikes, wrong at any similarity",
        lambda s, t, _: 0.05 + 0.95 * _sigmoid(-120 * (s - t)),
    ),
    World("at the bound", "1 % wrong at any similarity: no rule can tell it from just above", lambda s, _t, _: np.full_like(s, 0.01)),
    World("turns bad", "0.2 % wrong, from the middle on 10 %", lambda s, _t, time: np.where(time < 0.5, 0.002, 0.1)),
)
