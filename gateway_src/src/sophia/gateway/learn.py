# SPDX-License-Identifier: GPL-3.0-or-later
"""When a near question's answer may be served: learned per partition and band of similarity, with a bound. Pure rule.

Whoever may be answered by a near entry (the guards have passed it) falls into a *band* of similarity. A band that is
not proven is not served: the request goes upstream as any miss does, and its answer is compared with the entry's. Such
a check costs nothing that a miss would not cost. The band is served once the checks prove that at most `delta` of its
answers are wrong; from then on the share `shadow` of its hits goes upstream all the same and is compared, so the proof
goes on for as long as the band is served, and a band that fails is switched off and begins anew.

*Proof.* For a chance p below delta, ``(p/delta)^wrong ((1-p)/(1-delta))^right`` is, while the chance of a wrong answer
is delta or more at every check, a nonnegative supermartingale that starts at 1, and so is a mixture of such. By Ville's
inequality it ever reaches ``1/alpha`` with a chance of at most alpha, however often one looks (Ville 1939; Howard,
Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). `confidence` is
shared out over the bands and over a band's episodes (the j-th gets ``6/(pi^2 j^2)``), so

    with the chance `confidence`, no band of the unit is ever proven while its chance of a wrong answer was delta or
    more at each of its checks.

Without a wrong answer a band needs about 550 checks at the defaults (delta 1 %, 95 %, five bands); no rule can do with
less than ``log(1/alpha)/delta`` of them.

*Failure.* A served band is given up when the same kind of test says that its chance is above delta, over all checks
since the proof or (CUSUM at 2 delta, for a sudden change) over the latest. A good band is given up by mistake with a
chance of about 1 % a proof; then it costs hits and nothing else. Between a change for the worse and the switch some
wrong answers are served: docs/cache.md says how many.

What the bound does not cover: `sophia.gateway.same` decides what the same answer is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from sophia.stores.lessons import Band

__all__ = ["EDGES", "Rule", "upper_limit"]

EDGES = (0.995, 0.98, 0.95, 0.9, 0.0)
"""The lower edges of the bands of similarity; the floor cuts the last."""

_GOOD = ((0.0, 0.5), (0.1, 0.25), (0.3, 0.15), (0.5, 0.1))
_BAD = ((1.5, 0.2), (2.0, 0.2), (4.0, 0.2), (10.0, 0.2), (30.0, 0.2))
_MISTAKE = 0.01


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

    def observe(self, band: Band, same: bool) -> Band:
        """The band after one more check."""
        wrong = int(not same)
        if not band.served:
            checks, wrongs = band.checks + 1, band.wrong + wrong
            if self.evidence(checks, wrongs) >= math.log(1 / self._alpha(band.episode)):
                return msgspec.structs.replace(band, checks=checks, wrong=wrongs, served=True)
            if self._failure(checks, wrongs) >= math.log(1 / _MISTAKE):
                return Band(episode=band.episode + 1, failures=band.failures)
            return msgspec.structs.replace(band, checks=checks, wrong=wrongs)
        watched, wrongs = band.watched + 1, band.watched_wrong + wrong
        alarm = max(0.0, band.alarm + _gain(self.delta, min(2 * self.delta, 0.99), wrong, 1 - wrong))
        limit = math.log(1 / _MISTAKE)
        if alarm >= limit or self._failure(watched, wrongs) >= limit:
            return Band(episode=band.episode + 1, failures=band.failures + 1)
        return msgspec.structs.replace(band, watched=watched, watched_wrong=wrongs, alarm=alarm)

    def evidence(self, checks: int, wrong: int) -> float:
        """Log of the evidence that the chance of a wrong answer is below delta."""
        return _mixture(_GOOD, self.delta, checks, wrong)

    def needed(self, episode: int = 0) -> int:
        """How many checks without a wrong answer prove a band."""
        limit = math.log(1 / self._alpha(episode))
        low, high = 0, 1
        while self.evidence(high, 0) < limit:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.evidence(middle, 0) < limit else (low, middle)
        return high

    def _alpha(self, episode: int) -> float:
        return (1 - self.confidence) / len(EDGES) * 6 / (math.pi * (episode + 1)) ** 2

    def _failure(self, checks: int, wrong: int) -> float:
        return _mixture(_BAD, self.delta, checks, wrong)


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
    """The chance of `wrong` or fewer in `checks`."""
    term = math.exp(checks * math.log1p(-chance)) if chance < 1 else 0.0
    total = term
    for number in range(wrong):
        term *= (checks - number) / (number + 1) * chance / (1 - chance)
        total += term
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
