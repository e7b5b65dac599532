# SPDX-License-Identifier: GPL-3.0-or-later
"""From which similarity on near answers are served: a threshold learned per partition, with a bound. Pure rule.

Whoever may be answered by a near entry (the guards have passed it) falls into a *band* of similarity. What is not
proven is not served: the request goes upstream as any miss does, and its answer is compared with the entry's. Such a
check costs nothing that a miss would not cost. Once the checks prove that at most `delta` of the answers from some
threshold on are wrong, hits from there on are served; the share `shadow` of them (half of them for a while after a
wrong one) goes upstream all the same and is compared, so the proof goes on for as long as they are served, and a
threshold that fails is given up and all begins anew.

*Proof.* For a chance p below delta, ``(p/delta)^wrong ((1-p)/(1-delta))^right`` is, while the chance of a wrong answer
is delta or more at every check, a nonnegative supermartingale that starts at 1, and so is a mixture of such. By Ville's
inequality it ever reaches ``1/alpha`` with a chance of at most alpha, however often one looks (Ville 1939; Howard,
Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). It is computed for
every run of neighbouring bands right below what is served (all the bands from the nearest on, while nothing is), over
checks from a time when none of them was served, so each was made of every request that came. `confidence` is shared
out over the ten runs that four bands have, and over a unit's episodes (the j-th gets ``6/(pi^2 j^2)``), so

    with the chance `confidence`, no run of bands of the unit is ever proven while the chance of a wrong answer in it
    was delta or more at each of its checks.

So the share holds for the mixture of similarities that came. A band joins a run only after some checks of its own, and
never while these speak against it.

Without a wrong answer about 620 checks are needed at the defaults (delta 1 %, 95 %); no rule can do with less than
``log(1/alpha)/delta`` of them.

*Failure.* The threshold is given up when the same kind of test says that the chance of a wrong answer is above delta,
over all checks since the proof or (CUSUM at 3 delta, for a sudden change) over the latest. A good one is given up by
mistake with a chance of about 1 % a proof; then it costs hits and nothing else. Between a change for the worse and the
switch some wrong answers are served: docs/cache.md says how many.

What the bound does not cover: `sophia.gateway.same` decides what the same answer is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from sophia.stores.lessons import Standing

__all__ = ["EDGES", "Rule", "upper_limit"]

EDGES = (0.98, 0.95, 0.9, 0.0)
"""The lower edges of the bands of similarity; the floor cuts the last."""

_RUNS = len(EDGES) * (len(EDGES) + 1) // 2
_GOOD = ((0.0, 0.5), (0.1, 0.25), (0.3, 0.15), (0.5, 0.1))
_BAD = ((1.5, 0.2), (2.0, 0.2), (4.0, 0.2), (10.0, 0.2), (30.0, 0.2))
_MISTAKE = 0.01
_SUSPICION = 0.5
_LEAST = 0.3
"""A band's own checks before it is served, as a multiple of 1 / delta."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is to be proven. `delta` is the share of wrong answers, `shadow` the share of hits that are checked."""

    delta: float = 0.01
    confidence: float = 0.95
    shadow: float = 0.05
    floor: float = 0.8

    def band(self, similarity: float) -> int:
        """The number of the band that a similarity falls into, 0 for the nearest."""
        return next(number for number, edge in enumerate(EDGES) if similarity >= edge or number == len(EDGES) - 1)

    def threshold(self, standing: Standing) -> float | None:
        """The similarity from which near answers are served; None while none are."""
        return max(self.floor, EDGES[standing.served - 1]) if standing.served else None

    def share(self, standing: Standing) -> float:
        """Which share of the hits is checked."""
        return max(self.shadow, 0.5) if standing.alarm >= _SUSPICION else self.shadow

    def observe(self, standing: Standing, number: int, same: bool) -> Standing:
        """What is known after one more check, in band `number`."""
        if number < standing.served:
            return self._watch(standing, int(not same))
        checks, wrong = list(standing.checks), list(standing.wrong)
        checks[number] += 1
        wrong[number] += not same
        limit = math.log(1 / self._alpha(standing.episode))
        served, tried, failed = standing.served, 0, 0
        for last in range(standing.served, len(EDGES)):
            tried, failed = tried + checks[last], failed + wrong[last]
            if self._fails(checks[last], wrong[last]):
                break
            if checks[last] >= _LEAST / self.delta and self.evidence(tried, failed) >= limit:
                served = last + 1
        if not served and self._fails(checks[0], wrong[0]):
            return Standing(episode=standing.episode + 1, failures=standing.failures)
        return msgspec.structs.replace(standing, checks=tuple(checks), wrong=tuple(wrong), served=served)

    def evidence(self, checks: int, wrong: int) -> float:
        """Log of the evidence that the chance of a wrong answer is below delta."""
        return _mixture(_GOOD, self.delta, checks, wrong)

    def needed(self, episode: int = 0) -> int:
        """How many checks without a wrong answer are a proof."""
        limit = math.log(1 / self._alpha(episode))
        low, high = 0, 1
        while self.evidence(high, 0) < limit:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.evidence(middle, 0) < limit else (low, middle)
        return high

    def _watch(self, standing: Standing, wrong: int) -> Standing:
        """A check of what is served."""
        watched, wrongs = standing.watched + 1, standing.watched_wrong + wrong
        alarm = max(0.0, standing.alarm + _gain(self.delta, min(3 * self.delta, 0.99), wrong, 1 - wrong))
        if alarm >= math.log(1 / _MISTAKE) or self._fails(watched, wrongs):
            return Standing(episode=standing.episode + 1, failures=standing.failures + 1)
        return msgspec.structs.replace(standing, watched=watched, watched_wrong=wrongs, alarm=alarm)

    def _alpha(self, episode: int) -> float:
        return (1 - self.confidence) / _RUNS * 6 / (math.pi * (episode + 1)) ** 2

    def _fails(self, checks: int, wrong: int) -> bool:
        return _mixture(_BAD, self.delta, checks, wrong) >= math.log(1 / _MISTAKE)


