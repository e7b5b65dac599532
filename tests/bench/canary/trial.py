# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the cells and count what came out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from . import peers
from .cells import PEERS, Cell
from .ours import NEVER, Outcome, Rule
from .world import BIN, Arrays

OURS = "canary_gate"


@dataclass(frozen=True)
class Share:
    """A part of the runs with its two-sided 95 % Clopper-Pearson limits."""

    hits: int
    runs: int

    @property
    def value(self) -> float:
        return self.hits / self.runs

    @property
    def limits(self) -> tuple[float, float]:
        return clopper_pearson(self.hits, self.runs)


@dataclass(frozen=True)
class Row:
    """What one rule did in one cell. ``ever_*``: how often a test would ever have crossed, decisions set aside."""

    cell: Cell
    rule: str
    rollback: Share
    promote: Share
    ever_rollback: Share
    ever_promote: Share
    seconds: float | None

    @property
    def wrong(self) -> list[Share]:
        """Return the rates that the rule should keep low in this cell."""
        rates = []
        if self.cell.truth in ("good", "edge"):
            rates.append(self.ever_rollback)
        if self.cell.truth in ("bad", "edge"):
            rates.append(self.ever_promote)
        return rates

    @property
    def holds(self) -> bool:
        """Say whether every wrong rate is at most 5 % with confidence: its upper limit is."""
        return all(share.limits[1] <= 0.05 for share in self.wrong)


def run(cells: list[Cell], runs: int, seed: int) -> Iterator[Row]:
    """Yield the rows of all cells. Each cell's numbers depend on the seed, its names and nothing else."""
    for cell in cells:
        words = np.frombuffer(f"{cell.group}/{cell.name}".encode(), np.uint8)
        rng = np.random.default_rng([seed, *words.tolist()])
        seen = [[world.draw(rng, runs) for world in worlds] for worlds in cell.worlds]
        yield ours(cell, seen, runs)
        if cell.rules == PEERS:
            yield from others(cell, seen[0][0], runs)


def ours(cell: Cell, seen: list[list[Arrays]], runs: int) -> Row:
    rule = Rule(cell.settings, runs)
    if len(seen) == 1:
        return _row(cell, OURS, rule.stage(seen[0], np.ones(runs, bool), stop=False), runs)
    live = np.ones(runs, bool)
    rollback = np.full(runs, NEVER)
    for stage in seen:
        outcome = rule.stage(stage, live, stop=True)
        # Time is counted from the beginning of the stage in which it went wrong.
        rollback = np.where(live & outcome.rolled_back, outcome.rollback, rollback)
        promote = np.where(live & outcome.promoted, outcome.promote, NEVER)
        live = live & outcome.promoted
    return _row(cell, OURS, Outcome(rollback, promote), runs)


def others(cell: Cell, seen: Arrays, runs: int) -> Iterator[Row]:
    ratio = cell.settings.metrics[0].ratio or 2.0
    for name, outcome in (
        ("Flagger", peers.flagger(seen)),
        ("Argo Rollouts", peers.argo(seen)),
        ("Kayenta", peers.kayenta(seen)),
        ("z-test, peeking", peers.z_tests(seen, ratio)),
        ("counts", peers.counts(seen, ratio)),
        ("counts / dispersion", peers.counts(seen, ratio, dispersed=True)),
        ("asymptotic", peers.asymptotic(seen, ratio)),
        ("by dispersion", peers.by_dispersion(seen, ratio)),
    ):
        yield _row(cell, name, outcome, runs)


def _row(cell: Cell, rule: str, outcome: Outcome, runs: int) -> Row:
    right = outcome.promoted if cell.truth == "good" else outcome.rolled_back
    # Peers end with their first decision; only the sequential tests can be asked what they would have said later.
    ends = rule in ("Flagger", "Argo Rollouts", "Kayenta")
    rolled = outcome.rolled_back if ends else outcome.rollback < NEVER
    promoted = outcome.promoted if ends else outcome.promote < NEVER
    return Row(
        cell=cell,
        rule=rule,
        rollback=Share(int(outcome.rolled_back.sum()), runs),
        promote=Share(int(outcome.promoted.sum()), runs),
        ever_rollback=Share(int(rolled.sum()), runs),
        ever_promote=Share(int(promoted.sum()), runs),
        seconds=float((np.median(outcome.decided[right]) + 1) * BIN) if right.sum() >= runs / 20 else None,
    )


@functools.cache
def clopper_pearson(hits: int, runs: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact limits of a binomial proportion (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    count = np.arange(runs + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, runs + 1)))])
    ways = log_factorial[runs] - log_factorial - log_factorial[::-1]

    def at_most(limit: int, p: float) -> float:
        return float(np.exp(ways + count * math.log(p) + (runs - count) * math.log1p(-p))[: limit + 1].sum())

    def solve(too_low: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _step in range(40):
            p = (low + high) / 2
            low, high = (p, high) if too_low(p) else (low, p)
        return (low + high) / 2

    lower = 0.0 if hits == 0 else solve(lambda p: 1 - at_most(hits - 1, p) < tail)
    upper = 1.0 if hits == runs else solve(lambda p: at_most(hits, p) > tail)
    return lower, upper
