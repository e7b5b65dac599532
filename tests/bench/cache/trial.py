# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every rule on every world and count what was served wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sophia.gateway.learn import Rule, upper_limit

from . import rules
from .worlds import WORLDS, Stream, World

__all__ = ["DELTA", "STATIC", "Row", "run"]

DELTA = 0.01
STATIC = (0.80, 0.85, 0.90, 0.95)


@dataclass(frozen=True)
class Row:
    """One rule in one world. Shares are means over runs, `half` the half-width of a 95 % interval of that mean."""

    world: str
    rule: str
    runs: int
    hits: float
    wrong_of_served: float
    half: float
    wrong_of_all: float
    above: int
    """Runs whose wrong share of what was served is above delta with 95 % confidence (one-sided Clopper-Pearson)."""

    @property
    def above_limits(self) -> tuple[float, float]:
        """The share of such runs, and its 95 % upper limit."""
        return self.above / self.runs, upper_limit(self.runs, self.above)


def run(runs: int, length: int, seed: int, worlds: Sequence[World] = WORLDS) -> Iterator[Row]:
    """Every cell's numbers depend on the seed and the world's name alone."""
    for world in worlds:
        rng = np.random.default_rng([seed, *world.name.encode()])
        stream = world.draw(rng, runs, length)
        deciders: dict[str, Callable[[Stream], rules.Served]] = {
            f"static {threshold:.2f}": lambda stream, threshold=threshold: rules.static(stream, threshold) for threshold in STATIC
        }
        deciders["vCache's rule"] = lambda stream, rng=rng: rules.vcache(stream, DELTA, rng)
        deciders["ours"] = lambda stream, rng=rng: rules.ours(stream, Rule(delta=DELTA), rng)
        for name, decide in deciders.items():
            yield _row(world, name, stream, decide(stream))


def _row(world: World, name: str, stream: Stream, served: rules.Served) -> Row:
    wrong = (served & stream.wrong).sum(axis=1)
    hits = served.sum(axis=1)
    shares = wrong / np.maximum(hits, 1)
    above = sum(
        lower_limit(int(each), int(bad)) > DELTA for each, bad in zip(hits.tolist(), wrong.tolist(), strict=True)
    )
    pooled = float(wrong.sum() / max(1, hits.sum()))
    return Row(
        world=world.name,
        rule=name,
        runs=len(hits),
        hits=float(served.mean()),
        wrong_of_served=pooled,
        half=1.96 * float(shares.std()) / math.sqrt(len(shares)),
        wrong_of_all=float(wrong.sum() / served.size),
        above=int(above),
    )


def lower_limit(checks: int, wrong: int) -> float:
    """One-sided 95 % lower limit of a share (Clopper and Pearson 1934), by its mirror."""
    return 1 - upper_limit(checks, checks - wrong) if wrong else 0.0