def upper_limit(checks: int, wrong: int, confidence: float = 0.95) -> float:
    """One-sided upper limit of a share that was wrong `wrong` times in `checks` (Clopper and Pearson 1934)."""
    if wrong >= checks:
        return 1.0
    low, high = wrong / checks, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(wrong, checks, middle) > 1 - confidence else (low, middle)
    return high


def _at_most(wrong: int, checks: int, chance: float) -> float:
    """The chance of `wrong` or fewer in `checks`, for a chance above their share: summed from the largest term down."""
    if chance >= 1:
        return 0.0
    ways = math.lgamma(checks + 1) - math.lgamma(wrong + 1) - math.lgamma(checks - wrong + 1)
    term = math.exp(ways + wrong * math.log(chance) + (checks - wrong) * math.log1p(-chance))
    total = term
    for number in range(wrong, 0, -1):
        term *= number / (checks - number + 1) * (1 - chance) / chance
        total += term
        if term < 1e-12 * total:
            break
    return total


@lru_cache(maxsize=65_536)
def _mixture(alternatives: tuple[tuple[float, float], ...], delta: float, checks: int, wrong: int) -> float:
    """Log of the mixed likelihood ratio of the alternatives, given as multiples of delta with their weights."""
    terms = [
        math.log(weight) + _gain(delta, min(multiple * delta, 0.99), wrong, checks - wrong)
        for multiple, weight in alternatives
        if multiple > 0 or not wrong
    ]
    most = max(terms)
    return most + math.log(sum(math.exp(term - most) for term in terms))


def _gain(delta: float, chance: float, wrong: int, right: int) -> float:
    """Log of the likelihood ratio of `chance` to `delta`."""
    log = right * math.log((1 - chance) / (1 - delta))
    return log + wrong * math.log(chance / delta) if wrong else log
