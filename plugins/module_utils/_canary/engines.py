# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The evidence for and against a canary: e-processes, which may be looked at after every bin.

An e-process starts at 1 and, while its null hypothesis holds, has an expectation of at most 1 whenever one stops; so
it ever reaches ``1/alpha`` with a probability of at most ``alpha`` (Ville 1939; Ramdas, Grünwald, Vovk, Shafer,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 2023). Means of e-processes are
e-processes, which is how several bets, metrics and stages are combined. Each is the wealth of a gambler who bets
against the null, bin after bin, with bets fixed in advance (Waudby-Smith and Ramdas, "Estimating means of bounded
random variables by betting", JRSS B 2024). All functions return the logarithm of one bin's factor, one for each bet.

* *worse, better*: of the ``k0 + k1`` errors of a bin, given their number, a canary with ``ratio`` times the
  baseline's rate gets the share ``theta = ratio n1 / (ratio n1 + n0)`` on average. That holds however the errors
  cluster, as long as a cluster stays within its bin and clusters are alike in both arms: it needs no independence of
  errors and no estimate of their dispersion, and load and error rate may differ from bin to bin. The bet is linear in
  that share.
* *worse_mean*: the same for sums of any non-negative value, where one request is a cluster.
* *above*: the mean of a bin's ratio is at most the limit, whatever its distribution (only that it is not negative).
* *worse_capped, better_capped, below*: clusters may differ between the arms in any way, but none (no burst of errors,
  no single request's value) is larger than ``largest``. ``exp(bet k / largest)`` is convex in the size of a cluster,
  so clusters of exactly that size are the worst case. Without such a bound a low figure is never proof of anything:
  the burst may be yet to come.
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

# No bet risks everything: a factor of 0 could never be made good.
STAKE = 0.95

# Where next to nothing was expected, any excess is infinite; a smaller gain than is due is fair too.
EXCESS = 1e9

# In units of one error. The best bet is near (theta1 - theta) / (burst theta (1 - theta)): the range covers ratios
# from 1.5 to 10, shares from 5 to 50 % and bursts from 1 to 10.
WORSE_BETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
BETTER_BETS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
# As a part of the largest possible stake.
STAKES = (0.05, 0.15, 0.4, 1.0)
# The best bet is the logarithm of how far below the limit (or the ratio) the canary is.
CAPPED_BETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


class Counts(NamedTuple):
    """One bin: requests ``n`` and errors (or slow requests, or the sum of a value) ``k``; baseline 0, canary 1."""

    n0: float
    k0: float
    n1: float
    k1: float


def share(counts: Counts, ratio: float) -> float:
    """Return the share of what happens that a canary with ``ratio`` times the baseline's rate gets."""
    weight = ratio * counts.n1
    return weight / (weight + counts.n0) if weight + counts.n0 > 0 else 0.0


def worse(counts: Counts, ratio: float) -> list[float]:
    """Bet that the canary's rate is more than ``ratio`` times the baseline's."""
    if min(counts.n0, counts.n1) <= 0:
        return [0.0] * len(WORSE_BETS)
    total = counts.k0 + counts.k1
    expected = share(counts, ratio) * total
    return _linear(WORSE_BETS, counts.k1 - expected, expected)


def better(counts: Counts, ratio: float) -> list[float]:
    """Bet that the canary's rate is less than ``ratio`` times the baseline's."""
    if min(counts.n0, counts.n1) <= 0:
        return [0.0] * len(BETTER_BETS)
    total = counts.k0 + counts.k1
    expected = share(counts, ratio) * total
    return _linear(BETTER_BETS, expected - counts.k1, total - expected)


def worse_mean(counts: Counts, ratio: float) -> list[float]:
    """Bet that the canary's mean value per request is more than ``ratio`` times the baseline's."""
    if min(counts.n0, counts.n1) <= 0:
        return [0.0] * len(STAKES)
    expected = share(counts, ratio) * (counts.k0 + counts.k1)
    return _relative(counts.k1, expected)


def worse_capped(counts: Counts, ratio: float, largest: float) -> list[float]:
    """Bet that the canary's rate is above ``ratio`` times the baseline's; no cluster exceeds ``largest``."""
    return _capped(counts, ratio, largest, 1.0)


def better_capped(counts: Counts, ratio: float, largest: float) -> list[float]:
    """Bet that the canary's rate is below ``ratio`` times the baseline's; no cluster exceeds ``largest``."""
    return _capped(counts, ratio, largest, -1.0)


def above(n: float, k: float, limit: float) -> list[float]:
    """Bet that ``k / n`` is above ``limit`` on average."""
    return _relative(k, n * limit)


def below(n: float, k: float, limit: float, largest: float) -> list[float]:
    """Bet that ``k / n`` is below ``limit`` on average; nothing adds more than ``largest`` to ``k`` at once."""
    return [(-bet * k - n * limit * math.expm1(-bet)) / largest for bet in CAPPED_BETS]


class Evidence:
    """An e-process: the mean of the wealth that each bet has made so far. It starts at 1 and forgets nothing."""

    __slots__ = ("wealth",)

    def __init__(self) -> None:
        self.wealth: list[float] = []

    def add(self, factors: list[float]) -> None:
        """Multiply in the factors (logarithms) of one bin."""
        self.wealth = list(map(operator.add, self.wealth, factors)) if self.wealth else list(factors)

    @property
    def log(self) -> float:
        """Return the logarithm of the e-value."""
        return log_mean(self.wealth) if self.wealth else 0.0


def log_mean(logs: list[float]) -> float:
    """Return the logarithm of the mean of numbers given by their logarithms."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs) / len(logs))


def _capped(counts: Counts, ratio: float, largest: float, sign: float) -> list[float]:
    """Return ``exp(bet k1 / largest)`` over its largest expectation given ``k0 + k1``, or given the rates alone."""
    if min(counts.n0, counts.n1) <= 0:
        return [0.0] * len(CAPPED_BETS)
    theta = share(counts, ratio)
    clusters = (counts.k0 + counts.k1) / largest
    return [
        sign * bet * counts.k1 / largest - clusters * math.log1p(theta * math.expm1(sign * bet))
        for bet in CAPPED_BETS
    ]


def _linear(bets: tuple[float, ...], gain: float, risk: float) -> list[float]:
    """Return the factors of bets in units of one error, none staking more than :data:`STAKE` of its wealth."""
    most = STAKE / risk if risk > 0 else math.inf
    return [math.log1p(min(bet, most) * gain) for bet in bets]


def _relative(seen: float, expected: float) -> list[float]:
    """Return the factors of bets on the relative excess over what is expected."""
    if expected <= 0:
        return [0.0] * len(STAKES)
    excess = min(seen / expected - 1.0, EXCESS)
    return [math.log1p(STAKE * stake * excess) for stake in STAKES]
